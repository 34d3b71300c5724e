"""Which line of the operator's policy may be behind an error: for the agent's author, never for a caller.

Runs as: the runner, in the sandbox. Pure.
Reads from strangers: yes, exceptions of the agent's; whatever they do when they are looked at, there is then no hint.
The kernel says that it refused something, and neither what nor why: this is a guess from the number and the place,
and is worded as one. docs/frameworks.md has the same as a table.
"""

from __future__ import annotations

import _socket
import errno
import os
from collections.abc import Iterator

_CHAIN_MAX = 8

PROGRAM = "a program is started only where the policy has process.exec = true, as 'tools' has"
NETWORK = 'there is no network: network.mode = "none" is all that this version has; sockets of the kind AF_UNIX work'
SYSTEM_CALL = "the policy may lack this system call: process.exec and syscalls.groups are the lines that allow more"
TASKS = "the policy's resources.pids_max bounds threads and processes together"
FULL = {
    "/tmp": "the policy's files.tmp_size and files.tmp_inodes bound /tmp",
    "/dev/shm": "the policy's files.shm_size and files.shm_inodes bound /dev/shm",
    "": "the policy's files.app_size, files.tmp_size and files.shm_size bound /app, /tmp and /dev/shm, in memory",
}
FILE = "the policy's process.fsize bounds how large a file may be"
DESCRIPTORS = "the policy's process.nofile bounds how many descriptors may be open"
READ_ONLY = "only /app, /tmp and /dev/shm can be written to; a folder that is kept needs files.persistent = true"
NATIVE_CODE = "native code is loaded from packages only: name its package in requirements.txt; /app and /tmp hold none"
TRACKER = (
    "multiprocessing.shared_memory starts a program that clears up after it, for which the policy needs "
    "process.exec = true; /dev/shm is gone with the instance, so it can do without (docs/frameworks.md)"
)

_BY_NUMBER = {
    errno.EPERM: SYSTEM_CALL,
    errno.EAGAIN: TASKS,
    errno.EFBIG: FILE,
    errno.EMFILE: DESCRIPTORS,
    errno.EROFS: READ_ONLY,
}
_BY_MODULE = {"subprocess.py": PROGRAM, "socket.py": NETWORK}
"""For EPERM: the file of the standard library in which it arose."""


def hint(error: BaseException) -> str:
    """One line of text without a mark before it; empty where nothing can be said."""
    try:
        for one in _chain(error):
            if text := _of(one):
                return text
    except Exception:  # noqa: BLE001  (a property or a __str__ of the agent's; the error still says what it says)
        return ""
    return ""


def _chain(error: BaseException) -> Iterator[BaseException]:
    """It, and what led to it: a client's own exception says "connection error", and what it was made of says more."""
    current: BaseException | None = error
    for _ in range(_CHAIN_MAX):
        if current is not None:
            yield current
            current = current.__cause__ if current.__cause__ is not None else current.__context__


def _of(error: BaseException) -> str:
    match error:
        case _socket.gaierror():
            return NETWORK
        case OSError() if error.errno == errno.ENOSPC:
            path = error.filename if isinstance(error.filename, str) else ""
            return FULL[next((place for place in ("/tmp", "/dev/shm") if path.startswith(place + "/")), "")]
        case OSError() if error.errno == errno.EPERM:
            return _BY_MODULE.get(_innermost(error), SYSTEM_CALL)
        case BrokenPipeError() if _innermost(error) == "resource_tracker.py":
            return TRACKER
        case OSError() if error.errno is not None:
            return _BY_NUMBER.get(error.errno, "")
        case OSError() | ImportError() if "failed to map segment" in str(error):
            return NATIVE_CODE
        case RuntimeError() if str(error) == "can't start new thread":
            return TASKS
    return ""


def _innermost(error: BaseException) -> str:
    """The name of the file in which the exception arose, without its folder."""
    trace, name = error.__traceback__, ""
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        trace = trace.tb_next
    return os.path.basename(name)
