"""Attempts on the file system: reading what is not ours, writing where it is read-only.

Runs as: see `frame`.
Reads from strangers: nothing.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import stat
import sys
from collections.abc import Iterator

from tests.escape.attempts.frame import Function, Nothing, attempt, attempts

AREA = "files"
OWN = ("/app", "/tmp", "/dev/shm")
DEVICES = {"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"}
MIB = 1024 * 1024


def can_open(path: str, flags: int) -> str:
    os.close(os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK))
    return f"opened {path}"


def can_list(path: str) -> str:
    found = os.listdir(path)
    if not found:
        raise Nothing(f"{path} is empty")
    return f"{path}: {', '.join(found[:8])}"


# ---- reading what is not ours


def _read(path: str) -> Function:
    return lambda: can_open(path, os.O_RDONLY)


attempts(
    AREA,
    "ENOENT",
    [
        ("read_shadow", "password hashes", _read("/etc/shadow")),
        ("read_ld_so_conf", "the host's own /etc, not a generated one", _read("/etc/ld.so.conf")),
        ("read_package_database", "which versions are there to be attacked", _read("/var/lib/dpkg/status")),
        ("read_os_release", "which machine this is, for the choice of an exploit", _read("/etc/os-release")),
    ],
)
attempts(
    AREA,
    "ENOENT",
    [
        ("list_var", "state of every service", lambda: can_list("/var/lib")),
        ("list_run", "sockets of every service", lambda: can_list("/run")),
        ("list_sys", "the kernel's objects", lambda: can_list("/sys")),
        ("list_kernel_file_systems", "cgroups and bpf objects lie there", lambda: can_list("/sys/fs")),
    ],
)


def _beside_the_runtime(*folders: str) -> str:
    """What lies in these folders that is not on the way to the interpreter, which may be installed below a home."""
    found = []
    for folder in folders:
        for name in os.listdir(folder) if os.path.isdir(folder) else ():
            path = os.path.join(folder, name)
            if not f"{sys.base_prefix}/".startswith(f"{path}/"):
                found.append(path)
    if not found:
        raise Nothing("none")
    return ", ".join(found[:8])


@attempt(AREA, "nothing")
def list_the_home_of_root() -> str:
    """Keys of whoever runs the daemon."""
    return _beside_the_runtime("/root")


@attempt(AREA, "nothing")
def list_the_homes_of_others() -> str:
    """Keys of people, files of services."""
    return _beside_the_runtime("/home", "/srv", "/mnt", "/media", "/opt", "/boot", "/var", "/run")


def walk(*tops: str) -> Iterator[tuple[str, os.stat_result]]:
    """Everything that can be seen, without /proc; at most 300,000 entries."""
    count = 0
    for top in tops:
        for folder, folders, files in os.walk(top):
            folders[:] = [name for name in folders if os.path.join(folder, name) != "/proc"]
            for name in (*folders, *files):
                count += 1
                if count > 300_000:
                    return
                path = os.path.join(folder, name)
                with contextlib.suppress(OSError):
                    yield path, os.lstat(path)


def _sought(found: Iterator[str]) -> str:
    first = [path for path, _ in zip(found, range(5), strict=False)]
    if not first:
        raise Nothing("none in sight")
    return ", ".join(first)


def _setuid_files(*tops: str) -> Iterator[str]:
    for path, entry in walk(*tops):
        if stat.S_ISREG(entry.st_mode) and entry.st_mode & 0o6000 and not os.statvfs(path).f_flag & os.ST_NOSUID:
            yield path


@attempt(AREA, "nothing", control=lambda: _sought(_setuid_files("/usr/bin")))
def find_a_setuid_file() -> str:
    """A program that runs as its owner, whoever starts it, on a mount where that bit counts."""
    return _sought(_setuid_files("/"))


def _sockets(*tops: str) -> Iterator[str]:
    return (path for path, entry in walk(*tops) if stat.S_ISSOCK(entry.st_mode) or stat.S_ISFIFO(entry.st_mode))


def _make_a_socket_and_look() -> str:
    import socket

    with socket.socket(socket.AF_UNIX) as one:
        one.bind("/app/door.sock")
        return _sought(_sockets("/app"))


@attempt(AREA, "nothing", control=_make_a_socket_and_look)
def find_a_socket_or_fifo() -> str:
    """connect(2) ignores that a mount is read-only: a socket file is authority."""
    return _sought(_sockets("/"))


def _devices(*tops: str) -> Iterator[str]:
    for path, entry in walk(*tops):
        if stat.S_ISBLK(entry.st_mode) or (stat.S_ISCHR(entry.st_mode) and path not in DEVICES):
            yield path


def _make_a_device_and_look() -> str:
    os.mknod("/app/mem", stat.S_IFCHR | 0o600, os.makedev(1, 1))
    return _sought(_devices("/app"))


@attempt(AREA, "nothing", control=_make_a_device_and_look)
def find_a_device() -> str:
    """Any device but the five harmless ones."""
    return _sought(_devices("/"))


def _writable(*tops: str) -> Iterator[str]:
    for path, entry in walk(*tops):
        if stat.S_ISLNK(entry.st_mode) or path in DEVICES or path.startswith(OWN):
            continue
        if os.access(path, os.W_OK):
            yield path


@attempt(AREA, "nothing", control=lambda: _sought(_writable("/usr/bin")))
def find_something_writable() -> str:
    """Anything that may be written outside of /app, /tmp and /dev/shm."""
    return _sought(_writable("/"))


def _configurations(*tops: str) -> Iterator[str]:
    for path, _ in walk(*tops):
        if os.path.basename(path) == "runagent.config.json" and path != "/app/runagent.config.json":
            yield path


def _make_a_configuration_and_look() -> str:
    os.mkdir("/app/neighbour")
    with open("/app/neighbour/runagent.config.json", "w") as file:
        file.write("{}")
    return _sought(_configurations("/app"))


@attempt(AREA, "nothing", control=_make_a_configuration_and_look)
def find_another_agents_code() -> str:
    """Another agent's snapshot may hold its keys."""
    return _sought(_configurations("/"))


