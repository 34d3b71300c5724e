"""Serve each call in a fork of its own: this process imports the agent, never runs a call, and never holds one's bytes.

Runs as: the runner, in the sandbox, for a policy with calls.isolation = "call"; one thread.
Reads from strangers: yes. The channel's frames are the gateway's; what a fork sends is a hostile call's.

A fork is made before its call comes, so that nothing of it is in what the fork is made from, and nothing of another:
frames pass through this process in memory that no fork gets (madvise(2), MADV_DONTFORK), and no object is made of them.
A fork has neither the channel nor the supply of new ones, but a socket on which it can answer its own call: frames
about that call are passed on, up to the first closing one. How a fork ended is what the kernel says.
When a call is over, every process but this one and the reaper is killed, then the closing frame goes out, then all that
can be written to is emptied. Whatever goes wrong with that ends the instance: there is no next call in a doubtful one.
"""

from __future__ import annotations

import _socket
import fcntl
import gc
import mmap
import os
import select
import signal
import struct
import time
from collections.abc import Sequence
from typing import NoReturn

from runagentd.runner import calls, report
from runagentd.runner.connection import Connection
from runagentd.runner.entrypoints import ImportProblem, Target
from runagentd.runner.failure import BROKEN_STATUS
from runagentd.runner.handover import Limits
from runagentd.runner.inline import InlineServer
from runagentd.runner.scratch import Scratch
from runagentd.wire.channel import CLOSES_CALL, FRAME_BYTES_MAX, HEADER_BYTES_MAX, PREFIX_BYTES, EndCause, Frame

_PREFIX = struct.Struct("!IBIH")
_PID = 2
"""This process's own: the reaper is 1. Nowhere else may all processes be killed that there are."""
_TASKS = "/proc/self/task"
_LONG = 64 * 1024
"""Memory that held more than this is given back after a call."""
_ALONE_SECONDS = 2.0
_BREAK_OFF_SECONDS = 2.0
_GRACE = 0.75
"""How much of a cancel's grace a fork gets; with the rest the instance is saved from being replaced."""

_ANSWERS = frozenset({Frame.RESULT, Frame.CHUNK, Frame.END, Frame.ERROR})

_poll, _POLLIN, _POLLOUT = select.poll, select.POLLIN, select.POLLOUT
_socketpair = _socket.socketpair
_monotonic, _sleep = time.monotonic, time.sleep


class NotAlone(Exception):
    """Processes are left that cannot be ended."""


class Violation(Exception):
    """A fork sent what a runner does not send."""


def problems(scratch: Sequence[str], file: str) -> list[ImportProblem]:
    """Why what the import has left cannot be forked for each call, in words for the agent's author."""
    found = []
    threads = len(os.listdir(_TASKS))
    if threads > 1:
        found.append(
            (
                f"the import started {threads - 1} threads, which a fork for each call would not have",
                "start them in the function that needs them",
            )
        )
    if not _is_alone():
        found.append(
            (
                "the import started a process, which would be ended after the first call",
                "start it in the function that needs it",
            )
        )
    for path in scratch:
        names = os.listdir(path)
        if names:
            found.append(
                (
                    f"the import left {names[0]!r:.100} in {path}, which is emptied after each call",
                    "write it in the function that needs it, or put it into the agent's folder",
                )
            )
    other = 'or ask the operator for a policy with calls.isolation = "instance"'
    return [ImportProblem(tag="", where=file, what=what, hints=(hint, other)) for what, hint in found]


def _is_alone() -> bool:
    """Whether this process and pid 1 are all there are, zombies included (kill(2), pid -1)."""
    try:
        os.kill(-1, 0)
    except ProcessLookupError:
        return True
    return False


class _Passage:
    """Bytes of one direction on their way through, in memory that is not there in a fork."""

    def __init__(self) -> None:
        size = FRAME_BYTES_MAX + HEADER_BYTES_MAX
        self._memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._memory.madvise(mmap.MADV_DONTFORK)
        self._view = memoryview(self._memory)
        self._long = False
        self.size = 0

    def fill(self, descriptor: int) -> bool:
        """Take what has come; False at the end. BlockingIOError where nothing has."""
        # Not recv(): that would make an object of it.
        count = os.readv(descriptor, [self._view[self.size :]])
        self.size += count
        self._long = self._long or self.size > _LONG
        return count > 0

    def frame(self, start: int = 0) -> tuple[int, int, int] | None:
        """Type, call and size of the whole frame at `start`; None where it is not whole. Violation where it is none."""
        if self.size - start < PREFIX_BYTES:
            return None
        length, kind, call, header = _PREFIX.unpack_from(self._view, start)
        size = length + 4
        if size > FRAME_BYTES_MAX or size < PREFIX_BYTES + header or header > HEADER_BYTES_MAX:
            raise Violation("a frame of a wrong size")
        return (kind, call, size) if self.size - start >= size else None

    def part(self, start: int, end: int) -> memoryview:
        return self._view[start:end]

    def drop(self, count: int) -> None:
        """Forget the first bytes."""
        self._view[: self.size - count] = self._view[count : self.size]
        self.size -= count
        if self._long and not self.size:
            self._long = False
            self._memory.madvise(mmap.MADV_DONTNEED)

    def clear(self) -> None:
        self.drop(self.size)


