"""One end of a channel: frames from a runner into events of calls, calls and cancels into frames.

Runs as: the gateway.
Reads from strangers: yes, everything a sandbox chooses to send. Any bytes at all lead to events of open calls, or to
one `violated`; never to an exception, and never to more memory than the limits of the agent's policy allow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, TypeVar, cast

import msgspec

from runagentd import errors
from runagentd.errors import ErrorKind, Refusal
from runagentd.gateway.calls import CHUNKS_FIRST, Call, Mode, State
from runagentd.gateway.values import Value, result_fault
from runagentd.wire import channel as wire
from runagentd.wire.channel import CallErrorKind, ChannelError, EndCause, Frame, RawFrame, ValueType

T = TypeVar("T")

TRACEBACK_BYTES_MAX = 64 * 1024
WRITE_BUFFER_BYTES = 256 * 1024
"""Above this, what we have written waits in our memory because the runner does not read: no new call is sent."""

LARGE_BYTES = 64 * 1024
"""What is so large is written as it is: to join it with what stands before it would copy it."""


class _Hello(msgspec.Struct):
    version: int


class _ValueHeader(msgspec.Struct):
    type: ValueType


class _EndHeader(msgspec.Struct):
    chunks: int


class _ErrorHeader(msgspec.Struct):
    kind: CallErrorKind
    message: str
    type: str | None = None
    pointer: str | None = None
    hint: str | None = None
    cause: EndCause | None = None


_HELLO = msgspec.json.Decoder(_Hello)
_VALUE = msgspec.json.Decoder(_ValueHeader)
_END = msgspec.json.Decoder(_EndHeader)
_ERROR = msgspec.json.Decoder(_ErrorHeader)
_ENCODE = msgspec.json.Encoder().encode
_VALUE_HEADERS = {_ENCODE(_ValueHeader(type)): type for type in ValueType}
"""Most results come with one of these bytes: what they mean need not be found out each time."""

_ERROR_KINDS: dict[CallErrorKind, ErrorKind] = {
    CallErrorKind.ARGUMENT: errors.ARGUMENT,
    CallErrorKind.EXCEPTION: errors.FUNCTION,
    CallErrorKind.CANCELLED: errors.CANCELLED,
    CallErrorKind.UNSERIALISABLE: errors.UNSERIALISABLE,
    CallErrorKind.TOO_LARGE: errors.RESULT_TOO_LARGE,
    CallErrorKind.STREAMS: errors.STREAMS,
    CallErrorKind.UNKNOWN_TAG: errors.NOT_FOUND,
    CallErrorKind.DIED: errors.INSTANCE_DIED,
}


class ChannelOwner(Protocol):
    """Whose channel it is: told what happens, synchronously, in the order in which it happened."""

    def described(self, body: bytes) -> None:
        """DESCRIBE came; ChannelError where it does not have the right form."""

    def import_failed(self, body: bytes) -> None:
        """FAILED came."""

    def closed(self, call: Call) -> None:
        """The function of `call` has stopped, and its place is free."""

    def writable(self) -> None:
        """The runner reads again."""

    def violated(self, reason: str) -> None:
        """The runner broke the protocol; the channel is closed."""

    def lost(self) -> None:
        """The channel is at its end, from the other side."""


class Channel(asyncio.Protocol):
    """The protocol object of one channel. `open_calls` are those whose function has not stopped."""

    def __init__(self, owner: ChannelOwner, *, result_bytes: int, traceback: bool) -> None:
        self._loop = asyncio.get_running_loop()
        self._owner = owner
        self._result_bytes = result_bytes
        self._traceback = traceback
        frame_bytes = min(
            wire.FRAME_BYTES_MAX, max(result_bytes, wire.DESCRIBE_BYTES_MAX, TRACEBACK_BYTES_MAX) + 64 * 1024
        )
        self._splitter = wire.Splitter(wire.FROM_RUNNER, frame_bytes_max=frame_bytes)
        self._transport: asyncio.Transport | None = None
        self._greeted = False
        self._introduced = False
        self._next_number = 1
        self.over = False
        self._starved: list[Call] = []
        self._unwritten: list[bytes] = []
        self.paused = False
        self.open_calls: dict[int, Call] = {}
        # One table instead of a ladder: frames that are about a call, after the call was found.
        self._about_calls: dict[Frame, Callable[[Call, RawFrame], None]] = {
            Frame.RESULT: self._on_result,
            Frame.CHUNK: self._on_chunk,
            Frame.END: self._on_end,
            Frame.ERROR: self._on_error,
        }

    # ---- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self.over:
            # Closed before it was made: left open, the runner would wait on it and never take the next channel.
            self._transport.abort()
            return
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._splitter.feed(data):
                if not self.over:
                    self._take(frame)
        except ChannelError as error:
            self._break(str(error))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.over:
            self.over = True
            self._owner.lost()

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        starved, self._starved = self._starved, []
        for call in starved:
            self._give_credit(call)
        self._owner.writable()

    # ---- what the gateway does with it

    def start(self, call: Call, *, now: float) -> None:
        """Send CALL; ValueError where it is too large to be a frame."""
        number = self._free_number()
        asked = call.asked
        streaming = asked.mode is Mode.STREAM
        credits = CHUNKS_FIRST if streaming else 0
        mode = "stream" if streaming else "single"
        deadline_ms = max(1, int((asked.deadline - now) * 1000))
        # All but the tag and what callers sent as tracestate is ours, and of characters that JSON does not escape.
        header = (
            f'{{"tag":{_json(asked.tag)},"mode":"{mode}","deadline_ms":{deadline_ms},"credits":{credits},'
            f'"principal":"{asked.principal}","request_id":"{asked.request_id}","traceparent":"{asked.traceparent}"'
        )
        header += "}" if asked.tracestate is None else f',"tracestate":{_json(asked.tracestate)}}}'
        self._send_call(number, header.encode(), asked.arguments)
        call.number = number
        call.sent = True
        call.state = State.OPEN
        call.outstanding = credits
        call.credit = self._give_credit if streaming else None
        self.open_calls[number] = call

    def _send_call(self, number: int, header: bytes, arguments: bytes) -> None:
        if len(arguments) < LARGE_BYTES:
            self._write(wire.pack(Frame.CALL, number, header, arguments))
        else:
            self._write(wire.head(Frame.CALL, number, header, len(arguments)) + header)
            self._write(arguments)

    def cancel(self, call: Call, reason: str) -> None:
        """Ask the function of an open call to stop. Its place is free at the closing frame, and not before."""
        if call.state is State.OPEN:
            call.state = State.STOPPING
            self._write(wire.pack(Frame.CANCEL, call.number, b'{"reason":"%b"}' % reason.encode("ascii")))

    def close(self) -> None:
        """Close this end at once; nothing more is told to the owner."""
        self.over = True
        if self._transport is not None:
            self._transport.abort()

    # ---- frames

    def _take(self, frame: RawFrame) -> None:
        if not self._greeted:
            self._on_hello(frame)
            return
        on_frame = self._about_calls.get(frame.type)
        if on_frame is not None:
            call = self.open_calls.get(frame.call)
            if call is None:
                raise ChannelError(f"{frame.type.name} for a call that is not open")
            on_frame(call, frame)
        elif frame.type is Frame.HELLO or self._introduced:
            raise ChannelError(f"a second {frame.type.name}")
        elif len(frame.body) > wire.DESCRIBE_BYTES_MAX:
            raise ChannelError(f"{frame.type.name} has {len(frame.body)} bytes")
        else:
            self._introduced = True
            if frame.type is Frame.DESCRIBE:
                self._owner.described(frame.body)
            else:
                self._owner.import_failed(frame.body)

    def _on_hello(self, frame: RawFrame) -> None:
        if frame.type is not Frame.HELLO:
            raise ChannelError("the first frame is not HELLO")
        if _header(_HELLO, frame).version != wire.PROTOCOL_VERSION:
            raise ChannelError("HELLO has another version")
        self._greeted = True

    def _on_result(self, call: Call, frame: RawFrame) -> None:
        if call.chunks:
            raise ChannelError("RESULT after CHUNK")
        value = self._value(frame)
        self._stopped(call)
        call.deliver(value)
        call.end()
        self._owner.closed(call)

    def _on_chunk(self, call: Call, frame: RawFrame) -> None:
        if call.outstanding < 1:
            raise ChannelError("CHUNK without a credit")
        value = self._value(frame)
        call.outstanding -= 1
        call.chunks += 1
        call.largest_chunk = max(call.largest_chunk, len(value.body))
        call.deliver(value)

    def _on_end(self, call: Call, frame: RawFrame) -> None:
        if call.asked.mode is not Mode.STREAM:
            raise ChannelError("END for a call that does not stream")
        if _header(_END, frame).chunks != call.chunks:
            raise ChannelError("END counts other chunks than have come")
        self._stopped(call)
        call.end()
        self._owner.closed(call)

    def _on_error(self, call: Call, frame: RawFrame) -> None:
        header = _header(_ERROR, frame)
        if len(frame.body) > TRACEBACK_BYTES_MAX:
            raise ChannelError(f"a traceback of {len(frame.body)} bytes")
        self._stopped(call)
        call.end(
            Refusal(
                _ERROR_KINDS[header.kind],
                header.message,
                hint=header.hint,
                pointer=header.pointer,
                exception_type=header.type,
                cause=header.cause.value if header.cause is not None else None,
                traceback=frame.body.decode("utf-8", "replace") if self._traceback and frame.body else None,
            )
        )
        self._owner.closed(call)

    def _value(self, frame: RawFrame) -> Value:
        if len(frame.body) > self._result_bytes:
            raise ChannelError(f"{frame.type.name} has {len(frame.body)} bytes")
        type = _VALUE_HEADERS.get(frame.header) or _header(_VALUE, frame).type
        fault = result_fault(type, frame.body)
        if fault is not None:
            raise ChannelError(fault)
        return Value(type, frame.body)

    def _stopped(self, call: Call) -> None:
        del self.open_calls[call.number]
        call.close()
        call.credit = None

    # ---- writing

    def _give_credit(self, call: Call) -> None:
        if self.paused:
            # A runner that sends and never reads must not make us keep a frame for every chunk.
            if call not in self._starved:
                self._starved.append(call)
            return
        credits = call.grant()
        if credits:
            call.outstanding += credits
            self._write(wire.pack(Frame.CREDIT, call.number, b'{"credits":%d}' % credits))

    def _write(self, data: bytes) -> None:
        # Frames of one turn of the loop leave in one system call: at 16 connections that halves their number.
        if not self._unwritten:
            self._loop.call_soon(self._flush)
        self._unwritten.append(data)

    def _flush(self) -> None:
        unwritten, self._unwritten = self._unwritten, []
        if self._transport is None or self.over:
            return
        if any(len(piece) >= LARGE_BYTES for piece in unwritten):
            self._transport.writelines(unwritten)
        else:
            self._transport.write(b"".join(unwritten))

    def _free_number(self) -> int:
        number = self._next_number
        while number in self.open_calls:
            number = number % 0xFFFFFFFF + 1
        self._next_number = number % 0xFFFFFFFF + 1
        return number

    def _break(self, reason: str) -> None:
        if self.over:
            return
        self.close()
        self._owner.violated(reason)


def _json(text: str) -> str:
    return _ENCODE(text).decode()


def _header(decoder: msgspec.json.Decoder[T], frame: RawFrame) -> T:
    try:
        return decoder.decode(frame.header)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ChannelError(f"the header of {frame.type.name} does not have the right form") from error
