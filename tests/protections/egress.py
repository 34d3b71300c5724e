"""An egress process that has confined itself without some of its protections, and one thing that it then tries.

Runs as: root, then as `runagentd.egress` does; in a process of its own, started by `checks`.
Reads from strangers: an issuer of our own.
Prints a word: an errno's name where the kernel refuses, "refused" where the process's own code does, else "done".
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

import uvloop

from runagentd import confinement, kernel
from runagentd.egress import __main__ as egress
from runagentd.egress import fetch
from runagentd.wire.settings import IssuerSource

NOT_STARTED = 3
"""The exit status where the process refuses to be like that."""

_PR_SET_KEEPCAPS = 8
_THREADS = 4 * egress.TASKS_MAX
_CLONE_FILES = 0x400


def main() -> int:
    """`UID GID URL CA FILE UNIX ATTEMPT [WEAKENING]…`: FILE is root's own, UNIX a socket that everybody may use."""
    uid, gid, url, ca, file, unix, attempt, *drops = sys.argv[1:]
    with open(ca, "rb") as authority:
        certificates = authority.read()
    for name in drops:
        WEAKEN[name]()
    try:
        egress.confine(int(uid), int(gid))
    except OSError:
        return NOT_STARTED
    try:
        _ATTEMPTS[attempt](url, certificates, file, unix)
    except OSError as error:
        print(errno.errorcode.get(error.errno or 0, "OSError"))
    except fetch.FetchError as error:
        print(_word(error))
        print(error, file=sys.stderr)
    else:
        print("done")
    sys.stdout.flush()
    os._exit(0)  # threads may still stand


def _word(error: fetch.FetchError) -> str:
    """Nobody else is there to answer: where nothing is refused, the connection fails, or its certificate."""
    if "which is no public address" in str(error):
        return "refused"
    return "done" if str(error).startswith("ClientConnector") else "broken"


def replace(owner: Any, name: str, by: Any) -> Callable[[], None]:  # Any: what is replaced is of any type
    """What puts `by` in a function's place."""
    return lambda: setattr(owner, name, by)


def _filter(**changes: Any) -> Callable[[], None]:  # Any: as `confinement.program` takes them
    """The same filter with other arguments; `allowed` is added to."""
    program = confinement.program

    def changed(machine: str, **options: Any) -> bytes:  # Any: likewise
        more = {name: (*options[name], *value) if name == "allowed" else value for name, value in changes.items()}
        return program(machine, **(options | more))

    return replace(confinement, "program", changed)


def stay_root(uid: int, gid: int, *, last: int | None) -> None:
    """In place of `kernel.drop_privileges`."""
    kernel.set_no_new_privs()


def keep_capabilities(uid: int, gid: int, *, last: int | None) -> None:
    """In place of `kernel.drop_privileges`."""
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    library = ctypes.CDLL(None, use_errno=True)
    library.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setresuid(uid, uid, uid)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, capset(2)
    words = (ctypes.c_uint32 * 6)()
    library.capget(header, words)
    words[0], words[3] = words[1], words[4]  # what is permitted becomes effective
    library.capset(header, words)
    kernel.set_no_new_privs()


def nothing(*_: object) -> None:
    """In place of what protects."""


def _no_look() -> None:
    replace(confinement, "look", nothing)()
    replace(confinement, "look_at_filter", nothing)()


WEAKEN: dict[str, Callable[[], None]] = {
    "look": _no_look,
    "egress: identity": replace(kernel, "drop_privileges", stay_root),
    "egress: capabilities": replace(kernel, "drop_privileges", keep_capabilities),
    "egress: filter": replace(kernel, "load_seccomp_filter", nothing),
    "egress: tasks": replace(resource, "setrlimit", nothing),
    "egress: socket families": _filter(families=()),
    "egress: no listening": _filter(allowed=("bind",)),
    "egress: no processes": _filter(allowed=("clone", "fork", "vfork"), threads=False),
    "egress: no programs": _filter(allowed=("execve", "execveat")),
    "egress: no namespaces": _filter(allowed=("unshare",)),
    "egress: public addresses of names": replace(fetch, "_is_public", lambda text: True),
    "egress: public addresses as written": replace(fetch, "_is_private_literal", lambda host: False),
}


def _fetch(url: str, certificates: bytes, *_: str) -> None:
    """By discovery: the document says where the keys are."""
    source = IssuerSource(
        name="a", source="s", issuer=url, jwks="", algorithms=("RS256",), ca=certificates, refresh=3600, stale=86400
    )
    uvloop.run(fetch.fetch(source))


def _read(url: str, certificates: bytes, file: str, unix: str) -> None:
    with open(file, "rb"):
        pass


def _connect(url: str, certificates: bytes, file: str, unix: str) -> None:
    socket.socket(socket.AF_UNIX).connect(unix)


def _listen(*_: object) -> None:
    with contextlib.closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))


def _fork(*_: object) -> None:
    if os.fork() == 0:
        os._exit(0)
    os.wait()


def _become(*_: object) -> None:
    # A descriptor that is not open: where the call is let in, the kernel says that, and we are still there to tell.
    with contextlib.suppress(FileNotFoundError):
        os.execv("/proc/self/fd/999", ["x"])


def _leave(*_: object) -> None:
    kernel.unshare(_CLONE_FILES)  # of all that unshare(2) takes, what needs no privilege and changes nothing


def _start_threads(*_: object) -> None:
    over = threading.Event()
    try:
        for _number in range(_THREADS):
            threading.Thread(target=over.wait, daemon=True).start()
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, str(error)) from error  # pthread_create(3)
    finally:
        over.set()


_ATTEMPTS: dict[str, Callable[..., None]] = {
    "read a file of root's": _read,
    "talk to a socket with a path": _connect,
    "listen": _listen,
    "start a process": _fork,
    "become a program": _become,
    "leave what is shared": _leave,
    "start many threads": _start_threads,
    "fetch from a private address by name": _fetch,
    "fetch from a private address as written": _fetch,
}

if __name__ == "__main__":
    sys.exit(main())
