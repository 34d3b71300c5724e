"""What a worker of the gateway and the gateway say to each other: HTTP that was read, and what is to be answered.

Runs as: the gateway and its workers. Pure.
Reads from strangers: yes. The gateway takes a worker for captured: whatever it sends is one of these messages, within
these bounds, or `ExchangeError`, which ends the link and never more than that.

A message is `!IBQ`: bytes that follow these four (u32), kind (u8), number (u64); then the body. The number is that of a
connection or of an exchange; a worker counts both upwards, never uses one twice on a link, and with 64 bits never has
to. What is longer than `PIECE_BYTES_MAX` travels in pieces, so that nothing has to wait behind it for long.

A CONNECTION                                        AN EXCHANGE: one at a time on a connection

    worker: PLACE ─► gateway: PLACED                    worker: [HEAD] BEGIN ─► gateway: what follows, in this order
    worker: [CERTIFICATE] ─► exchanges ─► RELEASED          READ_BODY ─► worker: BODY* | BODY_FAILED
                                                            REPLY MORE*                                      (the end)
    HEAD is said once, and holds for all further             OPEN_STREAM PIECE* [ABORT] END                  (the end)
    exchanges of the connection until another is            OPEN_WEBSOCKET (RECEIVE ─► worker: MESSAGE | TEXT)*
    said: a client repeats it with every request.              [CLOSE] END                                   (the end)
                                                            FAULT                                            (the end)
                                                        worker: SENT, for every PIECE and TEXT that has left its hands
                                                        worker: GONE, at any time: the client is             (the end)

After the end the other side's messages about the exchange may still be on their way, and are passed over.
"""

from __future__ import annotations

import enum
import re
import struct
from collections.abc import Mapping
from typing import NamedTuple

_PREFIX = struct.Struct("!IBQ")
PREFIX_BYTES = _PREFIX.size
_AFTER_LENGTH = PREFIX_BYTES - 4

PIECE_BYTES_MAX = 64 * 1024
HEAD_BYTES_MAX = 64 * 1024
"""Of a request's line and fields; `gateway.server` takes less from a client."""
FIELDS_MAX = 128
FIELDS_BYTES_MAX = 32 * 1024
"""Of the fields of an answer."""
CERTIFICATE_BYTES_MAX = 64 * 1024
MESSAGE_BYTES_MAX = 128 * 1024

_BEGIN = struct.Struct("!QBqB")
_REPLY = struct.Struct("!HBBH")
_COUNT = struct.Struct("!I")
_LIMIT = struct.Struct("!Q")
_STATUS = struct.Struct("!H")

_LAST, _TEXT, _CLOSED, _TOO_LARGE = 1, 2, 4, 8
_HAS_BODY, _WEBSOCKET = 1, 2
_ADDRESS = re.compile(r"[!-~]{0,64}")
"""inet_ntop(3), and perhaps the name of an interface"""
_DECLARED_MAX = 2**63 - 1
_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
REASON_BYTES_MAX = 123
"""RFC 6455, section 5.5: a control frame has 125 bytes, of which two are the code."""


class Kind(enum.IntEnum):
    """Below 64: worker to gateway. From 64: gateway to worker. See `A CONNECTION` and `AN EXCHANGE` above."""

    PLACE = 1
    """body: the address of the other side. Nothing is read of a connection before it is answered"""
    RELEASED = 2
    """a connection that had a place has ended"""
    CERTIFICATE = 3
    """body: the client's certificate in DER, which mutual TLS has verified"""
    HEAD = 4
    """body: method, target, and each field's name in lower case and value, a line each"""
    BEGIN = 5
    """body: `Begin`"""
    BODY = 6
    """body: u8 whether it is the last piece (1), and the piece"""
    BODY_FAILED = 7
    """body: u8 `BodyFault`"""
    SENT = 8
    """body: u32, how many more pieces have left our hands"""
    MESSAGE = 9
    """body: u8 of last (1), text (2), closed (4) and too large (8), and a piece of what the client sent"""
    GONE = 10

    PLACED = 65
    """body: u8 `Verdict`"""
    READ_BODY = 66
    """body: u64, how many bytes it may have"""
    REPLY = 67
    """body: `Answer`, with the first piece of its body"""
    MORE = 68
    """as BODY, of a reply"""
    OPEN_STREAM = 69
    """body: u16 status, and the fields"""
    PIECE = 70
    ABORT = 71
    END = 72
    OPEN_WEBSOCKET = 73
    """body: u64, how many bytes a message may have"""
    RECEIVE = 74
    """one message is wanted"""
    TEXT = 75
    """as BODY, of a message for the client"""
    CLOSE = 76
    """body: u16 code, and a reason"""
    FAULT = 77
    """body: u8, whether the gateway has failed (1), or the client is to be cut off (0)"""
    DRAIN = 78
    """number 0: accept no more, write out what is under way, and end"""