@attempt(AREA, "nothing", no_control="outside, every read-only mount that could be looked at is one of ours")
def find_a_mount_that_is_not_read_only() -> str:
    """The mount table's own word: only the three folders of ours may be writable."""
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        rows = [line.split() for line in file]
    # An entry that a later one covers cannot be reached; the last of each place counts.
    options = {row[4]: row[5].split(",") for row in rows}
    found = [place for place, words in options.items() if "ro" not in words and not place.startswith(OWN)]
    loose = [place for place, words in options.items() if "nosuid" not in words]
    devices = [place for place, words in options.items() if "nodev" not in words and not place.startswith("/dev")]
    if not (found or loose or devices):
        raise Nothing(f"{len(options)} mounts are as they should be")
    return f"writable: {found}; without nosuid: {loose}; without nodev: {devices}"


# ---- writing where it is read-only


def _write(path: str) -> Function:
    return lambda: can_open(path, os.O_WRONLY)


def _create(folder: str) -> Function:
    def create() -> str:
        path = os.path.join(folder, "escape-attempt")
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
        os.unlink(path)
        return f"created {path}"

    return create


STDLIB = os.path.dirname(os.__file__)
INTERPRETER = os.path.realpath(sys.executable or "/usr/bin/python3")

attempts(
    AREA,
    "EROFS EACCES",
    [
        ("write_the_standard_library", "every agent imports os.py", _write(os.__file__)),
        ("write_passwd", "a new user with uid 0", _write("/etc/passwd")),
        ("create_in_the_root", "a folder that a later step might trust", _create("/")),
        ("create_in_etc", "ld.so.preload is loaded into every program", _create("/etc")),
        ("create_in_the_standard_library", "a module that others will import", _create(STDLIB)),
        ("create_in_lib", "a library that others will load", _create("/usr/lib")),
        ("create_in_dev", "a device's name", _create("/dev")),
    ],
)
attempts(
    AREA,
    "EROFS EACCES ENOENT",
    [
        ("create_in_usr_bin", "a program that others will start", _create("/usr/bin")),
        ("create_in_usr_local", "the first place on most search paths", _create("/usr/local")),
    ],
)


def _link_beside() -> str:
    os.link(os.__file__, os.path.join(STDLIB, "linked.py"))
    return "linked"


@attempt(AREA, "EROFS EACCES EXDEV", control=_link_beside)
def link_the_standard_library_into_our_folder() -> str:
    """A hard link has the inode's own permissions and the mount of its new place."""
    os.link(os.__file__, os.path.join(os.getcwd(), "linked.py"))
    return "linked"


@attempt(AREA, "EROFS EACCES EPERM")
def make_the_standard_library_ours() -> str:
    """chmod and utime are writes, too."""
    os.utime(os.__file__)
    return "changed the times of os.py"


@attempt(AREA, "EROFS EACCES EPERM")
def rename_the_standard_library() -> str:
    """Moving away is writing to the folder."""
    os.rename(os.__file__, os.__file__ + ".moved")
    os.rename(os.__file__ + ".moved", os.__file__)
    return "renamed os.py and back"


@attempt(AREA, "EROFS EACCES EPERM ENOENT")
def remove_etc_hosts() -> str:
    """Removing is writing to the folder."""
    os.unlink("/etc/hosts")
    return "removed /etc/hosts"


@attempt(AREA, "EROFS EACCES")
def reopen_a_read_only_descriptor_for_writing() -> str:
    """/proc/self/fd/N is opened anew: the flags of the first open do not bind the second."""
    descriptor = os.open(os.__file__, os.O_RDONLY)
    return can_open(f"/proc/self/fd/{descriptor}", os.O_WRONLY)


@attempt(AREA, "EROFS EACCES")
def reopen_a_path_descriptor_for_writing() -> str:
    """O_PATH asks for no permission at all, and its descriptor can be opened as well."""
    descriptor = os.open(os.__file__, os.O_PATH)
    return can_open(f"/proc/self/fd/{descriptor}", os.O_WRONLY)


@attempt(AREA, "EACCES", no_control="the kernel refuses it to everybody: the descriptor is open for reading only")
def map_the_interpreter_for_writing() -> str:
    """A shared mapping of a file that is open for reading writes to the page cache."""
    return _map_shared("/proc/self/exe")


def _map_shared(path: str) -> str:
    descriptor = os.open(path, os.O_RDONLY)
    mmap.mmap(descriptor, 4096, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | mmap.PROT_WRITE).close()
    return "mapped"


@attempt(AREA, "EROFS EACCES", sees="ETXTBSY open")
def write_the_running_interpreter() -> str:
    """/proc/self/exe leads to the file on the mount it was started from: CVE-2019-5736 overwrote runc that way."""
    return can_open("/proc/self/exe", os.O_WRONLY)


def _writable_mappings() -> str:
    with open("/proc/self/maps", encoding="utf-8") as file:
        paths = {line.split(maxsplit=5)[5].strip() for line in file if line.count("/")}
    places = [path for path in sorted(paths) if path.startswith("/") and os.path.exists(path)]
    found = [path for path in places if not os.statvfs(path).f_flag & os.ST_RDONLY and not path.startswith(OWN)]
    exe = os.statvfs("/proc/self/exe").f_flag & os.ST_RDONLY
    if not found and exe:
        raise Nothing(f"all of {len(places)} mapped files, and the interpreter, lie on read-only mounts")
    return f"interpreter read-only: {bool(exe)}; writable: {found}"


@attempt(AREA, "nothing")
def find_a_mapped_file_on_a_writable_mount() -> str:
    """A fork without exec keeps the libraries of the launcher's mounts, also after pivot_root."""
    return _writable_mappings()


@attempt(AREA, "EROFS EACCES ENOTSUP")
def make_a_nameless_file_in_the_runtime() -> str:
    """O_TMPFILE needs no name to write."""
    os.close(os.open(STDLIB, os.O_WRONLY | os.O_TMPFILE, 0o600))
    return "made a nameless file"
