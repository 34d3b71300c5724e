"""Serve one call at a time: the function runs on the main thread, where signals reach it.

Runs as: the runner, in the sandbox, for a policy with concurrency 1.
Reads from strangers: see `calls`.
While a function runs, the channel is read by a signal handler: a frame that arrives interrupts sleeps and blocking
reads (EINTR), and a CANCEL becomes an exception inside the function. The handler raises only while `_interruptible`
is set, and clears it first, so an exception can never arise in the runner's own code.
"""

from __future__ import annotations

import asyncio
import collections
import contextvars
import os
import signal
import types
from collections.abc import Callable
from typing import Any, TypeVar

from runagentd.runner import calls
from runagentd.runner.asynchronous import drive
from runagentd.runner.calls import Call, Cancelled, Encoded, Unfinished
from runagentd.runner.connection import WAKE_SIGNAL, Connection
from runagentd.runner.entrypoints import Target
from runagentd.runner.handover import Limits
from runagentd.wire.channel import Frame, RawFrame

_T = TypeVar("_T")
_copy_context = contextvars.copy_context
_all_tasks = asyncio.all_tasks
_new_loop = asyncio.SelectorEventLoop
_Event = asyncio.Event
_HEADROOM_FRAMES = 30


def _has_headroom(frames: int = _HEADROOM_FRAMES) -> bool:
    """Whether the stack has room for reading frames: a RecursionError halfway would lose them."""
    try:
        return frames == 0 or _has_headroom(frames - 1)
    except RecursionError:
        return False


