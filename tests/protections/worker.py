"""A worker of the gateway that has confined itself without some of its protections, and one thing that it then tries.

Runs as: root, then as `runagentd.worker` does; in a process of its own, started by `checks`.
Reads from strangers: nothing.
Prints a word: an errno's name where the kernel refuses, else "done".
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Callable

from runagentd import confinement, kernel
from runagentd.gateway import confinement as of_gateway
from runagentd.worker import confinement as of_worker
from tests.protections.egress import NOT_STARTED, keep_capabilities, nothing, replace, stay_root


def main() -> int:
    """`UID GID ATTEMPT [WEAKENING]…`."""
    uid, gid, attempt, *drops = sys.argv[1:]
    for name in drops:
        WEAKEN[name]()
    try:
        of_worker.confine(int(uid), int(gid))
    except OSError:
        return NOT_STARTED
    try:
        _ATTEMPTS[attempt]()
    except OSError as error:
        print(errno.errorcode.get(error.errno or 0, "OSError"))
    else:
        print("done")
    return 0


def _no_look() -> None:
    replace(confinement, "look", nothing)()
    replace(confinement, "look_at_filter", nothing)()
    replace(of_worker, "look_at_files", nothing)()
    replace(of_gateway, "look_at_sockets", nothing)()


WEAKEN: dict[str, Callable[[], None]] = {
    "look": _no_look,
    "worker: files": replace(of_worker, "leave_files", nothing),
    "worker: identity": replace(kernel, "drop_privileges", stay_root),
    "worker: capabilities": replace(kernel, "drop_privileges", keep_capabilities),
    "worker: filter": replace(kernel, "load_seccomp_filter", nothing),
}

_ATTEMPTS: dict[str, Callable[[], object]] = {
    "find a file of the host's": lambda: os.stat("/etc/passwd"),
    "signal a process of root's": lambda: os.kill(1, 0),
    "make a socket": lambda: socket.socket().close(),
}

if __name__ == "__main__":
    sys.exit(main())