FROM_WORKER = frozenset(kind for kind in Kind if kind < 64)
FROM_GATEWAY = frozenset(Kind) - FROM_WORKER


class BodyFault(enum.IntEnum):
    """Why there is no body."""

    TOO_LARGE = 1
    SLOW = 2
    BROKEN = 3
    """its encoding is wrong"""


class Verdict(enum.IntEnum):
    """Whether a connection has a place."""

    YES = 0
    FULL = 1
    """the daemon has as many connections as it takes"""
    ADDRESS = 2
    """the address has as many as it may"""


class ExchangeError(ValueError):
    """The other side broke the protocol; the link is of no further use."""


class Message(NamedTuple):
    """One message as it came."""

    kind: Kind
    number: int
    body: bytes


class Head(NamedTuple):
    """A request's line and fields. The names are in lower case; a value is all lines of that name."""

    method: str
    target: str
    fields: dict[str, str]


class Begin(NamedTuple):
    """A request, whose head was said before."""

    connection: int
    websocket: bool
    """whether it is a good opening handshake"""
    declared: int | None
    """Content-Length"""
    id: str
    body: bytes | None
    """None where it has to be asked for"""


class Answer(NamedTuple):
    """A whole answer, or its beginning."""

    status: int
    last: bool
    content_type: str
    fields: dict[str, str]
    piece: bytes


class Said(NamedTuple):
    """A piece of what a WebSocket's client has sent."""

    last: bool
    text: bool
    closed: bool
    """there is nothing more to come"""
    piece: bytes
    too_large: bool = False
    """with `closed`: because of a message that is larger than what was asked for"""


class Splitter:
    """Bytes in, whole messages out. `accept` is the set of kinds that this end may receive."""

    __slots__ = ("_accept", "_buffer", "_needed")

    def __init__(self, accept: frozenset[Kind]) -> None:
        self._accept = {int(kind): kind for kind in accept}
        self._buffer = bytearray()
        self._needed = PREFIX_BYTES

    def feed(self, data: bytes) -> list[Message]:
        """All messages that are complete with `data`; ExchangeError where the bytes are no messages of ours."""
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._needed:
                return []
            data = bytes(self._buffer)
            self._buffer.clear()
        messages: list[Message] = []
        start, size = 0, len(data)
        self._needed = PREFIX_BYTES
        while size - start >= PREFIX_BYTES:
            length, code, number = _PREFIX.unpack_from(data, start)
            if not _AFTER_LENGTH <= length <= MESSAGE_BYTES_MAX:
                raise ExchangeError(f"a message claims {length} bytes")
            kind = self._accept.get(code)
            if kind is None:
                raise ExchangeError(f"a message of kind {code} may not come from here")
            end = start + 4 + length
            if size < end:
                self._needed = end - start
                break
            messages.append(Message(kind, number, data[start + PREFIX_BYTES : end]))
            start = end
        if start < size:
            self._buffer += data[start:]
        return messages

    @property
    def pending_bytes(self) -> int:
        """How much of an unfinished message is held."""
        return len(self._buffer)


def pack(kind: Kind, number: int, body: bytes = b"") -> bytes:
    """One message as bytes; ValueError where it is too large to be one."""
    length = _AFTER_LENGTH + len(body)
    if length > MESSAGE_BYTES_MAX:
        raise ValueError(f"a message of {length} bytes is too large")
    return _PREFIX.pack(length, kind, number) + body


# ---- worker to gateway


def pack_head(number: int, method: str, target: str, fields: Mapping[str, str]) -> bytes:
    """ValueError where there is no form for it: too long, or a line within a line."""
    text = "\n".join([method, target, *(part for field in fields.items() for part in field)])
    if text.count("\n") != 2 * len(fields) + 1:
        raise ValueError("a line of a head has a line feed in it")
    # What `head` refuses must not be sent, or a client could end the link for everybody.
    if _METHOD.fullmatch(method) is None:
        raise ValueError("a method that is too long, or no token")
    # aiohttp gives what is not UTF-8 as halves of surrogate pairs.
    body = text.encode("utf-8", "surrogateescape")
    if len(body) > HEAD_BYTES_MAX or len(fields) > FIELDS_MAX:
        raise ValueError("a head is too large")
    return pack(Kind.HEAD, number, body)


def head(body: bytes) -> Head:
    """What `pack_head` was given."""
    if len(body) > HEAD_BYTES_MAX:
        raise ExchangeError(f"a head has {len(body)} bytes")
    method, *lines = body.decode("utf-8", "surrogateescape").split("\n")
    if len(lines) % 2 != 1 or len(lines) > 2 * FIELDS_MAX + 1 or _METHOD.fullmatch(method) is None:
        raise ExchangeError("a head does not have the right form")
    fields = dict(zip(lines[1::2], lines[2::2], strict=True))
    if 2 * len(fields) != len(lines) - 1 or any(name != name.lower() for name in fields):
        raise ExchangeError("a head's fields do not have the right form")
    return Head(method, lines[0], fields)


