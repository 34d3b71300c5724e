"""The codec: one form for each value, and an error of ours for all other bytes."""

from __future__ import annotations

import dataclasses
import enum
import math
import time
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runagentd.names import AgentId
from runagentd.wire import record
from runagentd.wire.record import RecordError

BYTES_MAX = 4096


class Colour(enum.StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    x: int
    y: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """One field of each kind that a record can have."""

    visible: bool
    layers: int
    scale: float
    raw: bytes
    title: str
    colour: Colour
    origin: Point | None
    points: tuple[Point, ...]
    tags: tuple[str, ...]
    owner: AgentId


@dataclass(frozen=True, slots=True, kw_only=True)
class Positive:
    number: int

    def __post_init__(self) -> None:
        if self.number <= 0:
            raise ValueError("not positive")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutable:
    items: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Maybe:
    number: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Many:
    items: tuple[str, ...]


SAMPLE = Drawing(
    visible=False,
    layers=0,
    scale=0.0,
    raw=b"",
    title="t",
    colour=Colour.RED,
    origin=Point(x=1, y=2),
    points=(Point(x=3, y=4),),
    tags=("a", "b"),
    owner=AgentId("me"),
)

INT64 = st.integers(-(2**63), 2**63 - 1)
POINTS = st.builds(Point, x=INT64, y=INT64)
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
DRAWINGS = st.builds(
    Drawing,
    visible=st.booleans(),
    layers=INT64,
    scale=st.floats(allow_nan=False),
    raw=st.binary(max_size=20),
    title=TEXT,
    colour=st.sampled_from(Colour),
    origin=st.none() | POINTS,
    points=st.lists(POINTS, max_size=4).map(tuple),
    tags=st.lists(TEXT, max_size=4).map(tuple),
    owner=TEXT.map(AgentId),
)


def test_the_form_of_a_record_is_its_fields_in_order() -> None:
    """Literal bytes: whoever changes the form changes this test."""
    drawing = Drawing(
        visible=True,
        layers=-2,
        scale=1.5,
        raw=b"\x00\xff",
        title="grün",
        colour=Colour.BLUE,
        origin=None,
        points=(Point(x=1, y=256),),
        tags=("a", ""),
        owner=AgentId("me"),
    )
    assert record.encode(drawing) == (
        b"\x01"
        b"\xff\xff\xff\xff\xff\xff\xff\xfe"
        b"\x3f\xf8\x00\x00\x00\x00\x00\x00"
        b"\x00\x00\x00\x02\x00\xff"
        b"\x00\x00\x00\x05gr\xc3\xbcn"
        b"\x00\x00\x00\x04blue"
        b"\x00"
        b"\x00\x00\x00\x01" + b"\x00\x00\x00\x00\x00\x00\x00\x01" + b"\x00\x00\x00\x00\x00\x00\x01\x00"
        b"\x00\x00\x00\x02" + b"\x00\x00\x00\x01a" + b"\x00\x00\x00\x00"
        b"\x00\x00\x00\x02me"
    )


def test_an_optional_field_that_is_there_has_a_one_before_it() -> None:
    """None is one zero byte; a value is a one and the value."""
    assert record.encode(Maybe(number=7)) == b"\x01\x00\x00\x00\x00\x00\x00\x00\x07"
    assert record.encode(Maybe(number=None)) == b"\x00"


@given(DRAWINGS)
def test_what_was_encoded_is_decoded_to_the_same_value(drawing: Drawing) -> None:
    """Every value survives, the largest and smallest numbers and non-ASCII text too."""
    assert record.decode(Drawing, record.encode(drawing), bytes_max=BYTES_MAX) == drawing


def test_not_a_number_survives() -> None:
    """NaN is a double like any other (it only is not equal to itself)."""
    encoded = record.encode(dataclasses.replace(SAMPLE, scale=math.nan))
    assert math.isnan(record.decode(Drawing, encoded, bytes_max=BYTES_MAX).scale)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_record_or_a_record_error(data: bytes) -> None:
    """No other exception may come out of bytes that a stranger wrote."""
    try:
        value = record.decode(Drawing, data, bytes_max=BYTES_MAX)
    except RecordError:
        return
    assert isinstance(value, Drawing)


@given(DRAWINGS, st.data())
def test_a_damaged_record_is_a_record_or_a_record_error(drawing: Drawing, data: st.DataObject) -> None:
    """One byte changed anywhere in a good record: still nothing but a value or our error."""
    encoded = bytearray(record.encode(drawing))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    try:
        record.decode(Drawing, bytes(encoded), bytes_max=BYTES_MAX)
    except RecordError:
        pass


@given(DRAWINGS)
def test_there_is_one_encoding_of_a_value(drawing: Drawing) -> None:
    """What decodes encodes to the very same bytes, so digests of records mean something."""
    encoded = record.encode(drawing)
    assert record.encode(record.decode(Drawing, encoded, bytes_max=BYTES_MAX)) == encoded


def test_every_shorter_or_longer_record_is_refused() -> None:
    """Each prefix ends too early; one byte more follows the record."""
    encoded = record.encode(SAMPLE)
    for size in range(len(encoded)):
        with pytest.raises(RecordError):
            record.decode(Drawing, encoded[:size], bytes_max=BYTES_MAX)
    with pytest.raises(RecordError, match=r"^bytes follow the record$"):
        record.decode(Drawing, encoded + b"\x00", bytes_max=BYTES_MAX)


def test_a_record_larger_than_its_bound_is_refused_unread() -> None:
    """The bound is checked before the first field."""
    with pytest.raises(RecordError, match=r"^a record of 17 bytes is larger than 16$"):
        record.decode(Point, bytes(17), bytes_max=16)


def test_a_count_that_cannot_be_true_costs_nothing() -> None:
    """Four billion items are refused by the size of what follows, not by trying."""
    started = time.perf_counter()
    with pytest.raises(RecordError, match=r"^4294967295 items do not fit into the record$"):
        record.decode(Many, b"\xff\xff\xff\xff" + bytes(64), bytes_max=BYTES_MAX)
    assert time.perf_counter() - started < 0.1


def test_a_full_datagram_of_the_smallest_items_is_read_in_bounded_time() -> None:
    """512 KiB of empty texts, the worst that the admin socket can carry."""
    data = (131071).to_bytes(4, "big") + bytes(4 * 131071)
    started = time.perf_counter()
    assert record.decode(Many, data, bytes_max=512 * 1024).items == ("",) * 131071
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize(
    ("field", "bad", "sentence"),
    [
        (0, b"\x02", "2 is not a boolean"),
        (4, b"\x00\x00\x00\x01\xff", "a text is not UTF-8"),
        (4, b"\x00\x00\x00\x03\xed\xa0\x80", "a text is not UTF-8"),  # a lone surrogate
        (5, b"\x00\x00\x00\x03RED", "'RED' is not a Colour"),
        (6, b"\x07", "7 is not a boolean"),
        (3, b"\x7f\xff\xff\xff", "the record ends too early"),
    ],
)
def test_a_wrong_field_is_named(field: int, bad: bytes, sentence: str) -> None:
    """The fields before it are right, so the error is about this one."""
    right = [
        b"\x01",
        bytes(8),
        bytes(8),
        bytes(4),
        bytes(4),
        b"\x00\x00\x00\x03red",
        b"\x00",
        bytes(4),
        bytes(4),
        bytes(4),
    ]
    with pytest.raises(RecordError) as caught:
        record.decode(Drawing, b"".join(right[:field]) + bad, bytes_max=BYTES_MAX)
    assert str(caught.value) == sentence


def test_a_class_that_refuses_its_values_is_a_record_error() -> None:
    """ValueError of __post_init__ becomes RecordError on the reading side."""
    with pytest.raises(RecordError, match=r"^not positive$"):
        record.decode(Positive, bytes(8), bytes_max=8)


@pytest.mark.parametrize(
    "change",
    [
        {"visible": 1},
        {"layers": True},
        {"layers": 1.0},
        {"scale": 1},
        {"raw": "text"},
        {"raw": 5},
        {"title": b"bytes"},
        {"origin": "nowhere"},
        {"points": (Colour.RED,)},
    ],
    ids=repr,
)
def test_a_field_of_another_type_is_not_encoded(change: dict[str, Any]) -> None:  # Any: wrong on purpose
    """A mistake of ours is TypeError where it is made, not RecordError far away."""
    with pytest.raises(TypeError, match=r"^expected "):
        record.encode(dataclasses.replace(SAMPLE, **change))


@pytest.mark.parametrize(
    "change", [{"layers": 2**63}, {"layers": -(2**63) - 1}, {"title": "\ud800"}, {"colour": "red!"}]
)
def test_a_value_without_a_form_is_not_encoded(change: dict[str, Any]) -> None:
    """ValueError: the type is right and the value has no form on the wire."""
    with pytest.raises(ValueError):
        record.encode(dataclasses.replace(SAMPLE, **change))


def test_a_type_without_a_form_is_refused_at_once() -> None:
    """No list, no dict, no Any: a message is made of the kinds in the module's docstring."""
    with pytest.raises(TypeError, match=r"^no record form for list\[int\]$"):
        record.encode(Mutable(items=[]))
