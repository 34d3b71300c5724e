"""`env_vars` and `.env`: names, values, and that no value is ever repeated to anybody."""

from __future__ import annotations

import pytest

from runagentd.loader import dotenv
from tests.loader.folders import SHORT, load, manifest, problems


def variables(content: bytes | str) -> dict[str, str]:
    found = dotenv.parse(content.encode() if isinstance(content, str) else content)
    assert found.problems == []
    return found.variables


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("A=1", {"A": "1"}),
        ("A=1\nB=2\n", {"A": "1", "B": "2"}),
        ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        ("\ufeffA=1", {"A": "1"}),
        ("  A = 1  ", {"A": "1"}),
        ("export A=1", {"A": "1"}),
        ("A=", {"A": ""}),
        ("A=''", {"A": ""}),
        ("# note\n\nA=1 # note", {"A": "1"}),
        ("A=a#b", {"A": "a#b"}),
        ("A=#b", {"A": ""}),
        ("A='a # b' # note", {"A": "a # b"}),
        ('A="a\\nb\\t\\"c\\" \\\\ \\$x"', {"A": 'a\nb\t"c" \\ $x'}),
        ("A='a\\nb'", {"A": "a\\nb"}),
        ('A="two\nlines"\nB=2', {"A": "two\nlines", "B": "2"}),
        ("A=b=c==", {"A": "b=c=="}),
        ("A=it's", {"A": "it's"}),
        ("A=1\nA=2", {"A": "2"}),
        ("URL=${HOST}/x", {"URL": "${HOST}/x"}),
        ("_a1=ü", {"_a1": "ü"}),
    ],
)
def test_a_dotenv_file_is_read_as_people_write_it(content: str, expected: dict[str, str]) -> None:
    assert variables(content) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("A", [(1, "has no '=': write NAME=value")]),
        ("\n1A=x", [(2, "'1A' is not a name: use letters, digits and '_', and no digit first")]),
        ("A B=x", [(1, "'A B' is not a name: use letters, digits and '_', and no digit first")]),
        ('A="open\nB=2', [(1, 'the value of A has no closing "')]),
        ("A='x' y", [(1, "something follows the closing ' of A")]),
        ("A=\0", [(1, "the value of A holds a NUL")]),
        (b"A=1\nB=\xff", [(2, "is not UTF-8")]),
    ],
)
def test_what_a_dotenv_file_has_wrong_is_told_with_its_line(
    content: bytes | str, expected: list[tuple[int, str]]
) -> None:
    assert dotenv.parse(content.encode() if isinstance(content, str) else content).problems == expected


def test_lines_are_counted_through_values_of_several_lines() -> None:
    assert dotenv.parse(b'A="x\ny\nz"\nB\n').problems == [(4, "has no '=': write NAME=value")]


def test_dotenv_wins_over_the_configuration() -> None:
    made = manifest({**SHORT, "env_vars": {"A": "1", "B": "2"}}, **{".env": "B=3\nC=4\n"})
    assert [(variable.name, variable.value) for variable in made.environment] == [("A", "1"), ("B", "3"), ("C", "4")]


def test_numbers_and_truth_values_become_text_as_they_are_written() -> None:
    made = manifest({**SHORT, "env_vars": {"N": 1.10, "YES": True, "BIG": 10**30}})
    assert [variable.value for variable in made.environment] == ["1000000000000000000000000000000", "1.1", "true"]
    assert made.hints == (
        "runagent.config.json: env_vars.N: taken as text, as it is written: environment variables are text",
        'runagent.config.json: env_vars.YES: taken as the text "true": environment variables are text',
        "runagent.config.json: env_vars.BIG: taken as text, as it is written: environment variables are text",
    )


def test_a_substitution_that_will_not_happen_is_mentioned() -> None:
    assert manifest(SHORT, **{".env": "KEY=${OPENAI_API_KEY}"}).hints == (
        ".env: line 1: the value of KEY is taken literally: nothing is substituted for ${…} or $(…)",
    )


@pytest.mark.parametrize("name", ["PYTHONPATH", "LD_PRELOAD"])
def test_variables_that_come_too_late_are_mentioned(name: str) -> None:
    assert manifest({**SHORT, "env_vars": {name: "x"}}).hints == (
        f"{name}: has no effect: the interpreter runs already when the agent's variables are set",
    )


def test_more_than_32_kib_of_variables_are_refused() -> None:
    report = load({**SHORT, "env_vars": {"A": "x" * 20_000}}, **{".env": "B=" + "y" * 20_000})
    assert problems(report) == ["runagent.config.json: env_vars: with .env these are 40,006 bytes, more than 32,768"]


def test_no_message_repeats_a_value() -> None:
    """They are keys and passwords, and messages end in logs."""
    report = load(
        {**SHORT, "env_vars": {"A": ["hunter2"], "B": "hunter2\0", "1": "hunter2"}},
        **{".env": "C='hunter2' hunter2\nD=\"hunter2\nE=hunter2\0\n"},
    )
    assert len(report.problems) == 6
    assert "hunter2" not in repr(report)
