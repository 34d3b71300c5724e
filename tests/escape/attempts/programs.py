"""Attempts to run code that is not the runtime's: mapped, started, or made in memory.

Runs as: see `frame`.
Reads from strangers: nothing.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import tempfile

from tests.escape.attempts import kernel
from tests.escape.attempts.files import AREA, INTERPRETER
from tests.escape.attempts.frame import Function, attempt, attempts


def _machine_code() -> bytes:
    return b"\xc3" if kernel.X86_64 else b"\xc0\x03\x5f\xd6"


def _map_code(folder: str) -> Function:
    def map_code() -> str:
        path = os.path.join(folder, "code")
        with open(path, "w+b") as file:
            os.unlink(path)
            file.write(_machine_code() + bytes(4095))
            file.flush()
            mmap.mmap(file.fileno(), 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC).close()
        return "mapped as code"

    return map_code


attempts(
    AREA,
    "EPERM EACCES",
    [
        ("map_code_from_tmp", "a library of ours, from a mount without exec", _map_code("/tmp")),
        ("map_code_from_dev_shm", "shared memory is where exploits put their second stage", _map_code("/dev/shm")),
        ("map_code_from_app", "the agent's own folder can be written, so nothing runs from it", _map_code("/app")),
    ],
)


@attempt(AREA, "EPERM EACCES")
def make_a_mapping_executable_later() -> str:
    """mprotect instead of mmap."""
    with tempfile.TemporaryFile() as file:
        file.write(bytes(4096))
        file.flush()
        mapping = mmap.mmap(file.fileno(), 4096)
        address = ctypes.addressof(ctypes.c_char.from_buffer(mapping))
        if kernel.libc.mprotect(ctypes.c_void_p(address), 4096, 5) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
    return "made executable"


@attempt(AREA, "EPERM")
def make_a_file_in_memory() -> str:
    """memfd_create gives a file on no mount at all, so no mount's noexec holds."""
    return f"descriptor {os.memfd_create('code')}"


def _program() -> str:
    return next(path for path in ("/bin/true", "/usr/bin/true", INTERPRETER) if os.path.exists(path))


@attempt(AREA, "EPERM EACCES")
def start_the_interpreter_again() -> str:
    """execve of what is surely there."""
    child = os.posix_spawn(INTERPRETER, [INTERPRETER, "-I", "-S", "-c", "pass"], {})
    os.waitpid(child, 0)
    return "started"


@attempt(AREA, "EPERM EACCES ENOENT", control=lambda: _spawn(_program()))
def start_a_shell() -> str:
    """execve of a shell."""
    return _spawn("/bin/sh")


def _spawn(program: str) -> str:
    child = os.posix_spawn(program, [program, "-c", "true"], {})
    os.waitpid(child, 0)
    return "started"


@attempt(AREA, "EPERM EACCES ENOENT")
def start_by_descriptor() -> str:
    """execveat needs no path, only a descriptor."""
    descriptor = os.open(INTERPRETER, os.O_RDONLY)
    child = os.fork()
    if child == 0:
        argv = (ctypes.c_char_p * 6)(b"python", b"-I", b"-S", b"-c", b"pass", None)
        try:
            kernel.call("execveat", descriptor, b"", ctypes.addressof(argv), 0, 0x1000)
        except OSError as error:
            os._exit(error.errno or 99)
    _, status = os.waitpid(child, 0)
    if os.WEXITSTATUS(status):
        raise OSError(os.WEXITSTATUS(status), os.strerror(os.WEXITSTATUS(status)))
    return "started"


@attempt(AREA, "EPERM EACCES ENOENT")
def start_by_the_loader() -> str:
    """The dynamic loader is a program that starts any file, executable or not."""
    loaders = ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1")
    loader = next((path for path in loaders if os.path.exists(path)), loaders[0])
    child = os.posix_spawn(loader, [loader, INTERPRETER, "-I", "-S", "-c", "pass"], {})
    os.waitpid(child, 0)
    return "started"
