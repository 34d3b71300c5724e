"""The shipped filters, loaded into the running kernel: what they must stop stops, and Python still works.

Each test forks a child that loads a filter as the launcher does and then acts; the parent looks at its end.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import io
import json
import mmap
import os
import platform
import signal
import subprocess
import sys
import textwrap
import time
import unittest.mock
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runagentd import kernel
from runagentd.launch import reaper
from runagentd.plan.seccomp import filter_for, reaper_filter
from runagentd.plan.syscalls import shipped_table
from runagentd.supervise import libseccomp
from runagentd.wire import launch as wire
from tests.some_policy import some_policy

pytestmark = [
    pytest.mark.kernel,
    # The children act at once and exit by _exit; pytest has no thread that could hold a lock.
    pytest.mark.filterwarnings("ignore:This process:DeprecationWarning"),
]

TABLE = shipped_table()
BASE = libseccomp.compile(filter_for(some_policy(), TABLE))
TOOLS = libseccomp.compile(filter_for(some_policy(exec=True), TABLE))
REAPER = libseccomp.compile(reaper_filter(TABLE))

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long

ON_X86_64 = platform.machine() == "x86_64"


def raw(call: str | int, *arguments: int) -> str:
    """The call with 64-bit arguments: "ok", or the name of its errno."""
    number = call if isinstance(call, int) else libseccomp.resolve(call)
    result = LIBC.syscall(ctypes.c_long(number or 0), *(ctypes.c_ulong(argument) for argument in arguments))
    return "ok" if result >= 0 else errno.errorcode[ctypes.get_errno()]


def under(program: bytes, act: Callable[[], object]) -> tuple[object, int]:
    """What `act` returns in a child that has loaded the program, and the child's wait status."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            kernel.set_no_new_privs()
            kernel.load_seccomp_filter(program)
            os.write(writer, json.dumps(act()).encode())
            os._exit(0)
        except BaseException as error:
            os.write(writer, json.dumps(repr(error)).encode())
            os._exit(1)
    os.close(writer)
    with open(reader, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(pid, 0)
    return (json.loads(answer) if answer else None), status


def answer(program: bytes, act: Callable[[], object]) -> object:
    return under(program, act)[0]


@pytest.mark.parametrize(
    ("call", "arguments", "expected"),
    [
        ("socket", (1, 1, 0), "ok"),
        ("socket", (2, 1, 0), "EPERM"),
        ("socket", (0x1_0000_0001, 1, 0), "EPERM"),
        ("socket", (0x1_0000_0028, 1, 0), "EPERM"),
        ("clone3", (0, 0), "ENOSYS"),
        ("openat2", (0, 0, 0, 0), "ENOSYS"),
        ("unshare", (0x10000000,), "EPERM"),
        ("clone", (0x10000011, 0, 0, 0, 0), "EPERM"),
        ("mount", (0, 0, 0, 0, 0), "EPERM"),
        ("ptrace", (0, 0, 0, 0), "EPERM"),
        ("io_uring_setup", (1, 0), "EPERM"),
        ("bpf", (0, 0, 0), "EPERM"),
        ("keyctl", (0, 0, 0), "EPERM"),
        ("personality", (0xFFFFFFFF,), "ok"),
        ("personality", (0x0040000,), "EPERM"),
        ("setuid", (0,), "EPERM"),
        (470, (), "ENOSYS"),
        (100_000, (), "ENOSYS"),
    ],
)
def test_the_kernel_answers_as_the_filter_says(call: str | int, arguments: tuple[int, ...], expected: str) -> None:
    assert answer(BASE, lambda: raw(call, *arguments)) == expected


def test_the_same_calls_work_without_the_filter() -> None:
    """The control: it is the filter that refuses, not this machine."""
    assert raw("socket", 0x1_0000_0001, 1, 0) == "ok"
    assert raw("personality", 0xFFFFFFFF) == "ok"
    assert raw("ptrace", 99, 0, 0, 0) != "EPERM"


def test_no_program_starts_under_the_base_policy() -> None:
    def start() -> object:
        try:
            subprocess.run(["/bin/true"], check=True)
        except PermissionError as error:
            return errno.errorcode[error.errno or 0]
        return "started"

    assert answer(BASE, start) == "EPERM"
    assert answer(TOOLS, start) == "started"


def test_a_file_with_a_set_id_bit_cannot_be_made(tmp_path: Path) -> None:
    def make() -> object:
        outcomes = []
        for mode in (0o644, 0o4755, 0o2755):
            try:
                os.close(os.open(f"{tmp_path}/{mode:o}", os.O_CREAT | os.O_WRONLY, mode))
                outcomes.append("made")
            except PermissionError:
                outcomes.append("refused")
        try:
            os.chmod(f"{tmp_path}/644", 0o4755)
            outcomes.append("changed")
        except PermissionError:
            outcomes.append("refused")
        return outcomes

    assert answer(BASE, make) == ["made", "refused", "refused", "refused"]


def killed_by(act: Callable[[], object]) -> int:
    result, status = under(BASE, act)
    assert os.WIFSIGNALED(status), result
    return os.WTERMSIG(status)


def int_80() -> object:
    """getpid by i386's door: mov eax, 20; int 0x80; ret."""
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")
    return int(ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))())


