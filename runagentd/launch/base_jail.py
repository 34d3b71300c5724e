"""Build the base jail and exec the zygote inside it.

Runs as: root, started by the supervisor with an empty environment; then it is the zygote.
Reads from strangers: nothing. Paths come from the supervisor as arguments.
The zygote is exec'd inside read-only mounts: a child that is forked and not exec'd keeps /proc/self/exe and all mapped
library on the mounts of its parent, after pivot_root(2) too (measured 2026-11).
"""

from __future__ import annotations

import os
import sys

from runagentd import kernel

_PACKAGE_FOLDER = "/runagentd"
_START = f"import sys; sys.path.append({_PACKAGE_FOLDER!r}); from runagentd.launch.zygote import main; main(%d)"

# SYS_ADMIN: namespaces and mounts. NET_ADMIN: lo. SETUID, SETGID, SETPCAP: to become the instance's uid for good.
_CAPABILITIES = (
    kernel.CAP_SYS_ADMIN,
    kernel.CAP_NET_ADMIN,
    kernel.CAP_SETUID,
    kernel.CAP_SETGID,
    kernel.CAP_SETPCAP,
)


def main(arguments: list[str]) -> None:
    """Arguments: `CONTROL_FD PROCS_FDS JAIL_FOLDER PACKAGE INTERPRETER PATH… -- LINK=TARGET…`."""
    control, procs, jail, package, interpreter, *rest = arguments
    split = rest.index("--")
    links = [tuple(text.split("=", 1)) for text in rest[split + 1 :]]
    for descriptor in procs.split(","):
        os.write(int(descriptor), b"0")
    # Numbers first: /proc/sys is not there any more inside.
    last = kernel.last_capability()
    kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC)
    kernel.mount("none", "/", "none", kernel.MS_REC | kernel.MS_PRIVATE)
    flags = kernel.MS_NOSUID | kernel.MS_NODEV
    kernel.mount("jail", jail, "tmpfs", flags | kernel.MS_NOEXEC, "size=1m,nr_inodes=512,mode=0755")
    read_only = kernel.MOUNT_ATTR_NOSUID | kernel.MOUNT_ATTR_RDONLY | kernel.MOUNT_ATTR_NODEV
    for path in rest[:split]:
        kernel.bind(path, jail + path, attributes=read_only)
    kernel.bind(package, f"{jail}{_PACKAGE_FOLDER}/runagentd", attributes=read_only)
    for link, target in links:
        os.makedirs(os.path.dirname(jail + link), exist_ok=True)
        os.symlink(target, jail + link)
    for name in ("null", "urandom"):
        kernel.bind(f"/dev/{name}", f"{jail}/dev/{name}", attributes=kernel.MOUNT_ATTR_NOSUID)
    for folder in ("proc", "new", "tmp"):
        os.makedirs(f"{jail}/{folder}", exist_ok=True)
    # Writable: a spare sets its own oom_score_adj here, before it has a root of its own.
    kernel.mount("proc", f"{jail}/proc", "proc", flags | kernel.MS_NOEXEC, "subset=pid")
    kernel.mount("jail", jail, "tmpfs", kernel.MS_REMOUNT | kernel.MS_RDONLY | flags | kernel.MS_NOEXEC)
    os.chdir(jail)
    kernel.pivot_root(".", ".")
    kernel.unmount(".")
    os.chdir("/")
    kernel.close_all_but({0, 1, 2, int(control)})
    kernel.keep_capabilities(_CAPABILITIES, last)
    options = ["-I", "-S", "-E", "-B", "-X", "frozen_modules=on"]
    os.set_inheritable(int(control), True)
    os.execve(interpreter, [interpreter, *options, "-c", _START % int(control)], {})


if __name__ == "__main__":
    main(sys.argv[1:])
