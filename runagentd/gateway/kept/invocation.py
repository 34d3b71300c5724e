"""What is kept of a call: its facts, cut to a bound; its arguments and results only where the policy asks for them.

Runs as: the gateway. Pure.
Reads from strangers: texts that callers chose (ids, tags, User-Agent), and arguments and results, which are not parsed
but for the border between positional and keyword arguments.
"""

from __future__ import annotations

import enum

import msgspec

from runagentd.gateway.requests import CallRecord

CONTENT_BYTES_MAX = 64 * 1024
"""Of the arguments of a call, and as much of its results: more is not cut, for half a JSON text is none."""
TEXT_CHARACTERS_MAX = 255
DETAIL_CHARACTERS_MAX = 2048

GOOD = "OK"


class Status(enum.StrEnum):
    """RunAgent's three words for where a call is."""

    PENDING = "pending"
    COMPLETED = "completed"
    FAILED = "failed"


_ARGUMENTS = msgspec.json.Decoder(tuple[msgspec.Raw, msgspec.Raw])


class Row(msgspec.Struct, frozen=True, array_like=True):
    """The facts of one call, as they lie in the database. Times are microseconds, `at` is since the epoch."""

    at: int
    micros: int
    queue_micros: int | None
    outcome: str
    """OK, or the code of the error"""
    cause: str | None
    detail: str | None
    """what was wrong: the error's title; its message only where contents are kept, for it may quote them"""
    tag: str | None
    door: str
    peer: str
    instance: str | None
    request_bytes: int | None
    result_bytes: int
    chunks: int
    client: str | None
    """User-Agent"""
    contents: bool
    trace: str | None = None
    """the id of its trace, where that is not the request's"""


class Kept(msgspec.Struct, frozen=True):
    """One call as it is found again."""

    id: str
    agent: str
    subject: str
    row: Row
    input: bytes | None = None
    output: bytes | None = None
    """both JSON"""

    @property
    def status(self) -> Status:
        """Whether it went well."""
        return Status.COMPLETED if self.row.outcome == GOOD else Status.FAILED


class Contents:
    """Collects the arguments and results of one call while they pass."""

    __slots__ = ("_bytes", "_single", "_values", "input")

    def __init__(self, arguments: bytes, *, single: bool) -> None:
        self.input = _input(arguments)
        self._single = single
        self._values: list[bytes] = []
        self._bytes = 0

    def delivered(self, value: bytes) -> None:
        """A result or a chunk, which is JSON."""
        self._bytes += len(value) + 1
        if self._bytes <= CONTENT_BYTES_MAX:
            self._values.append(value)
        else:
            self._values.clear()

    @property
    def size(self) -> int:
        """How many bytes it takes by now."""
        return len(self.input) + min(self._bytes, CONTENT_BYTES_MAX)

    def output(self) -> bytes | None:
        """The result, or an array of chunks; None where nothing came."""
        if self._bytes > CONTENT_BYTES_MAX:
            return note(self._bytes)
        if self._single:
            return self._values[0] if self._values else None
        return b"[%b]" % b",".join(self._values)


def note(size: int) -> bytes:
    """In place of a content that is too large to be kept, or to be shown among others."""
    return b'{"omitted":"%d bytes"}' % size


def _input(arguments: bytes) -> bytes:
    if len(arguments) > CONTENT_BYTES_MAX:
        return note(len(arguments))
    args, kwargs = _ARGUMENTS.decode(arguments)
    return b'{"input_args":%b,"input_kwargs":%b}' % (bytes(args), bytes(kwargs))


def row_of(record: CallRecord, *, contents: bool) -> Row:
    """What is kept of a record."""
    queue, trace = record.queue_seconds, record.trace.id
    # By position: with names it takes three times as long, for each call there is.
    return Row(
        int(record.started_unix * 1e6),
        int(record.seconds * 1e6),
        None if queue is None else int(queue * 1e6),
        record.outcome,
        record.cause,
        None if record.detail is None else text(record.detail, DETAIL_CHARACTERS_MAX),
        None if record.tag is None else text(record.tag),
        record.door,
        record.peer[:64],
        record.instance,
        record.request_bytes,
        record.result_bytes,
        record.chunks,
        None if record.client is None else client(record.client),
        contents,
        None if trace == record.request_id.replace("-", "") else trace,
    )


def text(value: str, characters_max: int = TEXT_CHARACTERS_MAX) -> str:
    """Cut, and without halves of surrogate pairs, which have no form in UTF-8."""
    value = value[:characters_max]
    return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")


def client(field: str) -> str | None:
    """A User-Agent, where it is one (RFC 9110, section 10.1.5) that can be shown."""
    field = field[:TEXT_CHARACTERS_MAX]
    return field if field.isascii() and field.isprintable() and field else None