class _Fork:
    """A process that waits for its one call, or runs it."""

    def __init__(self, pid: int, descriptor: int) -> None:
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self.descriptor = descriptor
        self.open = True
        """whether it may still say something"""
        self.called = False
        """whether it has its CALL frame"""
        self.ended = False
        """whether its end was waited for"""
        self.sent = 0
        """how much it has of the frame after that, which stands first in what goes in"""
        os.set_blocking(descriptor, False)

    def close(self) -> None:
        os.close(self.pidfd)
        os.close(self.descriptor)


class IsolatingServer:
    """Serves calls one after the other, each in a fork of the process that made this."""

    def __init__(self, targets: dict[str, Target], limits: Limits, scratch: Sequence[str]) -> None:
        _check_place()
        self._targets = targets
        self._limits = limits
        self._scratch = [Scratch(path) for path in scratch]
        self._in, self._out = _Passage(), _Passage()
        self._flags = {descriptor: fcntl.fcntl(descriptor, fcntl.F_GETFL) for descriptor in (0, 1, 2)}
        self._fork: _Fork | None = None
        gc.collect()
        gc.disable()
        gc.freeze()  # a collection in a fork would write to every page that it shares with this process

    def serve(self, connection: Connection) -> None:
        """Until the channel ends; its calls have stopped then."""
        self._in.clear()
        while not connection.ended:
            if self._fork is None:
                self._fork = self._make_fork()
            try:
                number = self._wait_for_call(connection)
                if number is None:
                    return
                fork, self._fork = self._fork, None
                self._perform(connection, fork, number)
            except Violation:
                _kill_all()
                _break_off(connection)
            self._restore()

    # ---- a call

    def _wait_for_call(self, connection: Connection) -> int | None:
        """The number of the next one, whose frame stands whole in `_in`; None at the channel's end."""
        while True:
            frame = self._in.frame()
            if frame is None:
                if not self._in.fill(connection.descriptor):
                    connection.ended = True
                    return None
                continue
            kind, number, size = frame
            if kind == Frame.CALL:
                return number
            self._in.drop(size)  # about a call that is over

    def _perform(self, connection: Connection, fork: _Fork, number: int) -> None:
        closing = self._carry(connection, fork, number)
        _kill_all()
        # Nothing of the call runs any more. That its memory is given back takes a millisecond, and nobody else's time:
        # the next call begins when that is done, and the answer of this one is on its way meanwhile.
        connection.send(self._out.part(0, self._out.size) if closing is None else closing)
        self._wait_until_alone(fork)
        self._out.clear()
        if closing is None and fork.open and self._fill_from(fork) and self._out.size:
            raise Violation("something after a closing frame")
        fork.close()
        self._out.clear()

    def _carry(self, connection: Connection, fork: _Fork, number: int) -> bytes | None:
        """Pass frames to and fro until the call is over. None: its closing frame stands in `_out`, and nothing else.

        Else the closing frame; nothing where the channel has ended.
        """
        poll = _poll()
        poll.register(connection.descriptor, _POLLIN)
        poll.register(fork.pidfd, _POLLIN)
        kill_at: float | None = None
        while True:
            kill_at = kill_at or self._cancelled_until(number)
            self._drop_what_is_over(fork, number)
            if fork.open:
                poll.register(fork.descriptor, _POLLIN | (_POLLOUT if self._in.frame() is not None else 0))
            timeout = None if kill_at is None else max(0.0, kill_at - _monotonic()) * 1000
            ready = dict(poll.poll(timeout))
            if kill_at is not None and _monotonic() >= kill_at:
                return calls.cancelled_number(number)
            if connection.descriptor in ready and not self._in.fill(connection.descriptor):
                connection.ended = True
                return b""
            if fork.descriptor in ready or fork.pidfd in ready:
                if fork.open and not self._fill_from(fork):
                    fork.open = False  # it will not answer any more; that it ends as well is its own affair
                    poll.unregister(fork.descriptor)
                if self._pass_on(connection, number):
                    return None
                if fork.pidfd in ready:
                    return self._died(fork, number)
            if fork.open and ready.get(fork.descriptor, 0) & _POLLOUT:
                self._write_to(fork)

    def _cancelled_until(self, number: int) -> float | None:
        """When to kill a call whose CANCEL has come, wherever it stands behind what the fork has not read yet."""
        start = 0
        while (frame := self._in.frame(start)) is not None:
            kind, call, size = frame
            if kind == Frame.CANCEL and call == number:
                return _monotonic() + self._limits.cancel_grace_ms / 1000 * _GRACE
            start += size
        return None

    def _drop_what_is_over(self, fork: _Fork, number: int) -> None:
        """A fork gets its own call and what is about that; of another call it must not see a byte."""
        while fork.sent == 0 and (frame := self._in.frame()) is not None:
            kind, call, size = frame
            if call == number and (kind != Frame.CALL or not fork.called):
                return
            if kind == Frame.CALL:
                raise Violation("a call that came before the one before it was over")
            self._in.drop(size)

    def _write_to(self, fork: _Fork) -> None:
        """As much of the first frame as goes in now."""
        frame = self._in.frame()
        if frame is None:
            return
        try:
            fork.sent += os.writev(fork.descriptor, [self._in.part(fork.sent, frame[2])])
        except BlockingIOError:
            return
        except (BrokenPipeError, ConnectionResetError):
            fork.sent = frame[2]  # it reads no more; what becomes of it is told by its pidfd
        if fork.sent == frame[2]:
            self._in.drop(fork.sent)
            fork.sent, fork.called = 0, True

    def _fill_from(self, fork: _Fork) -> bool:
        """Take what has come from it; False at its end."""
        try:
            return self._out.fill(fork.descriptor)
        except BlockingIOError:
            return True
        except ConnectionResetError:
            return False

    def _pass_on(self, connection: Connection, number: int) -> bool:
        """Whole frames, to the gateway; True where a closing one stands in `_out`, which waits for its call to stop."""
        while (frame := self._out.frame()) is not None:
            kind, call, size = frame
            if kind not in _ANSWERS or call != number:
                raise Violation("a frame that is not about its call")
            if kind in CLOSES_CALL:
                if self._out.size > size:
                    raise Violation("more than a closing frame")
                return True
            connection.send(self._out.part(0, size))
            self._out.drop(size)
        return False

    def _died(self, fork: _Fork, number: int) -> bytes:
        """The closing frame of a call whose process has ended without one."""
        status = _wait(fork.pid)
        fork.ended = True
        if status == -signal.SIGKILL:
            # Nobody of ours did that. It may have been the kernel, for want of memory, and then it is the whole
            # instance's end (on v1 the supervisor makes it so): by ending in the same way the true cause is told.
            os.kill(os.getpid(), signal.SIGKILL)
        if status == -signal.SIGSYS:
            return calls.died_frame(
                number, EndCause.SECCOMP, "the call made a system call that ends its process (SIGSYS)"
            )
        if status < 0:
            name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
            return calls.died_frame(number, EndCause.SIGNAL, f"the call's process was ended by {name}")
        return calls.died_frame(number, EndCause.EXIT, f"the call's process ended itself with status {status}")

    # ---- forks

    def _make_fork(self) -> _Fork:
        if len(os.listdir(_TASKS)) != 1:
            raise NotAlone("this process has more than one thread, and a fork would have one")
        ours, theirs = _socketpair()
        pid = os.fork()
        if pid == 0:
            try:
                ours.close()
                self._run(Connection(theirs.detach()))
            finally:
                os._exit(BROKEN_STATUS)
        theirs.close()
        return _Fork(pid, ours.detach())

    def _run(self, connection: Connection) -> NoReturn:
        """In the fork: one call, and then whatever it has left running, until all of it is killed."""
        for scratch in self._scratch:
            scratch.close()
        # Random numbers differ without our help: the module `random` seeds itself in each fork, OpenSSL when it sees
        # another pid, and that of the process that is forked, 2, no fork can have.
        gc.enable()
        InlineServer(self._targets, self._limits).serve(connection)
        os._exit(0)

    def _wait_until_alone(self, fork: _Fork) -> None:
        """Until nothing but this process and pid 1 is there; NotAlone where that does not come."""
        if not fork.ended:
            _wait(fork.pid)
        until = _monotonic() + _ALONE_SECONDS
        pause = 0.0001
        while not _is_alone():
            _reap_all()
            if _monotonic() > until:
                raise NotAlone("a process does not end")
            _sleep(pause)  # orphans are the reaper's to reap
            pause = min(pause * 2, 0.01)

    # ---- between two calls

    def _restore(self) -> None:
        """What a call may have changed outside of its own process is as it was."""
        for descriptor, flags in self._flags.items():
            if fcntl.fcntl(descriptor, fcntl.F_GETFL) != flags:
                fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)
        for scratch in self._scratch:
            scratch.empty()


def _check_place() -> None:
    """NotAlone unless all processes that there are may be killed: those of an instance, and not those of a host."""
    if os.getpid() != _PID or os.getppid() != 1:
        raise NotAlone("only pid 2 of a pid namespace of its own may end all others")


def _kill_all() -> None:
    """All but this process and pid 1, at once, also those that fork meanwhile: the kernel takes the lock of a fork."""
    _check_place()
    try:
        os.kill(-1, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _wait(pid: int) -> int:
    """How a child has ended: its status, or a signal's number as a negative one."""
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except ChildProcessError:  # an agent may have its children ignored
        return 0


def _reap_all() -> None:
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return
        except ChildProcessError:
            return


def _break_off(connection: Connection) -> NoReturn:
    """Have the instance replaced for a broken protocol: no gateway accepts a second HELLO."""
    connection.send(report.HELLO)
    _sleep(_BREAK_OFF_SECONDS)  # until it is done
    os._exit(BROKEN_STATUS)
