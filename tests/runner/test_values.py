"""Results become JSON by the table in docs/values.md: one row, one case."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import ipaddress
import json
import pathlib
import sys
import types
import uuid
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runagentd.runner.values import Unserialisable, encode


class Colour(enum.Enum):
    RED = "red"
    BOTH = ("red", 1)
    ODD = object


class Level(enum.IntEnum):
    LOW = 1


class Point(NamedTuple):
    x: int
    y: int


@dataclasses.dataclass
class Order:
    price: decimal.Decimal
    _note: str = "kept: a field is a field"


class Plain:
    def __init__(self) -> None:
        self.name = "Ada"
        self._key = "hidden"


class Slotted:
    __slots__ = ("_key", "name")

    def __init__(self) -> None:
        self.name = "Ada"


class CrewOutput:
    """CrewAI's trap: to_dict() is empty, model_dump() has the content."""

    def to_dict(self) -> dict[str, Any]:
        return {}

    def model_dump(self) -> dict[str, Any]:
        return {"raw": "the answer"}


class BrokenDump:
    def model_dump(self) -> dict[str, Any]:
        raise RuntimeError("not today")

    def to_dict(self) -> dict[str, Any]:
        return {"raw": 1}


class OldModel:
    def dict(self) -> dict[str, Any]:
        return {"v": 1}


class Empty:
    def to_dict(self) -> dict[str, Any]:
        return {}


class Array:
    __slots__ = ()

    def tolist(self) -> list[int]:
        return [1, 2]


class NaT(datetime.datetime):
    """As pandas has it: a datetime, and not equal to itself."""

    def __eq__(self, other: object) -> bool:
        return False

    def __hash__(self) -> int:
        return 0

    def isoformat(self, sep: str = "T", timespec: str = "auto") -> str:
        return "NaT"


class C_NAType:
    """pandas' too, by its module and name."""

    def __str__(self) -> str:
        return "<NA>"


C_NAType.__module__ = "pandas._libs.missing"


class NAType(C_NAType):
    """What people see of it."""


@pytest.mark.parametrize(
    ("value", "type_name", "text"),
    [
        ("hi", "string", '"hi"'),
        ("é\n\r\x00", "string", '"é\\n\\r\\u0000"'),
        (7, "integer", "7"),
        (10**30, "integer", "1000000000000000000000000000000"),
        (0.5, "number", "0.5"),
        (True, "boolean", "true"),
        (None, "null", "null"),
        ([1, "a"], "array", '[1,"a"]'),
        ((1, (2,)), "array", "[1,[2]]"),
        ({"a": {"b": 1}}, "object", '{"a":{"b":1}}'),
        (float("nan"), "null", "null"),
        (float("inf"), "null", "null"),
        ([float("-inf")], "array", "[null]"),
        ({"a": float("nan")}, "object", '{"a":null}'),
        ({3, 1, 2}, "array", "[1,2,3]"),
        (frozenset({"b", "a"}), "array", '["a","b"]'),
        (collections.deque([1]), "array", "[1]"),
        (range(3), "array", "[0,1,2]"),
        ({"a": 1}.keys(), "array", '["a"]'),
        (collections.OrderedDict(b=1, a=2), "object", '{"b":1,"a":2}'),
        (types.MappingProxyType({"a": 1}), "object", '{"a":1}'),
        (datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC), "string", '"2026-01-02T03:04:05+00:00"'),
        (NaT(2026, 1, 2), "null", "null"),
        (NAType(), "null", "null"),
        (datetime.date(2026, 1, 2), "string", '"2026-01-02"'),
        (datetime.time(3, 4), "string", '"03:04:00"'),
        (datetime.timedelta(minutes=1), "number", "60.0"),
        (uuid.UUID(int=1), "string", '"00000000-0000-0000-0000-000000000001"'),
        (decimal.Decimal("0.10"), "string", '"0.10"'),
        (pathlib.PurePosixPath("a/b"), "string", '"a/b"'),
        (b"\x00\xff", "string", '"00ff"'),
        (bytearray(b"\x01"), "string", '"01"'),
        (Colour.RED, "string", '"red"'),
        (Colour.BOTH, "array", '["red",1]'),
        (Colour.ODD, "string", "\"<class 'object'>\""),
        (Level.LOW, "integer", "1"),
        (Point(1, 2), "object", '{"x":1,"y":2}'),
        (Order(decimal.Decimal("9.90")), "object", '{"price":"9.90","_note":"kept: a field is a field"}'),
        (Plain(), "object", '{"name":"Ada"}'),
        (Slotted(), "object", '{"name":"Ada"}'),
        (types.SimpleNamespace(a=1), "object", '{"a":1}'),
        (CrewOutput(), "object", '{"raw":"the answer"}'),
        (BrokenDump(), "object", '{"raw":1}'),
        (OldModel(), "object", '{"v":1}'),
        (Empty(), "object", "{}"),
        (ipaddress.ip_address("127.0.0.1"), "string", '"127.0.0.1"'),
        (fractions.Fraction(1, 2), "string", '"1/2"'),
        (Array(), "array", "[1,2]"),
        ({1: "a", None: "b", False: "c", 0.5: "d"}, "object", '{"1":"a","null":"b","false":"c","0.5":"d"}'),
        ({uuid.UUID(int=1): 1}, "object", '{"00000000-0000-0000-0000-000000000001":1}'),
        ({datetime.date(2026, 1, 2): 1, Colour.RED: 2}, "object", '{"2026-01-02":1,"red":2}'),
        ("a\ud800b", "string", '"a\ufffdb"'),
        ({"\udfff": ["\ud800"]}, "object", '{"\ufffd":["\ufffd"]}'),
    ],
    ids=lambda value: None if isinstance(value, str) and value.isidentifier() else "",
)
def test_each_kind_of_result_has_one_documented_form(value: object, type_name: str, text: str) -> None:
    """Type in RunAgent's words, and the JSON text."""
    assert encode(value) == (type_name, text.encode())


