"""An error that the sandbox may have caused is told together with the line of a policy that it may be about."""

from __future__ import annotations

import _socket
import errno
import re
import socket
import subprocess
import types
from collections.abc import Callable
from multiprocessing import resource_tracker

import pytest

from runagentd.policy import keys
from runagentd.runner import hints

EVERY_HINT = [
    *(value for name, value in vars(hints).items() if name.isupper() and isinstance(value, str)),
    *hints.FULL.values(),
]


def caught(what: Callable[[], object]) -> BaseException:
    with pytest.raises(BaseException) as info:
        what()
    return info.value


def raised(error: BaseException) -> BaseException:
    def now() -> None:
        raise error

    return caught(now)


@pytest.mark.parametrize(
    ("error", "key"),
    [
        (PermissionError(errno.EPERM, "Operation not permitted"), "syscalls.groups"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "resources.pids_max"),
        (RuntimeError("can't start new thread"), "resources.pids_max"),
        (OSError(errno.ENOSPC, "No space left on device", "/tmp/x"), "files.tmp_size"),
        (OSError(errno.ENOSPC, "No space left on device", "/dev/shm/x"), "files.shm_size"),
        (OSError(errno.ENOSPC, "No space left on device"), "files.app_size"),
        (OSError(errno.EFBIG, "File too large"), "process.fsize"),
        (OSError(errno.EMFILE, "Too many open files"), "process.nofile"),
        (OSError(errno.EROFS, "Read-only file system", "/env/x"), "files.persistent"),
        (_socket.gaierror(-3, "Temporary failure in name resolution"), "network.mode"),
        (OSError("/tmp/own.so: failed to map segment from shared object"), "requirements.txt"),
        (ImportError("/app/own.so: failed to map segment from shared object"), "requirements.txt"),
    ],
)
def test_the_line_that_may_allow_it_is_named(error: BaseException, key: str) -> None:
    assert key in hints.hint(raised(error))


@pytest.mark.parametrize(
    ("module", "number", "text"),
    [
        (subprocess, errno.EPERM, hints.PROGRAM),
        (socket, errno.EPERM, hints.NETWORK),
        (resource_tracker, errno.EPIPE, hints.TRACKER),
        (socket, errno.EPIPE, ""),
    ],
)
def test_what_was_refused_is_told_by_the_file_in_which_the_error_arose(
    module: types.ModuleType, number: int, text: str
) -> None:
    """The number is the same for a program, a socket and everything else."""
    source = f"def refuse():\n    raise OSError({number}, 'refused')\n"
    namespace: dict[str, Callable[[], None]] = {}
    exec(compile(source, str(module.__file__), "exec"), namespace)
    assert hints.hint(caught(namespace["refuse"])) == text


def test_what_a_library_made_of_a_refusal_is_looked_into() -> None:
    """A client's "connection error" says nothing; what it was raised from does."""
    library = RuntimeError("Connection error.")
    library.__cause__ = ConnectionError("all attempts failed")
    library.__cause__.__context__ = raised(OSError(errno.EMFILE, "Too many open files"))
    assert hints.hint(library) == hints.DESCRIPTORS


def test_other_errors_have_no_hint() -> None:
    assert [hints.hint(error) for error in (ValueError("no"), FileNotFoundError(2, "no"), OSError("no"))] == [""] * 3


def test_an_exception_that_will_not_be_looked_at_has_none() -> None:
    """And does not get in the way of telling it."""

    class Hostile(OSError):
        @property
        def errno(self) -> int:  # type: ignore[override]
            raise SystemError

    class Endless(Exception):
        @property
        def __cause__(self) -> BaseException:  # type: ignore[override]
            return self

    class Falsy(Exception):
        def __bool__(self) -> bool:
            raise SystemError

    falsy = RuntimeError()
    falsy.__cause__ = Falsy()
    assert [hints.hint(error) for error in (Hostile(), Endless(), falsy)] == ["", "", ""]


@pytest.mark.parametrize("text", EVERY_HINT)
def test_every_key_that_a_hint_names_is_one(text: str) -> None:
    """So that nobody looks for a line that no policy knows."""
    known = {key.name for key in keys.KEYS}
    named = re.findall(r"\b(?:files|process|resources|syscalls|calls|network|scaling)\.[a-z_]+", text)
    assert set(named) <= known