def pack_begin(number: int, begin: Begin) -> bytes:
    """ValueError where the id is not ASCII, or body and id are too long."""
    flags = (_WEBSOCKET if begin.websocket else 0) | (_HAS_BODY if begin.body is not None else 0)
    declared = -1 if begin.declared is None else min(begin.declared, _DECLARED_MAX)
    id = begin.id.encode("ascii")
    return pack(Kind.BEGIN, number, _BEGIN.pack(begin.connection, flags, declared, len(id)) + id + (begin.body or b""))


def begin(body: bytes) -> Begin:
    """What `pack_begin` was given."""
    if len(body) < _BEGIN.size:
        raise ExchangeError("a beginning is cut short")
    connection, flags, declared, id_bytes = _BEGIN.unpack_from(body)
    start = _BEGIN.size + id_bytes
    id, content = body[_BEGIN.size : start], body[start:]
    if flags & ~(_WEBSOCKET | _HAS_BODY) or declared < -1 or len(id) != id_bytes or not id.isascii():
        raise ExchangeError("a beginning does not have the right form")
    if len(content) > PIECE_BYTES_MAX or (content and not flags & _HAS_BODY):
        raise ExchangeError("a beginning has a body that it may not have")
    return Begin(
        connection,
        bool(flags & _WEBSOCKET),
        None if declared < 0 else declared,
        id.decode("ascii"),
        content if flags & _HAS_BODY else None,
    )


def address(body: bytes) -> str:
    """The body of PLACE."""
    text = body.decode("ascii", "replace")
    if _ADDRESS.fullmatch(text) is None:
        raise ExchangeError("this is no address")
    return text


def pack_certificate(number: int, der: bytes) -> bytes:
    """CERTIFICATE. ValueError where it is too large."""
    if len(der) > CERTIFICATE_BYTES_MAX:
        raise ValueError("a certificate is too large")
    return pack(Kind.CERTIFICATE, number, der)


def certificate(body: bytes) -> bytes:
    """The body of CERTIFICATE; nobody has looked into it."""
    if not 0 < len(body) <= CERTIFICATE_BYTES_MAX:
        raise ExchangeError(f"a certificate of {len(body)} bytes")
    return body


def pack_count(number: int, count: int) -> bytes:
    """SENT."""
    return pack(Kind.SENT, number, _COUNT.pack(count))


def count(body: bytes) -> int:
    """The body of SENT: 1 or more."""
    found = _number(_COUNT, body)
    if not found:
        raise ExchangeError("nothing was sent")
    return found


def pack_said(number: int, said: Said) -> bytes:
    """MESSAGE."""
    flags = (_LAST if said.last else 0) | (_TEXT if said.text else 0) | (_CLOSED if said.closed else 0)
    flags |= _TOO_LARGE if said.too_large else 0
    return pack(Kind.MESSAGE, number, bytes([flags]) + said.piece)


def said(body: bytes) -> Said:
    """The body of MESSAGE."""
    flags, piece = _flagged(body, _LAST | _TEXT | _CLOSED | _TOO_LARGE)
    if flags & (_CLOSED | _TOO_LARGE) and (flags & ~_TOO_LARGE != _CLOSED | _LAST or piece):
        raise ExchangeError("a WebSocket that is closed says something")
    return Said(bool(flags & _LAST), bool(flags & _TEXT), bool(flags & _CLOSED), piece, bool(flags & _TOO_LARGE))


def body_fault(body: bytes) -> BodyFault:
    """The body of BODY_FAILED."""
    return BodyFault(_one_of(BodyFault, body))


def nothing(body: bytes) -> None:
    """The body of a message that has none."""
    if body:
        raise ExchangeError(f"{len(body)} bytes follow a message that has none")


# ---- both ways


def pack_piece(kind: Kind, number: int, piece: bytes, *, last: bool) -> bytes:
    """BODY, MORE, TEXT."""
    return pack(kind, number, (b"\x01" if last else b"\0") + piece)


def piece(body: bytes) -> tuple[bytes, bool]:
    """The body of BODY, MORE or TEXT, and whether it is the last."""
    flags, content = _flagged(body, _LAST)
    return content, bool(flags)


def pieces(content: bytes) -> list[bytes]:
    """What `content` is cut into; one piece at least."""
    if len(content) <= PIECE_BYTES_MAX:
        return [content]
    return [content[start : start + PIECE_BYTES_MAX] for start in range(0, len(content), PIECE_BYTES_MAX)]