FOREIGN_CALLS: list[Callable[[], object]] = [int_80, lambda: raw(0x40000000 + 39)] if ON_X86_64 else []


@pytest.mark.parametrize("act", FOREIGN_CALLS, ids=["i386", "x32"][: len(FOREIGN_CALLS)])
def test_a_call_of_another_abi_kills(act: Callable[[], object]) -> None:
    # A kernel without i386 emulation has no int 0x80 at all: it faults.
    assert killed_by(act) in (signal.SIGSYS, signal.SIGSEGV)


PYTHON_AT_WORK = """
    import asyncio, concurrent.futures, decimal, gzip, hashlib, json, os, random, select, shutil, signal, socket
    import sqlite3, ssl, struct, subprocess, sys, tempfile, threading, time, uuid, zipfile, zoneinfo

    done = []

    async def tasks():
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(asyncio.sleep(0.001) for _ in range(3)))
        await loop.run_in_executor(None, time.sleep, 0.001)
        path = os.path.join(folder, "s")
        async def echo(reader, writer):
            writer.write(await reader.readline())
            await writer.drain()
            writer.close()
        async with await asyncio.start_unix_server(echo, path):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b"hello\\n")
            assert await reader.readline() == b"hello\\n"
            writer.close()
        if sys.argv[1] == "tools":
            child = await asyncio.create_subprocess_exec("/bin/echo", "x", stdout=subprocess.PIPE)
            assert (await child.communicate())[0] == b"x\\n"

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(tasks()); done.append("asyncio")
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            assert sum(pool.map(lambda n: n, range(10))) == 45
        done.append("threads")
        database = sqlite3.connect(os.path.join(folder, "d"))
        database.execute("pragma journal_mode = wal")
        database.execute("create table t (a)")
        database.executemany("insert into t values (?)", [(1,), (2,)])
        database.commit()
        assert database.execute("select sum(a) from t").fetchone() == (3,)
        database.close(); done.append("sqlite3")
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x"); file.truncate(0); os.fchmod(file.fileno(), 0o600)
        source = os.path.join(folder, "a")
        with open(source, "w") as file:
            json.dump({"a": [1, 2.5, None]}, file)
        os.chmod(source, 0o640)
        shutil.copy2(source, source + "2")
        shutil.copytree(folder, folder + "-copy", ignore=shutil.ignore_patterns("s")); shutil.rmtree(folder + "-copy")
        with zipfile.ZipFile(os.path.join(folder, "z"), "w") as archive:
            archive.write(source)
        with open(source) as file:
            assert not file.isatty()
        done.append("files")
        signal.signal(signal.SIGALRM, lambda *_: done.append("signal"))
        signal.setitimer(signal.ITIMER_REAL, 0.001)
        signal.sigtimedwait([signal.SIGUSR1], 0.05)
        pid = os.fork()
        if pid == 0:
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        done.append("fork")
        ssl.create_default_context(); ssl.RAND_bytes(8); uuid.uuid4(); hashlib.sha256(b"x").hexdigest()
        zoneinfo.ZoneInfo("UTC"); os.uname(); os.cpu_count(); os.getloadavg; os.urandom(8); os.times()
        import ctypes
        assert ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 5)() == 5
        done.append("libraries")
        if sys.argv[1] == "tools":
            # Not under base: multiprocessing starts its resource tracker, a program, for each lock and each memory.
            import multiprocessing, multiprocessing.shared_memory
            with multiprocessing.get_context("fork").Pool(2) as pool:
                assert pool.map(abs, [-1, -2]) == [1, 2]
            memory = multiprocessing.shared_memory.SharedMemory(create=True, size=64); memory.close(); memory.unlink()
            assert subprocess.run(["/bin/sh", "-c", "ls / | sort | tail -1"], capture_output=True, check=True).stdout
            done.append("subprocess")
    print(*sorted(done))
"""


