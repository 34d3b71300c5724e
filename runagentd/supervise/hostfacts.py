"""Look at this machine: what its kernel offers, its cgroups, and the Python runtime that agents will see.

Runs as: the supervisor, root, at its start and before it has threads; and `runagentctl doctor`.
Reads from strangers: nothing.
Nothing is refused here: `plan.build` says what a sandbox cannot do without, and doctor shows the rest.
"""

from __future__ import annotations

import errno
import os
import platform
import re
from pathlib import Path

from runagentd import interpreters, kernel
from runagentd.errors import HostError
from runagentd.plan.facts import HostFacts
from runagentd.supervise import cgroup, libseccomp


def gather(idmap_folder: Path = Path("/")) -> HostFacts:
    """What this machine offers; `idmap_folder` is where idmapped mounts are tried (the state directory's file system).

    HostError only where the Python runtime cannot be found.
    """
    python = interpreters.find()
    cgroups, problem = None, ""
    try:
        cgroups = cgroup.own_layout()
    except HostError as error:
        problem = str(error)
    yama = _read("/proc/sys/kernel/yama/ptrace_scope")
    user_namespaces = int(_read("/proc/sys/user/max_user_namespaces") or 0) > 0
    return HostFacts(
        release=release(platform.release()),
        machine=platform.machine(),
        last_capability=kernel.last_capability(),
        landlock_abi=kernel.landlock_abi(),
        seccomp_actions=tuple(_read("/proc/sys/kernel/seccomp/actions_avail").split()),
        overlay=_has_overlay(),
        user_namespaces=user_namespaces,
        idmapped_mounts=user_namespaces and _can_idmap(idmap_folder),
        yama_ptrace_scope=int(yama) if yama else None,
        libseccomp=_libseccomp(),
        cgroups=cgroups,
        cgroup_problem=problem,
        python=python,
    )


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def release(text: str) -> tuple[int, int, int]:
    """The numbers that a kernel's release (uname(2)) begins with."""
    numbers = [int(number) for number in re.findall(r"\d+", text.partition("-")[0])[:3]]
    return (*numbers, 0, 0, 0)[:3]  # type: ignore[return-value]  # mypy does not count a starred tuple


def _libseccomp() -> tuple[int, int, int] | None:
    try:
        return libseccomp.version()
    except HostError:
        return None


def _has_overlay() -> bool:
    if "\toverlay\n" in _read("/proc/filesystems") + "\n":
        return True
    try:
        # Makes the kernel load the module where it is one. Without a lower layer it can only fail: EINVAL, or ENODEV.
        kernel.mount("overlay", "/proc", "overlay", 0)
    except OSError as error:
        return error.errno != errno.ENODEV
    return True


def _can_idmap(folder: Path) -> bool:
    """Try an idmapped mount (mount_setattr(2)): file systems learned it one by one, and it needs CAP_SYS_ADMIN."""
    holder, release = _user_namespace_holder()
    try:
        Path(f"/proc/{holder}/uid_map").write_text("0 65532 1")
        Path(f"/proc/{holder}/gid_map").write_text("0 65532 1")
        namespace = os.open(f"/proc/{holder}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        try:
            tree = kernel.open_tree(kernel.AT_FDCWD, str(folder), kernel.OPEN_TREE_CLONE)
            try:
                kernel.mount_setattr(tree, user_namespace=namespace)
            finally:
                os.close(tree)
        finally:
            os.close(namespace)
    except OSError:
        return False
    finally:
        os.close(release)
        os.waitpid(holder, 0)
    return True


def _user_namespace_holder() -> tuple[int, int]:
    """A child in a user namespace of its own, which ends when the descriptor is closed."""
    hold_read, hold_write = os.pipe()
    ready_read, ready_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(hold_write)
            kernel.unshare(kernel.CLONE_NEWUSER)
            os.write(ready_write, b"1")
            os.read(hold_read, 1)
        finally:
            os._exit(0)
    os.close(hold_read)
    os.close(ready_write)
    os.read(ready_read, 1)  # end of file where unshare(2) was refused: writing the map then fails
    os.close(ready_read)
    return pid, hold_write
