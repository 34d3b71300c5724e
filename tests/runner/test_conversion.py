"""Arguments are converted by annotation as docs/values.md says, and refused where that would be a guess."""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import decimal
import enum
import pathlib
import uuid
from typing import Any, Literal, NamedTuple, NewType, NotRequired, Optional, TypedDict, Union

import pytest

from runagentd.runner.conversion import Converters
from runagentd.runner.scalars import Mismatch


class Colour(enum.Enum):
    RED = "red"
    TWO = 2


class Row(TypedDict):
    price: float
    note: NotRequired[str]


class Point(NamedTuple):
    x: int
    y: int = 0


@dataclasses.dataclass
class Address:
    city: str


@dataclasses.dataclass
class Person:
    name: str
    address: Address | None = None
    friends: list[Person] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a name is needed")


class Model:
    """The shape of pydantic's BaseModel, as far as it matters."""

    def __init__(self, price: float) -> None:
        self.price = price

    @classmethod
    def model_validate(cls, value: Any) -> Model:
        if not isinstance(value, dict) or not isinstance(value.get("price"), float):
            raise ModelError
        return cls(value["price"])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Model) and other.price == self.price

    __hash__ = None  # type: ignore[assignment]  # like a pydantic model's


class ModelError(ValueError):
    def errors(self) -> list[dict[str, Any]]:
        return [{"loc": ("price",), "msg": "Input should be a valid number"}]


UserId = NewType("UserId", int)
BOTH_DATES = datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.UTC)


def convert(annotation: Any, value: Any) -> Any:
    converter = Converters().of(annotation)
    return value if converter is None else converter(value, False)


@pytest.mark.parametrize(
    ("annotation", "value", "result"),
    [
        (str, "7", "7"),
        (int, 7, 7),
        (int, "7", 7),
        (int, "-12", -12),
        (float, 1, 1.0),
        (float, "1.5e3", 1500.0),
        (float, "7", 7.0),
        (bool, True, True),
        (bool, "false", False),
        (None, None, None),
        (Any, {"a": 1}, {"a": 1}),
        (object, 1, 1),
        (list, [1, "a"], [1, "a"]),
        (list[int], ["1", 2], [1, 2]),
        (collections.abc.Sequence[str], ["a"], ["a"]),
        (dict, {"a": 1}, {"a": 1}),
        (dict[int, float], {"7": 1}, {7: 1.0}),
        (collections.abc.Mapping[str, int], {"a": "1"}, {"a": 1}),
        (tuple, [1, 2], (1, 2)),
        (tuple[int, str], ["1", "a"], (1, "a")),
        (tuple[int, ...], ["1", "2"], (1, 2)),
        (tuple[()], [], ()),
        (set[int], ["1", 1], {1}),
        (frozenset, ["a"], frozenset({"a"})),
        (int | None, None, None),
        (int | None, "7", 7),
        (int | str, "7", "7"),
        (Union[str, int], 7, 7),  # noqa: UP007  (what older agents write)
        (Optional[int], "7", 7),  # noqa: UP045
        (float | int, 7, 7),
        (str | datetime.datetime, "2026-01-02", "2026-01-02"),
        (datetime.datetime | str, "2026-01-02", "2026-01-02"),
        (datetime.date | None, "2026-01-02", datetime.date(2026, 1, 2)),
        (list[int] | int, ["1"], [1]),
        (Literal["a", 7], "a", "a"),
        (Literal["a", 7], "7", 7),
        (Literal[Colour.RED], "red", Colour.RED),
        (Colour, "red", Colour.RED),
        (Colour, "RED", Colour.RED),
        (Colour, "2", Colour.TWO),
        (Row, {"price": 1}, {"price": 1.0}),
        (Point, [1, "2"], Point(1, 2)),
        (Point, {"x": 1}, Point(1, 0)),
        (Address, {"city": "Rome"}, Address("Rome")),
        (Person, {"name": "A", "address": {"city": "Rome"}}, Person("A", Address("Rome"))),
        (Person, {"name": "A", "friends": [{"name": "B"}]}, Person("A", None, [Person("B")])),
        (Model, {"price": 1.5}, Model(1.5)),
        (list[Model], [{"price": 1.5}], [Model(1.5)]),
        (UserId, "7", 7),
        (datetime.datetime, "2026-01-02T03:04:00Z", BOTH_DATES),
        (datetime.date, "2026-01-02", datetime.date(2026, 1, 2)),
        (datetime.time, "03:04", datetime.time(3, 4)),
        (datetime.timedelta, 60, datetime.timedelta(minutes=1)),
        (uuid.UUID, "00000000-0000-0000-0000-000000000001", uuid.UUID(int=1)),
        (decimal.Decimal, "0.10", decimal.Decimal("0.10")),
        (decimal.Decimal, 0.1, decimal.Decimal("0.1")),
        (pathlib.Path, "a/b", pathlib.Path("a/b")),
        (bytes, "00ff", b"\x00\xff"),
        (collections.abc.Callable, "anything", "anything"),
        (Exception, {"a": 1}, {"a": 1}),
    ],
)
def test_a_value_becomes_what_the_annotation_asks_for(annotation: Any, value: Any, result: Any) -> None:
    """With the type that was asked for: 1.0 for a float, not 1."""
    found = convert(annotation, value)
    assert found == result and type(found) is type(result)


