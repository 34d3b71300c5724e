"""Frozen dataclasses as bytes and back: one small, strict, bounded codec for every message between processes.

Runs as: every process, the launcher and the runner included (standard library only).
Reads from strangers: yes. `decode` is what stands between their bytes and a value: anything that is not exactly
one value of the class asked for raises `RecordError`, and never another exception.

Form: a dataclass is its fields in order. bool and int are 1 and 8 bytes (big-endian, signed); float is an IEEE 754
double; str and bytes are a 4-byte length and that many bytes; a StrEnum is its text; `T | None` is one byte 0 or 1,
then T; `tuple[T, ...]` is a 4-byte count, then the items. Nothing may follow the last field.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import struct
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")

_LENGTH = struct.Struct("!I")
_INT = struct.Struct("!q")
_FLOAT = struct.Struct("!d")

_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1


class RecordError(ValueError):
    """Bytes that are not the record that was expected."""


class _Reader:
    __slots__ = ("data", "position")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def take(self, size: int) -> bytes:
        end = self.position + size
        if end > len(self.data):
            raise RecordError("the record ends too early")
        piece = self.data[self.position : end]
        self.position = end
        return piece


# Any: the codec is generic over field types; each pair below handles exactly one of them.
_Write = Callable[[Any, list[bytes]], None]
_Read = Callable[[_Reader], Any]


def encode(value: object) -> bytes:
    """The bytes of one dataclass instance; TypeError where a field does not have its declared type.

    ValueError where it has, and still has no form: an int beyond 64 bits, a text with a lone surrogate.
    """
    pieces: list[bytes] = []
    kind: Any = type(value)  # Any: mypy takes type[object] for something without a hash
    _codec(kind)[0](value, pieces)
    return b"".join(pieces)


def encode_numbered(number: int, value: object) -> bytes:
    """A datagram for who has to tell several kinds of records apart: the number of the kind, then the record."""
    return bytes([number]) + encode(value)


def decode_numbered(kinds: Mapping[int, type[T]], data: bytes, *, what: str, bytes_max: int) -> T:
    """What `encode_numbered` made of one of `kinds`; RecordError, which says "not `what`", for anything else."""
    if not data or data[0] not in kinds:
        raise RecordError(f"not {what}")
    return decode(kinds[data[0]], data[1:], bytes_max=bytes_max)


def decode(cls: type[T], data: bytes, *, bytes_max: int) -> T:
    """The one value of `cls` that `data` is; RecordError for anything else, or for more than `bytes_max` bytes."""
    if len(data) > bytes_max:
        raise RecordError(f"a record of {len(data)} bytes is larger than {bytes_max}")
    reader = _Reader(data)
    kind: Any = cls  # Any: as in `encode`
    value: T = _codec(kind)[1](reader)
    if reader.position != len(data):
        raise RecordError("bytes follow the record")
    return value


@functools.cache
def _codec(kind: Any) -> tuple[_Write, _Read]:
    if kind in _PLAIN:
        return _PLAIN[kind]
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _dataclass_codec(kind)
    if isinstance(kind, type) and issubclass(kind, enum.StrEnum):
        return _enum_codec(kind)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return _tuple_codec(arguments[0])
    if origin in (typing.Union, types.UnionType) and len(arguments) == 2 and arguments[1] is type(None):
        return _optional_codec(arguments[0])
    supertype = getattr(kind, "__supertype__", None)  # a NewType is its base on the wire
    if supertype is not None:
        return _codec(supertype)
    raise TypeError(f"no record form for {kind!r}")


def _write_bool(value: Any, out: list[bytes]) -> None:
    if type(value) is not bool:
        raise TypeError(f"expected bool, not {value!r}")
    out.append(b"\x01" if value else b"\x00")


def _read_bool(reader: _Reader) -> bool:
    byte = reader.take(1)
    if byte not in (b"\x00", b"\x01"):
        raise RecordError(f"{byte[0]} is not a boolean")
    return byte == b"\x01"


def _write_int(value: Any, out: list[bytes]) -> None:
    if type(value) is not int:
        raise TypeError(f"expected int, not {value!r}")
    if not _INT_MIN <= value <= _INT_MAX:
        raise ValueError("an int of a record has 64 bits")
    out.append(_INT.pack(value))


def _read_int(reader: _Reader) -> int:
    number: int = _INT.unpack(reader.take(8))[0]
    return number


def _write_float(value: Any, out: list[bytes]) -> None:
    if type(value) is not float:
        raise TypeError(f"expected float, not {value!r}")
    out.append(_FLOAT.pack(value))


def _read_float(reader: _Reader) -> float:
    number: float = _FLOAT.unpack(reader.take(8))[0]
    return number


def _write_bytes(value: Any, out: list[bytes]) -> None:
    if not isinstance(value, bytes):
        raise TypeError(f"expected bytes, not {value!r:.80}")
    out.append(_LENGTH.pack(len(value)))
    out.append(value)


def _read_bytes(reader: _Reader) -> bytes:
    return reader.take(_LENGTH.unpack(reader.take(4))[0])


def _write_str(value: Any, out: list[bytes]) -> None:
    if not isinstance(value, str):
        raise TypeError(f"expected str, not {value!r}")
    _write_bytes(value.encode("utf-8"), out)


def _read_str(reader: _Reader) -> str:
    try:
        return _read_bytes(reader).decode("utf-8")
    except UnicodeDecodeError as error:
        raise RecordError("a text is not UTF-8") from error


_PLAIN: dict[Any, tuple[_Write, _Read]] = {
    bool: (_write_bool, _read_bool),
    int: (_write_int, _read_int),
    float: (_write_float, _read_float),
    bytes: (_write_bytes, _read_bytes),
    str: (_write_str, _read_str),
}


def _dataclass_codec(kind: Any) -> tuple[_Write, _Read]:
    hints = typing.get_type_hints(kind)
    codecs = [(field.name, *_codec(hints[field.name])) for field in dataclasses.fields(kind)]

    def write(value: Any, out: list[bytes]) -> None:
        if type(value) is not kind:
            raise TypeError(f"expected {kind.__name__}, not {value!r}")
        for name, write_field, _ in codecs:
            write_field(getattr(value, name), out)

    def read(reader: _Reader) -> Any:
        try:
            return kind(**{name: read_field(reader) for name, _, read_field in codecs})
        except RecordError:
            raise
        except ValueError as error:  # a __post_init__ that refuses what it was given
            raise RecordError(str(error)) from error

    return write, read


def _enum_codec(kind: type[enum.StrEnum]) -> tuple[_Write, _Read]:
    def write(value: Any, out: list[bytes]) -> None:
        _write_str(kind(value).value, out)

    def read(reader: _Reader) -> enum.StrEnum:
        text = _read_str(reader)
        try:
            return kind(text)
        except ValueError as error:
            raise RecordError(f"{text!r:.80} is not a {kind.__name__}") from error

    return write, read


def _tuple_codec(item: Any) -> tuple[_Write, _Read]:
    write_item, read_item = _codec(item)

    def write(value: Any, out: list[bytes]) -> None:
        out.append(_LENGTH.pack(len(value)))
        for element in value:
            write_item(element, out)

    def read(reader: _Reader) -> tuple[Any, ...]:
        count: int = _LENGTH.unpack(reader.take(4))[0]
        # Every item takes at least one byte, so a count can never ask for more memory than the record has bytes.
        if count > len(reader.data) - reader.position:
            raise RecordError(f"{count} items do not fit into the record")
        return tuple(read_item(reader) for _ in range(count))

    return write, read


def _optional_codec(item: Any) -> tuple[_Write, _Read]:
    write_item, read_item = _codec(item)

    def write(value: Any, out: list[bytes]) -> None:
        _write_bool(value is not None, out)
        if value is not None:
            write_item(value, out)

    def read(reader: _Reader) -> Any:
        return read_item(reader) if _read_bool(reader) else None

    return write, read
