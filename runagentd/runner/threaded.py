"""Serve several calls at a time: plain functions on worker threads, asynchronous ones in one event loop.

Runs as: the runner, in the sandbox, for a policy with a concurrency above 1.
Reads from strangers: see `calls`.
The main thread only reads the channel. A slot is free when the code in it has stopped, not when its caller went away.
A cancel reaches a plain function between two of its bytecodes, as an exception set from outside; a function that
waits in C sees it when that wait ends. Concurrency 1 (`inline`) has no such delay.
"""

from __future__ import annotations

import asyncio
import collections
import contextvars
import os
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from runagentd import kernel
from runagentd.runner import calls, failure
from runagentd.runner.asynchronous import drive
from runagentd.runner.calls import Call, Cancelled, Encoded, Unfinished
from runagentd.runner.connection import Connection
from runagentd.runner.entrypoints import Target
from runagentd.runner.handover import Limits
from runagentd.wire.channel import Frame, RawFrame

_T = TypeVar("_T")
_copy_context = contextvars.copy_context
_new_loop = asyncio.SelectorEventLoop
_Event = asyncio.Event
_Thread = threading.Thread
_this_thread = threading.get_ident
_raise_in_thread = kernel.raise_in_thread


class _Running:
    """One call that has a slot. `changed` guards all but `call.chunks`, which only the running code writes."""

    __slots__ = ("call", "changed", "context", "interruption", "thread", "value", "wake")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.context = _copy_context()
        self.changed = threading.Condition(threading.Lock())
        self.value: Any = None
        """what a coroutine returned that is left to iterate over"""
        self.thread: int | None = None
        """where the agent's code runs, as long as an exception may be raised in it"""
        self.interruption: type[BaseException] = Cancelled
        self.wake: Callable[[], None] | None = None
        """tells the event loop that this call has changed"""

    def guarded(self, interruption: type[BaseException], function: Callable[..., _T], *arguments: Any) -> _T:
        """Run the agent's code on this thread so that a cancel raises in it."""
        try:
            with self.changed:
                if self.call.cancelled:
                    raise Cancelled
                self.interruption, self.thread = interruption, _this_thread()
            return self.context.run(function, *arguments)
        finally:
            # From here on nobody raises any more, and an exception that was set before arrives at one of these
            # backward jumps at the latest: that is where the interpreter looks.
            with self.changed:
                self.thread = None
            for _ in range(4):
                pass

    def cancel(self) -> None:
        """Make the code stop, by whatever way it can be reached; once."""
        with self.changed:
            if self.call.cancelled:
                return
            self.call.cancelled = True
            self.changed.notify_all()
            if self.thread is not None:
                thread, self.thread = self.thread, None
                _raise_in_thread(thread, self.interruption)
            if self.wake is not None:
                self.wake()

    def grant(self, credits: int) -> None:
        """Allow more chunks."""
        with self.changed:
            self.call.granted += credits
            self.changed.notify_all()
            if self.wake is not None:
                self.wake()

    def wait_for_credit(self) -> None:
        """Return when the next chunk may be made, or the call was cancelled."""
        with self.changed:
            while self.call.chunks >= self.call.granted and not self.call.cancelled:
                self.changed.wait()