@pytest.mark.parametrize(
    ("annotation", "value", "pointer", "what"),
    [
        (str, 7, "", "expected a string, not the number 7"),
        (int, True, "", "expected an integer, not true"),
        (int, "7.0", "", 'expected an integer, not "7.0"'),
        (int, 7.0, "", "expected an integer, not the number 7.0"),
        (int, " 7", "", 'expected an integer, not " 7"'),
        (int, "1_000", "", 'expected an integer, not "1_000"'),
        (int, "٧", "", 'expected an integer, not "٧"'),
        (int, "9" * 5000, "", f'expected an integer, not "{"9" * 40}…"'),
        (float, True, "", "expected a number, not true"),
        (float, "nan", "", 'expected a number, not "nan"'),
        (float, "1e999", "", 'expected a number, not "1e999"'),
        (float, 10**400, "", "expected a number, not a large number"),
        (bool, 1, "", "expected true or false, not the number 1"),
        (bool, "True", "", 'expected true or false, not "True"'),
        (None, "", "", 'expected null, not ""'),
        (list[int], {}, "", "expected an array, not an object"),
        (list[int], [1, "x"], "/1", 'expected an integer, not "x"'),
        (dict[str, list[int]], {"a": [1, None]}, "/a/1", "expected an integer, not null"),
        (dict[int, int], {"x": 1}, "/x", 'expected an integer, not "x"'),
        (tuple[int, str], [1], "", "expected an array of 2, not an array"),
        (tuple[int, str], [1, 2], "/1", "expected a string, not the number 2"),
        (set, [[1]], "", "expected an array of strings, numbers or booleans, not an array"),
        (int | None, "x", "", 'expected an integer or null, not "x"'),
        (int | list[int], ["x"], "/0", 'expected an integer, not "x"'),
        (Literal["a", 7], "b", "", 'expected "a" or the number 7, not "b"'),
        (Colour, "blue", "", 'expected "red" or the number 2, not "blue"'),
        (Row, {"price": "x"}, "/price", 'expected a number, not "x"'),
        (Row, {}, "/price", "Row needs this field"),
        (Row, {"price": 1, "nots": "x"}, "/nots", 'Row has no such field; did you mean "note"?'),
        (Person, {"name": "A", "address": {}}, "/address/city", "Address needs this field"),
        (Person, {"name": ""}, "", "Person: a name is needed"),
        (Person, "A", "", 'expected an object (Person), not "A"'),
        (list[Model], [{"price": 1.5}, {"price": "x"}], "/1/price", "Model: Input should be a valid number"),
        (datetime.date, "yesterday", "", 'expected a date as ISO 8601 text, not "yesterday"'),
        (uuid.UUID, "1", "", 'expected a UUID as text, not "1"'),
        (bytes, "xyz", "", 'expected a string of hexadecimal digits, not "xyz"'),
        (decimal.Decimal, "x", "", 'expected a decimal number, not "x"'),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_place_and_expectation(
    annotation: Any, value: Any, pointer: str, what: str
) -> None:
    """The innermost place that is wrong is the one that is named."""
    with pytest.raises(Mismatch) as caught:
        convert(annotation, value)
    assert "".join(f"/{part}" for part in reversed(caught.value.parts)) == pointer
    assert caught.value.what == what
