"""One JSON value as bytes: checked, and never parsed into objects.

Runs as: the gateway.
Reads from strangers: yes, arguments from clients and results from runners. Each function says yes or no to any bytes.
"""

from __future__ import annotations

import json
import re

import msgspec

from runagentd.wire.channel import ValueType

CANONICAL_BYTES_MAX = 16 * 1024

_RAW = msgspec.json.Decoder(msgspec.Raw)
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])

_TYPE_OF_FIRST_BYTE: dict[int, frozenset[ValueType]] = {
    ord('"'): frozenset({ValueType.STRING}),
    ord("{"): frozenset({ValueType.OBJECT}),
    ord("["): frozenset({ValueType.ARRAY}),
    ord("t"): frozenset({ValueType.BOOLEAN}),
    ord("f"): frozenset({ValueType.BOOLEAN}),
    ord("n"): frozenset({ValueType.NULL}),
    **{byte: frozenset({ValueType.INTEGER, ValueType.NUMBER}) for byte in b"-0123456789"},
}
_FRACTION = re.compile(rb"[.eE]")


class Value(msgspec.Struct, frozen=True):
    """What a function returned or yielded: its type in RunAgent's words, and JSON text without raw newlines."""

    type: ValueType
    body: bytes


def is_utf8(data: bytes) -> bool:
    """Whether `data` is UTF-8; msgspec passes over strings without looking (measured, 0.22)."""
    if data.isascii():
        return True
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def canonical(data: bytes) -> bytes:
    """The same bytes for JSON texts that mean the same: objects in order of their names, no space between.

    Numbers stay as they were written, so that 1 and 1.0 differ; so does all text that has a name twice in an object,
    and a long one: to make this of a MiB takes 0.3 s (measured 2026-11-28), in which nobody else is answered.
    """
    if len(data) > CANONICAL_BYTES_MAX:
        return data
    try:
        found = json.loads(data, parse_int=_Number, parse_float=_Number, object_pairs_hook=_members)
        pieces: list[str] = []
        _write(found, pieces)
        return "".join(pieces).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        return data


class _Number(str):
    """As it was written."""

    __slots__ = ()


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name stands twice")
    return members


def _write(value: object, pieces: list[str]) -> None:
    match value:
        case dict():
            pieces.append("{")
            for position, name in enumerate(sorted(value)):
                pieces.append(f"{',' if position else ''}{json.dumps(name)}:")
                _write(value[name], pieces)
            pieces.append("}")
        case list():
            pieces.append("[")
            for position, item in enumerate(value):
                if position:
                    pieces.append(",")
                _write(item, pieces)
            pieces.append("]")
        case _Number():
            pieces.append(value)
        case _:
            pieces.append(json.dumps(value))


def is_json(data: bytes) -> bool:
    """Whether `data` is one JSON value (RFC 8259) in UTF-8, not nested deeper than Python can follow."""
    try:
        _RAW.decode(data)
    except (msgspec.MsgspecError, RecursionError):
        return False
    return is_utf8(data)


def is_json_object(data: bytes) -> bool:
    """Whether `data` is one JSON object in UTF-8."""
    try:
        _OBJECT.decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return False
    return is_utf8(data)


def result_fault(type: ValueType, body: bytes) -> str | None:
    """What is wrong with a result, or None: it must be one JSON value on one line, of the type that was announced.

    A raw newline would end an event of a text/event-stream early and let an agent forge the next one.
    """
    if not body or type not in _TYPE_OF_FIRST_BYTE.get(body[0], ()):
        return "a value is not of the type that its header says"
    if type is ValueType.INTEGER and _FRACTION.search(body):
        return "a value is not of the type that its header says"
    if b"\n" in body or b"\r" in body:
        return "a value has a raw line break"
    if not is_json(body):
        return "a value is not JSON"
    return None