def cycle() -> list[Any]:
    one: list[Any] = [1]
    one.append({"again": one})
    return one


def nested(levels: int) -> list[Any]:
    one: list[Any] = []
    for _ in range(levels):
        one = [one]
    return one


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (cycle(), "the result has no JSON form: /1/again: it contains itself"),
        ({"a/b": [object()]}, "the result has no JSON form: /a~1b/0: an object of type object is not a value"),
        ([len], "the result has no JSON form: /0: an object of type builtin_function_or_method is not a value"),
        (int, "the result has no JSON form: the class int is not a value"),
        (sys, "the result has no JSON form: an object of type module is not a value"),
        ([iter([])], "the result has no JSON form: /0: an object of type list_iterator is not a value"),
        ({1: 1, "1": 2}, "the result has no JSON form: two keys become '1'"),
        ({(1, 2): 1}, "the result has no JSON form: a key is an object of type tuple, and JSON's are texts"),
        (dict.fromkeys(["\ud800", "\ud801"]), "the result has no JSON form: two keys become '\ufffd'"),
        (ValueError("x"), "the result has no JSON form: an object of type ValueError is not a value"),
    ],
    ids=["cycle", "object", "builtin", "class", "module", "iterator", "keys", "tuple-key", "surrogates", "exception"],
)
def test_what_has_no_json_form_is_refused_with_the_place(value: object, message: str) -> None:
    """Nothing is lost silently, and nothing becomes a repr()."""
    with pytest.raises(Unserialisable) as caught:
        encode(value)
    assert str(caught.value) == message


@pytest.mark.parametrize("odd", ["", "é\u20ac\U0001f600", '"', "\\", "\n", "\x00", "\x1f", "\x7f", "\u2028", "\ud800"])
def test_a_long_text_has_the_same_form_as_a_short_one(odd: str) -> None:
    """It is written in another way where nothing in it has to be escaped."""
    short, long = encode(odd + "x")[1], encode(odd + "x" * 5000)[1]
    assert long == short[:-1] + b"x" * 4999 + b'"'
    assert json.loads(long)[-5000:] == "x" * 5000


def test_nesting_is_bounded() -> None:
    """200 levels pass; more are refused, however many."""
    assert encode(nested(199))[0] == "array"
    for levels in (200, 100_000):
        with pytest.raises(Unserialisable, match="nested deeper than 200 levels"):
            encode(nested(levels))


def test_an_integer_of_more_digits_than_python_writes_is_refused() -> None:
    """4300 digits is Python's own bound; beyond it, writing takes quadratic time."""
    assert encode(10**4000)[0] == "integer"
    with pytest.raises(Unserialisable, match="a number is too large to write"):
        encode(10**5000)


def test_an_object_that_answers_to_every_name_is_not_taken_at_its_word() -> None:
    """Methods are looked up on the class: a mock has no model_dump there."""

    class Everything:
        def __getattr__(self, name: str) -> Any:
            return lambda: {"lie": name}

    with pytest.raises(Unserialisable):
        encode(Everything().anything)


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.dates(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner, inner),
))  # fmt: skip
def test_any_nested_value_is_one_line_of_utf8_or_refused(value: object) -> None:
    """No raw newline, valid UTF-8, and equal to itself when read and written again."""
    import json

    try:
        _, text = encode(value)
    except Unserialisable:
        return
    assert b"\n" not in text and b"\r" not in text
    assert encode(json.loads(text.decode("utf-8")))[1] == text