@pytest.mark.slow
def test_python_works_under_the_filter_of_a_policy_with_programs() -> None:
    """An interpreter that starts under the filter, its start-up included."""
    reader, writer = os.pipe()

    def start() -> object:
        os.dup2(writer, 1)
        os.dup2(writer, 2)
        code = textwrap.dedent(PYTHON_AT_WORK)
        os.execv(sys.executable, [sys.executable, "-I", "-W", "error", "-c", code, "tools"])

    _, status = under(TOOLS, start)
    os.close(writer)
    with open(reader) as pipe:
        output = pipe.read()
    assert output == "asyncio files fork libraries signal sqlite3 subprocess threads\n"
    assert status == 0


@pytest.mark.slow
def test_python_works_under_the_base_filter() -> None:
    """An interpreter that was there before, as the zygote's children are."""

    def work() -> object:
        code = compile(textwrap.dedent(PYTHON_AT_WORK), "work", "exec")
        sys.argv = ["-c", "base"]
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exec(code, {"__name__": "work"})
        return output.getvalue()

    assert answer(BASE, work) == "asyncio files fork libraries signal sqlite3 threads\n"


class ReapersLaunch:
    """What the reaper asks of its launch; the identity that it would take on needs a whole sandbox."""

    def __init__(self, **descriptors: int) -> None:
        self.descriptors = descriptors

    def read(self, name: str) -> bytes:
        return {"reaper_filter": REAPER}[name]


def test_the_reaper_does_its_work_under_its_own_filter() -> None:
    """The real reaper, with an orphan that ends before the runner does; its record arrives whole."""
    lifeline, lifeline_end = os.pipe()
    records, exit_pipe = os.pipe()
    confined, tell_confined = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(lifeline_end)
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            if os.fork() == 0:
                os._exit(0)
            runner = os.fork()
            if runner == 0:
                time.sleep(0.02)
                os._exit(3)
            launch: Any = ReapersLaunch(lifeline=lifeline, exit=exit_pipe)  # a fake: see the class
            with unittest.mock.patch.object(reaper, "_confine", lambda *_: kernel.set_no_new_privs()):
                reaper.run(launch, runner=runner, agent_uid=0, last_capability=0, tell_confined=tell_confined)
        finally:
            os._exit(99)
    os.close(exit_pipe)
    os.close(tell_confined)
    said = os.read(confined, 16)
    os.close(confined)
    _, status = os.waitpid(pid, 0)
    with open(records, "rb") as pipe:
        record = wire.parse_exit(pipe.read())
    os.close(lifeline)
    os.close(lifeline_end)
    assert said == b"C"
    assert status == 0
    assert record is not None
    assert (record.kind, record.status) == (wire.ExitKind.EXITED, 3)


def test_a_reaper_that_does_something_else_is_killed() -> None:
    _, status = under(REAPER, lambda: os.open("/", os.O_RDONLY))
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGSYS
