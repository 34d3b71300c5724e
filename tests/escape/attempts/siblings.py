"""Attempts of two agents together: one leaves something, the other looks for it.

Runs as: see `frame`.
Reads from strangers: nothing.
`plant` and `look` run in two instances, and in one process outside as the control.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import random
import secrets
import signal
import socket
import ssl
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from tests.escape.attempts import kernel
from tests.escape.attempts.frame import Function, Nothing

MARK = "escape-mark-of-a-sibling"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """What one agent leaves and another looks for. `residual` says why that it is found is accepted."""

    name: str
    idea: str
    plant: Function
    look: Function
    expect: tuple[str, ...]
    residual: str
    no_control: str


PAIRS: dict[str, Pair] = {}
_kept: list[object] = []
"""What a plant holds open for as long as the instance lives."""


def _pair(
    name: str, idea: str, plant: Function, look: Function, expect: str, *, residual: str = "", no_control: str = ""
) -> None:
    PAIRS[name] = Pair(
        name=name,
        idea=idea,
        plant=plant,
        look=look,
        expect=tuple(expect.split()),
        residual=residual,
        no_control=no_control,
    )


# ---- files


def _write(path: str) -> Function:
    def write() -> str:
        with open(path, "w") as file:
            file.write(MARK)
        return f"wrote {path}"

    return write


def _read(path: str) -> Function:
    def read() -> str:
        with open(path) as file:
            return file.read()

    return read


for _folder in ("/tmp", "/dev/shm", "/app"):
    _path = f"{_folder}/{MARK}"
    _pair(
        f"shared_file_in{_folder.replace('/', '_')}",
        "a folder that both can write is a post box",
        _write(_path),
        _read(_path),
        "ENOENT",
    )


def _leave_a_temporary_file() -> str:
    descriptor, path = tempfile.mkstemp(prefix=MARK)
    os.close(descriptor)
    return path


def _find_a_temporary_file() -> str:
    found = [name for name in os.listdir(tempfile.gettempdir()) if name.startswith(MARK) and name != MARK]
    if not found:
        raise Nothing("no file of a sibling's")
    return found[0]


_pair(
    "temporary_file", "the same by a name that is not known", _leave_a_temporary_file, _find_a_temporary_file, "nothing"
)


# ---- sockets


def _listen_abstract() -> str:
    one = socket.socket(socket.AF_UNIX)
    one.bind(f"\0{MARK}")
    one.listen()
    _kept.append(one)
    return "listening"


def _connect_abstract() -> str:
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(f"\0{MARK}")
    return "connected"


_pair(
    "abstract_socket",
    "abstract names belong to the network namespace and not to a folder",
    _listen_abstract,
    _connect_abstract,
    "ECONNREFUSED EPERM",
)


def _listen_in_tmp() -> str:
    one = socket.socket(socket.AF_UNIX)
    path = f"/tmp/{MARK}.sock"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    one.bind(path)
    one.listen()
    _kept.append(one)
    return "listening"


def _connect_in_tmp() -> str:
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(f"/tmp/{MARK}.sock")
    return "connected"


_pair("socket_in_tmp", "a socket with a path", _listen_in_tmp, _connect_in_tmp, "ENOENT")


# ---- System V IPC and message queues: named by numbers, without a file


def _ipc(name: str, *arguments: int, create: bool) -> Function:
    key = 0x65736361
    flags = 0o600 | (0o1000 if create else 0)
    return lambda: f"{name} {kernel.call(name, key, *arguments, flags)}"


for _name, _arguments in (("shmget", (4096,)), ("semget", (1,)), ("msgget", ())):
    _pair(
        f"system_v_{_name}",
        "System V objects belong to the ipc namespace, and outlive processes",
        _ipc(_name, *_arguments, create=True),
        _ipc(_name, *_arguments, create=False),
        "EPERM ENOENT",
    )


def _open_queue(flags: int) -> Function:
    return lambda: f"queue {kernel.call('mq_open', b'escape-mark', flags, 0o600, 0)}"


_pair(
    "message_queue",
    "POSIX message queues belong to the ipc namespace",
    _open_queue(os.O_RDWR | os.O_CREAT),
    _open_queue(os.O_RDWR),
    "EPERM ENOENT",
)


# ---- processes


def _start_a_marked_process() -> str:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        kernel.libc.prctl(15, b"escape-mark", 0, 0, 0)
        os.write(writer, b"marked")
        signal.alarm(300)
        while True:
            signal.pause()
    os.close(writer)
    os.read(reader, 16)  # it is not there before it has its name
    os.close(reader)
    _kept.append(child)
    return f"process {child}"


def _find_a_marked_process() -> str:
    for pid in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if pid.isdigit():
                with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
                    if file.read().strip() == "escape-mark" and int(pid) not in _kept:
                        return f"process {pid}"
    raise Nothing("no process of a sibling's")


_pair("process", "a process with a name", _start_a_marked_process, _find_a_marked_process, "nothing")


def _call_all_numbers() -> str:
    found = []
    own = {os.getpid(), os.getppid(), 1, *(one for one in _kept if isinstance(one, int))}
    for pid in range(2, 40_000):
        if pid not in own:
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                continue
            except PermissionError:
                pass
            found.append(pid)
    if not found:
        raise Nothing("nobody answers")
    return f"{found[:5]} answer"


_pair(
    "process_by_number",
    "the same without /proc: kill(pid, 0) says who is there",
    _start_a_marked_process,
    _call_all_numbers,
    "nothing",
)


# ---- locks on what both can read


def _lock_the_runtime() -> str:
    descriptor = os.open(os.__file__, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    _kept.append(os.fdopen(descriptor))
    return "locked os.py"


def _feel_the_lock() -> str:
    descriptor = os.open(os.__file__, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return "the lock of a sibling is felt: one bit"
    finally:
        os.close(descriptor)
    raise Nothing("os.py can be locked")


_pair(
    "lock_on_a_shared_file",
    "flock works on read-only files, so a lock is one bit for whoever shares the inode",
    _lock_the_runtime,
    _feel_the_lock,
    "nothing",
    residual="two agents that both want to can signal each other by locks on shared read-only files of the runtime; "
    "it gives no access, and any shared processor or page cache is such a channel, too",
)


# ---- the same random numbers


def draw() -> dict[str, str]:
    """From every source that Python and OpenSSL have; forks of one zygote could draw the same."""
    drawn = {
        "random": f"{random.getrandbits(128):x}",
        "shuffle": ",".join(map(str, random.sample(range(1 << 30), 4))),
        "secrets": secrets.token_hex(16),
        "urandom": os.urandom(16).hex(),
        "ssl": ssl.RAND_bytes(16).hex(),
        "uuid4": str(uuid.uuid4()),
        "tempfile": os.path.basename(tempfile.mktemp()),  # noqa: S306  (only the name is wanted)
    }
    with contextlib.suppress(OSError, AttributeError):
        drawn["x25519"] = _x25519()
    return drawn


def _x25519() -> str:
    """A public key from the OpenSSL that Python's ssl uses."""
    library = ctypes.CDLL("libcrypto.so.3")
    library.EVP_PKEY_Q_keygen.restype = ctypes.c_void_p
    key = ctypes.c_void_p(library.EVP_PKEY_Q_keygen(None, None, b"X25519"))
    size = ctypes.c_size_t(32)
    public = ctypes.create_string_buffer(32)
    library.EVP_PKEY_get_raw_public_key(key, public, ctypes.byref(size))
    return public.raw.hex()


def twins(work: Callable[[], str]) -> tuple[str, str]:
    """What two forks say that were made behind Python's back: the control of `draw`.

    The raw system call runs none of the functions that reseed a child, as a careless zygote would.
    """
    said = []
    for _ in range(2):
        reader, writer = os.pipe()
        child = int(ctypes.PyDLL(None).syscall(ctypes.c_long(kernel.number_of("clone")), kernel.SIGCHLD, 0, 0, 0, 0))
        if child == 0:
            os.write(writer, work().encode())
            os._exit(0)
        os.close(writer)
        with open(reader) as answer:
            said.append(answer.read())
        os.waitpid(child, 0)
    return said[0], said[1]