def pack_number(kind: Kind, number: int, value: int) -> bytes:
    """READ_BODY, OPEN_WEBSOCKET."""
    return pack(kind, number, _LIMIT.pack(value))


def number_of(body: bytes) -> int:
    """The body of READ_BODY or OPEN_WEBSOCKET."""
    return _number(_LIMIT, body)


# ---- gateway to worker


def pack_answer(number: int, answer: Answer) -> bytes:
    """REPLY. ValueError where there is no form for its fields."""
    content_type, fields = answer.content_type.encode("utf-8"), _lines(answer.fields)
    head = _REPLY.pack(answer.status, _LAST if answer.last else 0, len(content_type), len(fields))
    return pack(Kind.REPLY, number, head + content_type + fields + answer.piece)


def answer(body: bytes) -> Answer:
    """The body of REPLY."""
    if len(body) < _REPLY.size:
        raise ExchangeError("an answer is cut short")
    status, flags, type_bytes, fields_bytes = _REPLY.unpack_from(body)
    middle = _REPLY.size + type_bytes
    end = middle + fields_bytes
    if flags & ~_LAST or len(body) < end or len(body) - end > PIECE_BYTES_MAX:
        raise ExchangeError("an answer does not have the right form")
    return Answer(
        _status(status), bool(flags), _text(body[_REPLY.size : middle]), _fields(body[middle:end]), body[end:]
    )


def pack_opening(number: int, status: int, fields: Mapping[str, str]) -> bytes:
    """OPEN_STREAM. ValueError where there is no form for its fields."""
    return pack(Kind.OPEN_STREAM, number, _STATUS.pack(status) + _lines(fields))


def opening(body: bytes) -> tuple[int, dict[str, str]]:
    """The status and the fields of OPEN_STREAM."""
    if len(body) < _STATUS.size:
        raise ExchangeError("an opening is cut short")
    return _status(_STATUS.unpack_from(body)[0]), _fields(body[_STATUS.size :])


def pack_close(number: int, code: int, reason: str) -> bytes:
    """CLOSE. ValueError where a close frame has no room for the reason."""
    text = reason.encode("utf-8")
    if len(text) > REASON_BYTES_MAX:
        raise ValueError("a reason is too long")
    return pack(Kind.CLOSE, number, _STATUS.pack(code) + text)


def close(body: bytes) -> tuple[int, str]:
    """The code and the reason of CLOSE."""
    if not _STATUS.size <= len(body) <= _STATUS.size + REASON_BYTES_MAX:
        raise ExchangeError("a closing does not have the right form")
    return _STATUS.unpack_from(body)[0], _text(body[_STATUS.size :])


def verdict(body: bytes) -> Verdict:
    """The body of PLACED."""
    return Verdict(_one_of(Verdict, body))


def failed(body: bytes) -> bool:
    """The body of FAULT."""
    if body not in (b"\0", b"\x01"):
        raise ExchangeError("a fault does not have the right form")
    return body == b"\x01"


# ---- parts of bodies


def _lines(fields: Mapping[str, str]) -> bytes:
    if not fields:
        return b""
    text = "\n".join([part for field in fields.items() for part in field])
    if text.count("\n") != 2 * len(fields) - 1:
        raise ValueError("a field has a line feed in it")
    lines = text.encode("utf-8", "surrogateescape")
    if len(lines) > FIELDS_BYTES_MAX:
        raise ValueError("the fields of an answer are too large")
    return lines


def _fields(lines: bytes) -> dict[str, str]:
    if not lines:
        return {}
    if len(lines) > FIELDS_BYTES_MAX:
        raise ExchangeError("the fields of an answer are too large")
    parts = lines.decode("utf-8", "surrogateescape").split("\n")
    if len(parts) % 2:
        raise ExchangeError("a field of an answer has no value")
    return dict(zip(parts[::2], parts[1::2], strict=True))


def _text(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ExchangeError("a text is not UTF-8") from error


def _status(value: int) -> int:
    if not 100 <= value <= 999:
        raise ExchangeError(f"{value} is no status")
    return value


def _flagged(body: bytes, known: int) -> tuple[int, bytes]:
    if not body or body[0] & ~known or len(body) - 1 > PIECE_BYTES_MAX:
        raise ExchangeError("a piece does not have the right form")
    return body[0], body[1:]


def _number(form: struct.Struct, body: bytes) -> int:
    if len(body) != form.size:
        raise ExchangeError(f"a number of {len(body)} bytes")
    found: int = form.unpack(body)[0]
    return found


def _one_of(kind: type[enum.IntEnum], body: bytes) -> int:
    if len(body) != 1 or body[0] not in kind._value2member_map_:
        raise ExchangeError(f"this is no {kind.__name__}")
    return body[0]
