"""The channel between the gateway and one runner: frames on a stream socket.

Runs as: the gateway and the runner (standard library only).
Reads from strangers: yes, on both ends. `Splitter` turns any bytes into frames or raises `ChannelError`.

A frame is `!IBIH`: bytes that follow these four (u32), type (u8), call id (u32), header length (u16); then the header,
a JSON object or nothing; then the body, raw bytes. Unknown header keys are ignored, unknown frame types end the
channel. Which frames may come when: `CALL STATES` below.

CALL STATES, as the gateway sees one call id (the runner may only speak of ids that are open):

    CALL sent ──► open ──CHUNK*──► open ──RESULT | END | ERROR──► closed
                   │                          ▲
                   └──CANCEL sent─────────────┘   (the slot is free at the closing frame, never before)

CHUNK costs one credit; the runner stops the generator when it has none left. RESULT only where no CHUNK came.
HELLO is the runner's first frame on every channel; DESCRIBE or FAILED follows it once the agent was imported.
"""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple, cast

PROTOCOL_VERSION = 1

_PREFIX = struct.Struct("!IBIH")
PREFIX_BYTES = _PREFIX.size
_AFTER_LENGTH = PREFIX_BYTES - 4

FRAME_BYTES_MAX = 8 * 1024 * 1024 + 64 * 1024
"""A result of the largest size (8 MiB), its header, and its prefix."""
HEADER_BYTES_MAX = 16 * 1024
DESCRIBE_BYTES_MAX = 64 * 1024


class Frame(enum.IntEnum):
    """The types of frame.

    Below 16: gateway to runner. From 16: runner to gateway, about itself. From 32: likewise, about a call.
    """

    CALL = 1
    """header {tag, mode: "single" | "stream", deadline_ms, credits, principal?, request_id?, traceparent?,
    tracestate?}; body: JSON `[args, kwargs]`. deadline_ms is what is left of the call's time when the frame is sent."""
    CREDIT = 2
    """header {credits}: that many more chunks may be sent"""
    CANCEL = 3
    """header {reason: "client" | "deadline" | "drain"}"""

    HELLO = 16
    """header {version}"""
    DESCRIBE = 17
    """body: JSON of at most 64 KiB,
    {"import_ms", "entrypoints": [{tag, file, module, parameters, doc, streams, asynchronous, returns}]}"""
    FAILED = 18
    """body: JSON of at most 64 KiB, {"problems": [{tag?, where, what, traceback?, hints}]}: the agent cannot serve"""

    RESULT = 32
    """header {type}; body: one JSON value. type: string integer number boolean array object null"""
    CHUNK = 33
    """as RESULT, for one item of a stream"""
    END = 34
    """header {chunks}: the stream is complete"""
    ERROR = 35
    """header {kind, message, type?, pointer?, hint?, cause?};
    body: the traceback in the agent's own frames, as text, or nothing"""


FROM_GATEWAY = frozenset({Frame.CALL, Frame.CREDIT, Frame.CANCEL})
FROM_RUNNER = frozenset(Frame) - FROM_GATEWAY
CLOSES_CALL = frozenset({Frame.RESULT, Frame.END, Frame.ERROR})


class CallErrorKind(enum.StrEnum):
    """How a call can fail inside the sandbox: `kind` of an ERROR frame."""

    ARGUMENT = "argument"
    """an argument does not fit the signature;
    `pointer` is a JSON Pointer into {"input_args": [...], "input_kwargs": {...}}"""
    EXCEPTION = "exception"
    """the function raised; `type` is the exception's qualified name"""
    CANCELLED = "cancelled"
    """the function has stopped because of a CANCEL frame"""
    UNSERIALISABLE = "unserialisable"
    TOO_LARGE = "too_large"
    STREAMS = "streams"
    """a single result was asked for, and the function returned a generator"""
    UNKNOWN_TAG = "unknown_tag"
    DIED = "died"
    """the call had a process of its own, which has ended; `cause` says how"""


class EndCause(enum.StrEnum):
    """How a call's own process ended: a part of `wire.control.Cause`."""

    EXIT = "exit"
    SIGNAL = "signal"
    SECCOMP = "seccomp"


class ValueType(enum.StrEnum):
    """What RunAgent's protocol calls the type of a result."""

    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    ARRAY = "array"
    OBJECT = "object"
    NULL = "null"


class ChannelError(ValueError):
    """The other side broke the protocol; the channel is of no further use."""


class RawFrame(NamedTuple):
    """One frame as it came: the header is still JSON text. A tuple, because one is made for every frame there is."""

    type: Frame
    call: int
    header: bytes
    body: bytes


def pack(type: Frame, call: int, header: bytes = b"", body: bytes = b"") -> bytes:
    """One frame as bytes; ValueError where header or body are too large to be a frame."""
    return b"".join((head(type, call, header, len(body)), header, body))


def head(type: Frame, call: int, header: bytes, body_bytes: int) -> bytes:
    """What stands before the header of such a frame; ValueError as from `pack`."""
    length = _AFTER_LENGTH + len(header) + body_bytes
    if len(header) > HEADER_BYTES_MAX or length + 4 > FRAME_BYTES_MAX:
        raise ValueError(f"a frame of {length} bytes with a header of {len(header)} is too large")
    return _PREFIX.pack(length, type, call, len(header))


class Splitter:
    """Bytes in, whole frames out. `accept` is the set of types that this end may receive."""

    __slots__ = ("_accept", "_buffer", "_frame_bytes_max", "_needed")

    def __init__(self, accept: frozenset[Frame], *, frame_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self._accept = {int(type): type for type in accept}
        self._buffer = bytearray()
        self._needed = PREFIX_BYTES
        self._frame_bytes_max = frame_bytes_max

    def feed(self, data: bytes) -> list[RawFrame]:
        """All frames that are complete with `data`; ChannelError where the bytes are no frames of ours."""
        if not self._buffer:
            return self._split(data)
        # A large frame comes in many pieces: they are gathered, and looked at again only when they are enough.
        self._buffer += data
        if len(self._buffer) < self._needed:
            return []
        whole, self._buffer = self._buffer, bytearray()
        # Of a view, so that what was gathered is copied once: into the frames that it is made of.
        frames = self._split(cast(bytes, memoryview(whole)))
        return [frame._replace(header=bytes(frame.header), body=bytes(frame.body)) for frame in frames]

    def _split(self, data: bytes) -> list[RawFrame]:
        frames: list[RawFrame] = []
        start, size = 0, len(data)
        self._needed = PREFIX_BYTES
        while size - start >= PREFIX_BYTES:
            length, number, call, header_bytes = _PREFIX.unpack_from(data, start)
            if length + 4 > self._frame_bytes_max or length < _AFTER_LENGTH + header_bytes:
                raise ChannelError(f"a frame claims {length} bytes with a header of {header_bytes}")
            type = self._accept.get(number)
            if type is None:
                raise ChannelError(f"a frame of type {number} may not come from here")
            if header_bytes > HEADER_BYTES_MAX:
                raise ChannelError(f"a header of {header_bytes} bytes is larger than {HEADER_BYTES_MAX}")
            end = start + 4 + length
            if size < end:
                self._needed = end - start
                break
            header_end = start + PREFIX_BYTES + header_bytes
            frames.append(RawFrame(type, call, data[start + PREFIX_BYTES : header_end], data[header_end:end]))
            start = end
        if start < size:
            self._buffer += data[start:]
        return frames

    @property
    def pending_bytes(self) -> int:
        """How much of an unfinished frame is held."""
        return len(self._buffer)
