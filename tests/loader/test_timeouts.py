"""An entrypoint's `timeout_seconds`, as its author writes it."""

from __future__ import annotations

import pytest

from tests.loader.folders import load, load_files, manifest, problems

PLACE = "runagent.config.json: agent_architecture.entrypoints[0]"


def config(**more: object) -> dict[str, object]:
    entrypoint = {"file": "main.py", "module": "run", "tag": "main", **more}
    return {"agent_name": "demo", "agent_architecture": {"entrypoints": [entrypoint]}}


@pytest.mark.parametrize(
    ("seconds", "milliseconds"),
    [(30, 30_000), (1.5, 1500), (0.25, 250), (0.0001, 1), (86400, 86_400_000), (None, None)],
)
def test_a_number_of_seconds_is_kept_to_the_millisecond(seconds: object, milliseconds: int | None) -> None:
    assert manifest(config(timeout_seconds=seconds)).entrypoints[0].timeout_ms == milliseconds


def test_yaml_says_it_too() -> None:
    text = "agent_name: demo\nentrypoints: [{file: main.py, module: run, tag: main, timeout_seconds: 2.5}]\n"
    made = load_files({"runagent.config.yaml": text, "main.py": ""}).manifest
    assert made is not None
    assert made.entrypoints[0].timeout_ms == 2500


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0"), (-1, "-1"), (86401, "86401"), ("30", '"30"'), (True, "true"), (float("inf"), "Infinity"),
        (1e20, "1e+20"), ([30], "a list"),
    ],
)  # fmt: skip
def test_a_wrong_one_is_told_with_its_place_and_what_is_right(seconds: object, shown: str) -> None:
    report = load(config(timeout_seconds=seconds))
    what = f"{shown} is not a number of seconds above 0 and up to 86400"
    assert problems(report) == [f"{PLACE}.timeout_seconds: {what}"]
    assert report.problems[0].hints == ('write for example "timeout_seconds": 30',)


def test_a_slip_of_the_pen_is_pointed_out() -> None:
    hint = 'ignored: no such key; did you mean "timeout_seconds"?'
    assert manifest(config(timeout_second=30)).hints == (f"{PLACE}.timeout_second: {hint}",)