class InlineServer:
    """Serves calls one after the other on the thread that calls `serve`, which must be the main one."""

    def __init__(self, targets: dict[str, Target], limits: Limits) -> None:
        self._targets = targets
        self._limits = limits
        self._connection: Connection | None = None
        self._waiting: collections.deque[Call] = collections.deque()
        self._call: Call | None = None
        self._interruptible = False
        self._interruption: type[BaseException] = Cancelled
        self._reading = self._read_again = False
        self._sending = False
        self._unsent: collections.deque[bytes] = collections.deque()
        self._loop: asyncio.SelectorEventLoop | None = None
        self._wake: Callable[[], None] | None = None
        """tells the event loop that `_call` changed, while it runs"""
        self._pid = os.getpid()
        signal.signal(WAKE_SIGNAL, self._on_signal)

    def serve(self, connection: Connection) -> None:
        """Until the channel ends; its calls have stopped then."""
        self._waiting.clear()
        self._unsent.clear()
        self._connection = connection
        connection.wake_by_signal()
        self._read_again = True  # for what came before there were signals
        while True:
            while not self._waiting:
                if connection.ended:
                    return
                self._receive(connection)
            # Never in neither place: the signal handler may look for it at any moment, and only ever adds to the queue.
            call = self._call = self._waiting[0]
            self._waiting.popleft()
            if not call.closed:
                self._perform(call)
            self._call = None
            if os.getpid() != self._pid:
                os._exit(0)  # a process that the function forked came back here; the call is its parent's

    # ---- frames, from the main loop and from the signal handler

    def _receive(self, connection: Connection) -> None:
        """Wait for frames, unless what is waited for is there."""
        call = self._call
        if call is None and self._loop is not None and _all_tasks(self._loop):
            self._receive_in_loop(connection, self._loop)
            return
        # From here on the signal handler takes nothing. Only then is it certain whether it already took something:
        # to look first and then to wait would lose what comes in between.
        self._reading = True
        if not connection.ended and (
            not self._waiting if call is None else call.chunks >= call.granted and not call.cancelled
        ):
            self._take(connection.receive(wait=True))
        self._reading = False
        if connection.ended:
            self._cancel_open()
        # The signal of what was just read has come as well, so this is one more system call each time. Looking
        # costs 1 us, and never looking would lose a CANCEL that arrived in between.
        if self._read_again:
            self._read()

    def _receive_in_loop(self, connection: Connection, loop: asyncio.SelectorEventLoop) -> None:
        """The same, while tasks that the agent has started go on."""
        self._wake = loop.stop
        loop.add_reader(connection.descriptor, loop.stop)
        try:
            if not self._waiting and not connection.ended:
                loop.run_forever()
        except BaseException:  # noqa: BLE001  (SystemExit in one of those tasks stops the loop; it is run again)
            return
        finally:
            self._wake = None
            loop.remove_reader(connection.descriptor)
        self._read()

    def _on_signal(self, number: int, frame: types.FrameType | None) -> None:
        call = self._call
        if call is not None and not _has_headroom():
            return  # what came stays in the socket, and is read when the call ends, or with the next frame
        self._read()
        call = self._call
        if call is not None and call.cancelled and self._interruptible:
            self._interruptible = False
            raise self._interruption

    def _read(self) -> None:
        """Take what is there without waiting. May be entered again by a signal, and then leaves it to the outer one."""
        if self._reading:
            self._read_again = True
            return
        connection = self._connection
        if connection is None:
            return
        while True:
            self._reading, self._read_again = True, False
            while (frames := connection.receive(wait=False)) is not None:
                self._take(frames)
            self._reading = False
            if connection.ended:
                self._cancel_open()
            if not self._read_again:
                return

    def _take(self, frames: list[RawFrame] | None) -> None:
        for frame in frames or ():
            try:
                if frame.type is Frame.CALL:
                    self._waiting.append(calls.opened(frame, self._targets))
                else:
                    self._take_about_call(frame)
            except calls.BadHeader:
                if self._connection is not None:
                    self._connection.ended = True
                return
            if self._wake is not None and self._loop is not None:
                self._loop.call_soon_threadsafe(self._wake)

    def _take_about_call(self, frame: RawFrame) -> None:
        call = self._call
        if call is None or call.number != frame.call:
            call = next((waiting for waiting in self._waiting if waiting.number == frame.call), None)
        if call is None:
            return  # it was closed meanwhile
        if frame.type is Frame.CREDIT:
            call.granted += calls.credits_of(frame)
        else:
            call.cancelled = True
            if call is not self._call and not call.closed:
                call.closed = True
                self._send(calls.cancelled_frame(call))

    def _cancel_open(self) -> None:
        for waiting in self._waiting:
            waiting.closed = True
        if self._call is not None:
            self._call.cancelled = True
        if self._wake is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(self._wake)

    def _send(self, data: bytes) -> None:
        """Send now, or, in a signal handler that interrupted a send, right after that one."""
        if self._sending:
            self._unsent.append(data)
            return
        connection = self._connection
        if connection is None:
            return
        self._sending = True
        connection.send(data)
        while self._unsent:
            connection.send(self._unsent.popleft())
        self._sending = False
        if self._unsent:
            self._send(self._unsent.popleft())

    # ---- one call

    def _perform(self, call: Call) -> None:
        context = _copy_context()
        try:
            done = self._guarded(call, context, Cancelled, calls.evaluate, call, self._limits)
            if isinstance(done, tuple):
                closing = calls.whole_stream(call, done) if call.stream else calls.result_frame(call, done)
            else:
                closing = self._finish(call, context, done.value)
        except BaseException as error:  # noqa: BLE001  (whatever the agent raises, SystemExit too, ends this call only)
            closing = calls.error_frame(call, error, self._limits)
        calls.flush_output()
        self._call = None
        if call.cancelled:
            closing = calls.cancelled_frame(call)
        self._send(closing)

    def _guarded(
        self,
        call: Call,
        context: contextvars.Context,
        interruption: type[BaseException],
        function: Callable[..., _T],
        *arguments: Any,
    ) -> _T:
        """Run the agent's code so that a cancel raises in it; see the module's docstring."""
        try:
            self._interruption = interruption
            self._interruptible = True
            # After the flag: a cancel before it was not raised, and one after it will be.
            if call.cancelled:
                raise Cancelled
            return context.run(function, *arguments)
        finally:
            self._interruptible = False

    def _finish(self, call: Call, context: contextvars.Context, value: Any) -> bytes:
        """The closing frame for a function that returned something to await or to iterate over."""
        if calls.is_awaitable(value) or calls.is_asynchronous_stream(value):
            outcome = self._in_loop(call, context, value)
            if isinstance(outcome, bytes):
                return outcome
            value = outcome.value
        if not call.stream:
            calls.close(value)
            raise calls.not_single(value)
        return self._iterate(call, context, value)

    def _iterate(self, call: Call, context: contextvars.Context, iterator: Any) -> bytes:
        connection = self._connection
        try:
            while True:
                while call.chunks >= call.granted and not call.cancelled and connection is not None:
                    self._receive(connection)
                encoded = self._guarded(call, context, GeneratorExit, self._next, call, iterator)
                if encoded is None:
                    return calls.end_frame(call)
                call.chunks += 1
                self._send(calls.chunk_frame(call, encoded))
        finally:
            context.run(calls.close, iterator)

    def _next(self, call: Call, iterator: Any) -> Encoded | None:
        for item in iterator:
            return calls.encode(call, item, self._limits)
        return None

    # ---- asynchronous functions

    def _in_loop(self, call: Call, context: contextvars.Context, value: Any) -> bytes | Unfinished:
        """Await; the loop stays the same for all calls, because clients made in one belong to it."""
        loop = self._loop
        if loop is None:
            loop = self._loop = _new_loop()
        changed = _Event()
        task = loop.create_task(drive(call, value, changed, self._send, self._limits), context=context)

        def wake() -> None:
            changed.set()
            if call.cancelled and not task.done():
                self._wake = changed.set  # once: a second cancel() would break the clean-up that the first began
                task.cancel()

        self._wake = wake
        try:
            if call.cancelled:
                wake()
            while not task.done():
                try:
                    loop.run_until_complete(task)
                except BaseException:
                    # A SystemExit of another task of the agent's stops the loop; this call goes on.
                    if task.done():
                        raise
        finally:
            self._wake = None
        return task.result()
