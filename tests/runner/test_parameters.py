"""A caller's arguments are bound to the signature; the first wrong one is named by a JSON Pointer."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from runagentd.runner.parameters import Parameters, WrongArgument

if TYPE_CHECKING:
    from nowhere import Missing  # type: ignore[import-not-found]  # as an agent would


def plain(a: int, b: str = "x", *, c: float = 0.0) -> None: ...


def only(a: int, /, *, b: int) -> None: ...


def rest(a: int, *more: int, **named: float) -> None: ...


def unresolvable(a: Missing, b: int) -> Missing: ...


class Agent:
    def run(self, query: str) -> str:
        return query

    def __call__(self, query: int) -> int:
        return query


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "result"),
    [
        (plain, [1], {}, ([1], {})),
        (plain, ["7", "y"], {"c": 1}, ([7, "y"], {"c": 1.0})),
        (plain, [], {"b": "y", "a": "7"}, ([], {"b": "y", "a": 7})),
        (only, ["1"], {"b": "2"}, ([1], {"b": 2})),
        (rest, [1, "2", 3], {"x": 1}, ([1, 2, 3], {"x": 1.0})),
        (unresolvable, [{"any": "thing"}, "7"], {}, ([{"any": "thing"}, 7], {})),
        (Agent().run, ["q"], {}, (["q"], {})),
        (Agent(), ["7"], {}, ([7], {})),
        (functools.partial(plain, 1), [], {"b": "y"}, ([], {"b": "y"})),
        (lambda anything: None, [[1]], {}, ([[1]], {})),
        (lambda: None, [], {}, ([], {})),
    ],
)
def test_arguments_are_bound_and_converted(
    function: Callable[..., Any], args: list[Any], kwargs: dict[str, Any], result: tuple[Any, Any]
) -> None:
    """Positional and by name, for everything that can be called."""
    assert Parameters(function).bind(args, kwargs) == result


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "pointer", "what"),
    [
        (plain, ["x"], {}, "/input_args/0", 'expected an integer, not "x"'),
        (plain, [1], {"c": "y"}, "/input_kwargs/c", 'expected a number, not "y"'),
        (plain, [], {}, "/input_kwargs/a", 'the argument "a" is missing'),
        (plain, [], {"b": "y"}, "/input_kwargs/a", 'the argument "a" is missing'),
        (plain, [1], {"a": 2}, "/input_kwargs/a", 'the argument "a" is given twice, by position too'),
        (plain, [1], {"d": 2}, "/input_kwargs/d", 'the function has no argument "d"'),
        (Agent().run, [], {"qeury": "x"}, "/input_kwargs/qeury",
         'the function has no argument "qeury"; did you mean "query"?'),
        (Agent().run, [], {"a/b~c": "x"}, "/input_kwargs/a~1b~0c", 'the function has no argument "a/b~c"'),
        (plain, [1, "a", 2], {}, "/input_args/2", "the function takes 2 positional arguments, not 3"),
        (Agent(), [1, 2], {}, "/input_args/1", "the function takes 1 positional argument, not 2"),
        (lambda: None, [1], {}, "/input_args/0", "the function takes no positional arguments, not 1"),
        (only, [], {"a": 1, "b": 2}, "/input_kwargs/a", 'the argument "a" can only be given by position'),
        (only, [1], {}, "/input_kwargs/b", 'the argument "b" is missing'),
        (rest, [1, "x"], {}, "/input_args/1", 'expected an integer, not "x"'),
        (rest, [1], {"x": "y"}, "/input_kwargs/x", 'expected a number, not "y"'),
    ],
)  # fmt: skip
def test_the_first_wrong_argument_is_named(
    function: Callable[..., Any], args: list[Any], kwargs: dict[str, Any], pointer: str, what: str
) -> None:
    """Wrong, missing, unknown, given twice: each with the place in {"input_args": …, "input_kwargs": …}."""
    with pytest.raises(WrongArgument) as caught:
        Parameters(function).bind(args, kwargs)
    assert (caught.value.pointer, caught.value.what) == (pointer, what)


def test_parameters_are_described_for_people() -> None:
    """Name, kind, whether it must be given, and the annotation as its author wrote it."""
    described = Parameters(plain).described
    assert [(one.name, one.kind, one.required, one.type) for one in described] == [
        ("a", "positional_or_keyword", True, "int"),
        ("b", "positional_or_keyword", False, "str"),
        ("c", "keyword_only", False, "float"),
    ]
    assert Parameters(plain).returns == "None"
    assert Parameters(unresolvable).described[0].type is None


class Text(str):
    """Its JSON, its length and its comparison would be the agent's."""


@pytest.mark.parametrize(
    ("default", "text"),
    [
        (1, "1"),
        (0.5, "0.5"),
        ("a\n", '"a\\n"'),
        (None, "null"),
        (True, "true"),
        ([1, "a"], '[1, "a"]'),
        ((), "[]"),
        ({"a": None}, '{"a": null}'),
        (Text("a"), None),
        ([[]], None),
        ({1: 2}, None),
        (float("nan"), None),
        ("\ud800", None),
        ("x" * 300, None),
        (2**60, None),
        (object(), None),
        (list(range(30)), None),
    ],
)
def test_a_plain_and_short_default_is_told_as_json(default: object, text: str | None) -> None:
    """Whatever would need the agent's code, or much room, to be written is left out."""

    def function(value: object = default) -> None:
        pass

    assert [one.default for one in Parameters(function).described] == [text]