class ThreadedServer:
    """Serves up to `limits.concurrency` calls at once; the thread that calls `serve` reads the channel."""

    def __init__(self, targets: dict[str, Target], limits: Limits) -> None:
        self._targets = targets
        self._limits = limits
        self._connection: Connection | None = None
        self._sending = threading.Lock()
        self._slots = threading.Condition(threading.Lock())
        """guards the next two"""
        self._open: dict[int, _Running] = {}
        self._waiting: collections.deque[Call] = collections.deque()
        self._jobs: queue.SimpleQueue[_Running] = queue.SimpleQueue()
        self._pid = os.getpid()
        self._loop = _new_loop()
        for number in range(limits.concurrency):
            _Thread(target=self._work, name=f"call-{number + 1}", daemon=True).start()
        _Thread(target=self._run_loop, name="asyncio", daemon=True).start()

    def serve(self, connection: Connection) -> None:
        """Until the channel ends; its calls have stopped then."""
        self._connection = connection
        while not connection.ended:
            try:
                for frame in connection.receive(wait=True) or ():
                    self._take(frame)
            except calls.BadHeader:
                connection.ended = True
        with self._slots:
            self._waiting.clear()
            still_open = list(self._open.values())
        for running in still_open:
            running.cancel()
        with self._slots:
            while self._open:
                self._slots.wait()

    def _take(self, frame: RawFrame) -> None:
        if frame.type is Frame.CALL:
            call = calls.opened(frame, self._targets)
            with self._slots:
                self._waiting.append(call)
                self._fill_slots()
            return
        with self._slots:
            running = self._open.get(frame.call)
            waiting = next((call for call in self._waiting if call.number == frame.call), None)
            if waiting is not None and frame.type is Frame.CREDIT:
                waiting.granted += calls.credits_of(frame)
            elif waiting is not None:
                self._waiting.remove(waiting)
        if running is not None and frame.type is Frame.CREDIT:
            running.grant(calls.credits_of(frame))
        elif running is not None:
            running.cancel()
        elif waiting is not None and frame.type is Frame.CANCEL:
            self._send(calls.cancelled_frame(waiting))

    def _fill_slots(self) -> None:
        """With `_slots` held."""
        while self._waiting and len(self._open) < self._limits.concurrency:
            call = self._waiting.popleft()
            running = self._open[call.number] = _Running(call)
            if call.target is not None and call.target.asynchronous:
                self._loop.call_soon_threadsafe(self._begin_in_loop, running, None)
            else:
                self._jobs.put(running)

    def _send(self, data: bytes) -> None:
        connection = self._connection
        if connection is not None:
            with self._sending:
                connection.send(data)

    def _close(self, running: _Running, closing: bytes) -> None:
        """The code of a call has stopped: say so, and let the next one have its slot."""
        call = running.call
        calls.flush_output()
        self._send(calls.cancelled_frame(call) if call.cancelled else closing)
        with self._slots:
            self._open.pop(call.number, None)
            self._fill_slots()
            self._slots.notify_all()

    # ---- plain functions

    def _work(self) -> None:
        while True:
            running = self._jobs.get()
            try:
                closing = self._perform(running)
                if os.getpid() != self._pid:
                    os._exit(0)  # a process that the function forked came back here; the call is its parent's
                if closing is not None:
                    self._close(running, closing)
            except BaseException as error:  # noqa: BLE001  (a thread that ends silently would keep its slot for ever)
                failure.end_process(error)
            del running, closing

    def _perform(self, running: _Running) -> bytes | None:
        """The closing frame; None where the event loop goes on with the call."""
        call = running.call
        try:
            if running.value is not None:
                return self._iterate(running, running.value)
            done = running.guarded(Cancelled, calls.evaluate, call, self._limits)
            if isinstance(done, tuple):
                return calls.whole_stream(call, done) if call.stream else calls.result_frame(call, done)
            if calls.is_awaitable(done.value) or calls.is_asynchronous_stream(done.value):
                self._loop.call_soon_threadsafe(self._begin_in_loop, running, done)
                return None
            return self._iterate(running, done.value)
        except BaseException as error:  # noqa: BLE001  (whatever the agent raises ends this call only)
            return calls.error_frame(call, error, self._limits)

    def _iterate(self, running: _Running, iterator: Any) -> bytes:
        call = running.call
        try:
            if not call.stream:
                raise calls.not_single(iterator)
            while True:
                running.wait_for_credit()
                encoded = running.guarded(GeneratorExit, self._next, call, iterator)
                if encoded is None:
                    return calls.end_frame(call)
                call.chunks += 1
                self._send(calls.chunk_frame(call, encoded))
        finally:
            running.context.run(calls.close, iterator)

    def _next(self, call: Call, iterator: Any) -> Encoded | None:
        for item in iterator:
            return calls.encode(call, item, self._limits)
        return None

    # ---- asynchronous functions

    def _run_loop(self) -> None:
        while True:
            try:
                self._loop.run_forever()
            except BaseException:  # noqa: BLE001  (SystemExit in a task that the agent started stops the loop)
                continue

    def _begin_in_loop(self, running: _Running, done: Unfinished | None) -> None:
        changed = _Event()
        task = self._loop.create_task(self._drive(running, done, changed), context=running.context)
        stopped = False

        def look() -> None:
            nonlocal stopped
            changed.set()
            if running.call.cancelled and not stopped:
                stopped = True  # once: a second cancel() would break the clean-up that the first began
                task.cancel()

        def wake() -> None:
            self._loop.call_soon_threadsafe(look)

        with running.changed:
            running.wake = wake
            if running.call.cancelled:
                wake()
        task.add_done_callback(lambda _: self._end_in_loop(running, task))

    async def _drive(self, running: _Running, done: Unfinished | None, changed: asyncio.Event) -> bytes | Unfinished:
        call = running.call
        try:
            started = done if done is not None else calls.evaluate(call, self._limits)
        except BaseException as error:  # noqa: BLE001  (as above)
            return calls.error_frame(call, error, self._limits)
        if isinstance(started, tuple):
            return calls.whole_stream(call, started) if call.stream else calls.result_frame(call, started)
        return await drive(call, started.value, changed, self._send, self._limits)

    def _end_in_loop(self, running: _Running, task: asyncio.Task[bytes | Unfinished]) -> None:
        with running.changed:
            running.wake = None
        # Cancelled before its first step, a task has no result of ours.
        outcome = calls.cancelled_frame(running.call) if task.cancelled() else task.result()
        if isinstance(outcome, bytes):
            self._close(running, outcome)
        else:
            running.value = outcome.value
            self._jobs.put(running)
