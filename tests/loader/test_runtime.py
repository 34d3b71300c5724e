"""Which CPython a folder asks for: its configuration, then `.python-version` as uv and pyenv read it."""

from __future__ import annotations

import pytest

from tests.loader.folders import SHORT, hints, load, load_files, manifest, problems
from tests.loader.test_packages import venv

FILE = ".python-version"


def test_nothing_is_asked_for_where_nothing_is_said() -> None:
    assert (manifest(SHORT).python, manifest(SHORT | {"python": None}).python) == ("", "")


@pytest.mark.parametrize("text", ["3.11", "3.13", "3.20"])
def test_a_minor_version_is_asked_for(text: str) -> None:
    made = manifest(SHORT | {"python": text})
    assert (made.python, made.hints) == (text, ())


@pytest.mark.parametrize(
    ("content", "version"),
    [
        ("3.13\n", "3.13"),
        ("3.12", "3.12"),
        ("  3.13  \r\n3.12\n", "3.13"),
        ("# uv\n\n3.13\n", "3.13"),
        ("", ""),
        ("\n# nothing\n", ""),
    ],
)
def test_the_first_line_of_python_version_counts(content: str, version: str) -> None:
    """Comments and empty lines do not."""
    assert manifest(SHORT, **{FILE: content}).python == version


def test_the_configuration_wins_over_python_version() -> None:
    """Whatever that says."""
    assert manifest(SHORT | {"python": "3.13"}, **{FILE: "pypy3.10\n"}).python == "3.13"


def test_a_release_is_its_minor_version_and_says_so() -> None:
    made = manifest(SHORT, **{FILE: "3.13.1\n"})
    assert made.python == "3.13"
    assert made.hints == (
        f"{FILE}: taken as 3.13: which release of it there is, is the operator's to say",
    )  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "3",
        "3.x",
        "3.13.1.2",
        "3.13t",
        "cpython@3.13",
        "pypy3.10",
        ">=3.12",
        "system",
        "3.13 3.12",
        "v3.13",
        "3.１3",
        "\0",
    ],
)
def test_other_forms_are_refused_in_words(text: str) -> None:
    """Where they stand."""
    report = load(SHORT | {"python": text})
    assert problems(report)[0].startswith("runagent.config.json: python: ")
    assert problems(report)[0].endswith(" is not a version of CPython as 3.13 or 3.13.1")
    assert hints(report) == ['write for example "3.13"']
    assert problems(load(SHORT, **{FILE: text}))[0].startswith(f"{FILE}: ")


@pytest.mark.parametrize("text", ["3.10", "3.9.1"])
def test_an_older_one_than_the_daemon_knows_is_refused(text: str) -> None:
    assert problems(load(SHORT | {"python": text})) == [
        f'runagent.config.json: python: "{text}": agents run on CPython 3.11 or newer'
    ]


@pytest.mark.parametrize("value", [3.13, 3, True, ["3.13"], {}])
def test_a_number_is_no_version(value: object) -> None:
    """3.2 and 3.20 would be the same one."""
    assert problems(load(SHORT | {"python": value}))[0].endswith(" is not a version in quotes")


def test_a_version_in_yaml_needs_quotes() -> None:
    text = "agent_name: demo\nentrypoints: [{file: main.py, module: run, tag: main}]\npython: 3.13\n"
    report = load_files({"runagent.config.yaml": text, "main.py": ""})
    assert problems(report) == ["runagent.config.yaml: python: 3.13 is not a version in quotes"]
    assert load_files({"runagent.config.yaml": text.replace("3.13", '"3.13"'), "main.py": ""}).problems == ()


def test_a_large_python_version_is_refused() -> None:
    assert problems(load(SHORT, **{FILE: "#" * 5000})) == [f"{FILE}: is larger than 4096 bytes"]


def test_an_environment_has_to_be_for_the_version_that_the_agent_asks_for() -> None:
    """And not for the daemon's own."""
    fits = venv(line="version = 3.13.1", python="3.13")
    assert manifest(SHORT | {"python": "3.13"}, **fits).import_paths == (".venv/lib/python3.13/site-packages",)
    made = manifest(SHORT | {"python": "3.13"}, **venv())
    assert (made.import_paths, made.hints) == (
        (),
        (".venv/pyvenv.cfg: ignored: it is for Python 3.11, but the agent runs on 3.13; make it anew with python3.13",),
    )
