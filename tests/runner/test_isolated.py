"""What of a fork for each call can be seen without a sandbox; tests/system/test_isolation.py has the rest.

Nothing here may end other processes: outside of a pid namespace of its own that would be all there are.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
from collections.abc import Iterator

import pytest

from runagentd.runner import isolated
from runagentd.runner.connection import Connection
from runagentd.runner.handover import Limits
from runagentd.runner.isolated import IsolatingServer, NotAlone, Violation, _Passage
from runagentd.wire.channel import FRAME_BYTES_MAX, Frame, pack

LIMITS = Limits(concurrency=1, result_bytes=1024, cancel_grace_ms=1000, traceback=False, isolated=True)


@pytest.fixture
def passage() -> _Passage:
    return _Passage()


def put(passage: _Passage, data: bytes) -> None:
    """Let `data` come in over a pipe."""
    read, write = os.pipe()
    os.write(write, data)
    passage.fill(read)
    os.close(read)
    os.close(write)


def test_it_refuses_to_be_anywhere_but_in_a_pid_namespace_of_its_own() -> None:
    """It kills every process that it can."""
    assert os.getpid() != 2
    with pytest.raises(NotAlone):
        IsolatingServer({}, LIMITS, ())
    with pytest.raises(NotAlone):
        isolated._check_place()


def test_a_fork_does_not_have_what_passes_through(passage: _Passage) -> None:
    """There is no memory at that address in it."""
    put(passage, b"secret")
    assert bytes(passage.part(0, 6)) == b"secret"
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        os._exit(passage.part(0, 1)[0])
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGSEGV


def test_frames_are_seen_when_they_are_whole(passage: _Passage) -> None:
    """However they are cut."""
    frame = pack(Frame.CHUNK, 7, b"{}", b"body")
    for byte in frame[:-1]:
        put(passage, bytes([byte]))
        assert passage.frame() is None
    put(passage, frame[-1:] + frame)
    assert passage.frame() == (33, 7, len(frame))
    assert passage.frame(len(frame)) == (33, 7, len(frame))
    passage.drop(len(frame))
    assert bytes(passage.part(0, passage.size)) == frame
    passage.clear()
    assert passage.frame() is None


@pytest.mark.parametrize(
    "prefix", [(FRAME_BYTES_MAX, 33, 1, 0), (6, 33, 1, 0), (7, 33, 1, 1), (40_000, 33, 1, 17_000), (0, 33, 1, 0)]
)
def test_a_size_that_no_frame_has_is_a_violation(passage: _Passage, prefix: tuple[int, int, int, int]) -> None:
    """Before anything is kept for it."""
    put(passage, struct.pack("!IBIH", *prefix))
    with pytest.raises(Violation):
        passage.frame()


@pytest.fixture
def ends() -> Iterator[tuple[Connection, socket.socket]]:
    """The channel, and what the gateway would get."""
    gateway, channel = socket.socketpair()
    gateway.setblocking(False)
    connection = Connection(channel.detach())
    yield connection, gateway
    connection.close()
    gateway.close()


def server() -> IsolatingServer:
    """One that never ran its checks, for its handling of frames alone."""
    made = IsolatingServer.__new__(IsolatingServer)
    made._in, made._out, made._limits = _Passage(), _Passage(), LIMITS
    return made


RESULT = pack(Frame.RESULT, 7, b'{"type":"null"}', b"null")


def test_chunks_go_on_and_a_closing_frame_waits_for_its_call_to_stop(ends: tuple[Connection, socket.socket]) -> None:
    """The gateway gives a place to the next call when it sees one."""
    connection, gateway = ends
    one = server()
    chunk = pack(Frame.CHUNK, 7, b"{}", b"1")
    put(one._out, chunk + chunk + RESULT)
    assert one._pass_on(connection, 7)
    assert gateway.recv(4096) == chunk + chunk
    assert bytes(one._out.part(0, one._out.size)) == RESULT


@pytest.mark.parametrize(
    "data",
    [
        pack(Frame.RESULT, 8, b'{"type":"null"}', b"null"),
        pack(Frame.HELLO, 7, b'{"version":1}'),
        pack(Frame.CALL, 7, b"{}"),
        b"\xff" * 20,
        RESULT + b"\0",
        RESULT + RESULT,
    ],
    ids=["of another call", "a greeting", "from the gateway", "no frame", "one byte more", "twice"],
)
def test_what_is_not_the_calls_to_say_reaches_nobody(ends: tuple[Connection, socket.socket], data: bytes) -> None:
    """The gateway would refuse most of it, too; it does not have to."""
    connection, gateway = ends
    one = server()
    put(one._out, data)
    with pytest.raises(Violation):
        one._pass_on(connection, 7)
    with pytest.raises(BlockingIOError):
        gateway.recv(1)


def test_a_fork_sees_no_byte_of_another_call() -> None:
    """What is about one that is over is dropped, and a call that comes too early is nobody's."""
    fork = isolated._Fork.__new__(isolated._Fork)
    fork.sent, fork.called = 0, True
    one = server()
    credit = pack(Frame.CREDIT, 7, b'{"credits":1}')
    put(one._in, pack(Frame.CANCEL, 6, b"{}") + credit)
    one._drop_what_is_over(fork, 7)
    assert bytes(one._in.part(0, one._in.size)) == credit
    one._in.clear()
    put(one._in, pack(Frame.CALL, 8, b"{}", b"[[],{}]"))
    with pytest.raises(Violation):
        one._drop_what_is_over(fork, 7)


def test_a_cancel_is_seen_behind_what_was_not_read() -> None:
    """A call that takes nothing in can be stopped all the same."""
    one = server()
    put(one._in, pack(Frame.CREDIT, 7, b"{}") * 3)
    assert one._cancelled_until(7) is None
    put(one._in, pack(Frame.CANCEL, 7, b"{}"))
    assert one._cancelled_until(8) is None
    assert one._cancelled_until(7) is not None
