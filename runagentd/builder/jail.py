"""The builder's jail: a read-only root with the Python runtime and uv, one bounded folder, and nothing else.

Runs as: root, in the supervisor's child, until `confine`.
Reads from strangers: nothing. Whatever is refused here ends the builder before it has read anything.
"""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Sequence

from runagentd import confinement, kernel
from runagentd.plan import landlock
from runagentd.wire.build import STAGE, BuildJob, Host

INSTALLER = "/uv"
WHEELS = "/wheels"
AUTHORITIES = "/authorities.pem"
PROCESSES_MAX = 256
_BACKLOG = 128

_READ_ONLY = kernel.MOUNT_ATTR_NOSUID | kernel.MOUNT_ATTR_NODEV | kernel.MOUNT_ATTR_RDONLY

# landlock(7): bits of the rights to files.
_EXECUTE, _READ_FILE, _READ_DIR, _WRITE_FILE = 1 << 0, 1 << 2, 1 << 3, 1 << 1
_MAKE_CHAR, _MAKE_BLOCK, _REFER, _IOCTL_DEV = 1 << 6, 1 << 11, 1 << 13, 1 << 15


def listen(hosts: Sequence[Host]) -> list[socket.socket]:
    """A listening socket in this network namespace for each of the hosts."""
    made = []
    for number, host in enumerate(hosts):
        if not host.address.startswith("127."):
            kernel.add_loopback_address(host.address, number)
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.bind((host.address, host.port))
        listener.listen(_BACKLOG)
        made.append(listener)
    return made


def enter(job: BuildJob, place: str, paths: Sequence[str], links: Sequence[str], *, stage: int, wheels: int) -> None:
    """Make the root at `place`, in a mount namespace of its own, and go there. Pid 1 of the namespace does this.

    `stage` and `wheels` are detached mounts; -1 for no wheels.
    """
    kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWCGROUP)
    kernel.mount("none", "/", "none", kernel.MS_REC | kernel.MS_PRIVATE)
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    kernel.mount("jail", place, "tmpfs", flags, "size=1m,nr_inodes=512,mode=0755")
    for path in paths:
        kernel.bind(path, place + path, attributes=_READ_ONLY)
    kernel.bind(job.installer, place + INSTALLER, attributes=_READ_ONLY)
    if wheels >= 0:
        os.mkdir(place + WHEELS, 0o755)
        kernel.move_mount(wheels, place + WHEELS)
    for link, target in (text.split("=", 1) for text in links):
        os.makedirs(os.path.dirname(place + link), exist_ok=True)
        os.symlink(target, place + link)
    for name in ("null", "zero", "urandom"):
        kernel.bind(f"/dev/{name}", f"{place}/dev/{name}", attributes=kernel.MOUNT_ATTR_NOSUID)
    os.makedirs(f"{place}/etc", exist_ok=True)
    for name, content in _files(job).items():
        with open(place + name, "xb") as file:
            file.write(content)
        os.chmod(place + name, 0o644)
    os.symlink(f"{STAGE[1:]}/tmp", f"{place}/tmp")
    for folder in ("/proc", STAGE):
        os.mkdir(place + folder, 0o755)
    kernel.mount("proc", f"{place}/proc", "proc", flags | kernel.MS_RDONLY, "subset=pid")
    kernel.move_mount(stage, place + STAGE)
    kernel.mount("jail", place, "tmpfs", kernel.MS_REMOUNT | kernel.MS_RDONLY | flags)
    os.chdir(place)
    kernel.pivot_root(".", ".")
    kernel.unmount(".")
    os.chdir(STAGE)


def _files(job: BuildJob) -> dict[str, bytes]:
    names = "".join(f"{host.address} {host.name}\n" for host in job.hosts if host.name != host.address)
    files = {
        "/etc/hosts": f"127.0.0.1 localhost\n{names}".encode(),
        "/etc/nsswitch.conf": b"passwd: files\ngroup: files\nhosts: files\n",
        "/etc/passwd": f"builder:x:65534:65534:builder:{STAGE}:/usr/sbin/nologin\n".encode(),
    }
    if job.authorities:
        files[AUTHORITIES] = job.authorities
    return files


def confine(uid: int, program: bytes, *, last: int, source: bool, file_bytes: int) -> None:
    """Give up everything but the staging folder, then believe the kernel only: OSError where anything is left."""
    limits = {
        resource.RLIMIT_NPROC: PROCESSES_MAX,  # counted by uid, which nobody else has
        resource.RLIMIT_NOFILE: 1024,
        resource.RLIMIT_FSIZE: file_bytes,
        resource.RLIMIT_CORE: 1,  # core(5): 0 would start a pipe's handler all the same
        resource.RLIMIT_MEMLOCK: 64 * 1024,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    for limit, value in limits.items():
        resource.setrlimit(limit, (value, value))
    kernel.join_session_keyring()
    kernel.drop_privileges(uid, uid, last=last)
    kernel.set_dumpable(False)  # after the ids: a change of them sets it again (prctl(2))
    os.umask(0o022)
    _restrict_files(source=source)
    confinement.look(kernel.status_fields(), uid, uid)
    kernel.load_seccomp_filter(program)
    confinement.look_at_filter(kernel.status_fields())


def forbid_programs_but(*paths: str) -> None:
    """From now on this process and what it becomes start these files and no other (landlock(7))."""
    # A layer that does not grant REFER takes it away, handled or not, and uv renames across folders.
    ruleset = kernel.landlock_create_ruleset(filesystem=_EXECUTE | _REFER, network=0, scoped=0)
    try:
        _allow(ruleset, STAGE, _REFER)
        for path in paths:
            _allow(ruleset, path, _EXECUTE)
        kernel.landlock_restrict_self(ruleset)
    finally:
        os.close(ruleset)


def _restrict_files(*, source: bool) -> None:
    """The mounts say the same; this is the second layer."""
    abi = kernel.landlock_abi()
    if abi < 2:
        raise PermissionError("this kernel has no Landlock, or one that lets nobody rename across folders")
    filesystem, _, scoped = landlock.handled(abi)
    ruleset = kernel.landlock_create_ruleset(filesystem=filesystem, network=0, scoped=scoped)
    read = _READ_FILE | _READ_DIR
    everything = filesystem & ~(_MAKE_CHAR | _MAKE_BLOCK | _IOCTL_DEV)
    own = everything if source else everything & ~_EXECUTE
    try:
        for path, rights in (("/", read | _EXECUTE), ("/dev", _READ_FILE | _WRITE_FILE), (STAGE, own)):
            _allow(ruleset, path, rights)
        kernel.landlock_restrict_self(ruleset)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        kernel.landlock_allow_path(ruleset, descriptor, rights)
    finally:
        os.close(descriptor)
