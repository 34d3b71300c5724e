"""`[runtimes]`: which interpreters an operator names, before anybody has looked at them."""

from __future__ import annotations

from pathlib import Path

import pytest

from runagentd.config import load
from runagentd.config.runtimes import NamedInterpreter
from runagentd.errors import ConfigurationError
from runagentd.foreman import settings_link
from runagentd.interpreters import own

EXAMPLE = '"3.13" = "/opt/python3.13/bin/python3"'
ETC = Path("/etc/runagentd")


def read(text: str) -> tuple[NamedInterpreter, ...]:
    return load.parse(f"[runtimes]\n{text}".encode(), "runagentd.toml", ETC).interpreters


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        read(text)
    return [f"{problem.where}: {problem.what}" for problem in caught.value.problems]


def test_none_is_named_by_default() -> None:
    assert load.parse(b"", "runagentd.toml", ETC).interpreters == ()


def test_each_has_its_version_and_its_place() -> None:
    """Relative paths start where the file is."""
    assert read('"3.13" = "/opt/python3.13/bin/python3"\n"3.12" = "python3.12"\n') == (
        NamedInterpreter(version="3.13", path="/opt/python3.13/bin/python3", where="runagentd.toml: runtimes.3.13"),
        NamedInterpreter(version="3.12", path="/etc/runagentd/python3.12", where="runagentd.toml: runtimes.3.12"),
    )


@pytest.mark.parametrize("key", ['"3.10"', '"2.7"', '"3.13.1"', '"3"', '"3.13t"', '"python"', '""', "3.13"])
def test_a_key_that_is_no_minor_version_is_a_problem(key: str) -> None:
    """Without quotes it is a table of TOML's."""
    with pytest.raises(ConfigurationError) as caught:
        read(f'{key} = "/usr/bin/python3"')
    (problem,) = caught.value.problems
    assert problem.what.endswith("is not a minor version of CPython that agents can run on")
    assert problem.hints == ('write the version in quotes, from 3.11 on: "3.13" = "/opt/python3.13/bin/python3"',)


def test_a_path_is_a_text_that_can_be_one() -> None:
    assert problems('"3.13" = 1\n"3.12" = ""\n"3.11" = "\\u0000"\n') == [
        "runagentd.toml: runtimes.3.13: must be a text",
        f"runagentd.toml: runtimes.3.12: must be the path of an interpreter, as in {EXAMPLE}",
        f"runagentd.toml: runtimes.3.11: must be the path of an interpreter, as in {EXAMPLE}",
    ]


def test_there_may_be_eight() -> None:
    lines = [f'"3.{minor}" = "x"\n' for minor in range(11, 20)]
    assert len(read("".join(lines[:8]))) == 8
    assert problems("".join(lines)) == ["runagentd.toml: runtimes.3.19: is one of 9, and there may be 8 at most"]


@pytest.mark.root
@pytest.mark.slow
def test_all_that_are_unfit_are_told_at_once_each_with_its_place() -> None:
    document = load.parse(
        f'[runtimes]\n"3.12" = "/nowhere"\n"3.99" = "{own()}"\n'.encode(), "runagentd.toml", ETC
    )  # fmt: skip
    with pytest.raises(ConfigurationError) as caught:
        settings_link.inspected(document)
    first, second = caught.value.problems
    assert (first.where, first.what) == ("runagentd.toml: runtimes.3.12", "/nowhere: no such file or directory")
    assert second.where == "runagentd.toml: runtimes.3.99"
    assert f"{own()} is Python 3.1" in second.what
