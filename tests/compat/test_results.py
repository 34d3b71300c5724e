"""PyPI's `runagent` 0.1.49 gets right results from single calls: every kind of value and of argument."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.compat.runagent_client import RunAgent, same
from tests.system.daemon import Daemon

pytestmark = [pytest.mark.root, pytest.mark.kernel, pytest.mark.slow]

# What the agent's VALUES become. Any: one of everything.
RESULTS: dict[str, Any] = {
    "text": "hi",
    "empty text": "",
    "unicode": 'naïve 日本語 🎉 \u2028 \x00 " \\ </script>',
    "integer": 7,
    "large integer": 1208925819614629174706176,
    "float": 1.5,
    "whole float": 2.0,
    "true": True,
    "none": None,
    "nan": None,
    "infinity": None,
    "list": [1, "two", None, True, 2.5],
    "empty list": [],
    "dict": {"a": 1, "b": ["c", {"d": None}]},
    "empty dict": {},
    "nested": {"a": {"b": {"c": [[[1]]]}}},
    "nan inside": {"x": [None, 1]},
    "tuple": [1, "a"],
    "set": [1, 2, 3],
    "bytes": "00ff",
    "datetime": "2026-01-02T03:04:05+00:00",
    "date": "2026-01-02",
    "decimal": "1.10",
    "uuid": "12345678-1234-5678-1234-567812345678",
    "enum": "red",
    "dataclass": {"x": 1, "y": 2.0, "name": None},
    "named tuple": {"left": 1, "right": "r"},
    "object": {"shown": 1},
    "framework object": {"raw": "the answer"},
    "like an error": {"type": "error", "error": "only data"},
    "like a frame": {"type": "status", "status": "stream_completed", "content": 1},
}


@pytest.mark.parametrize("what", RESULTS)
def test_each_kind_of_value_arrives(runagent: RunAgent, what: str) -> None:
    """With its type: 2.0 is no 2, and True no 1. NaN is None, where RunAgent's own server confuses its client."""
    assert same(runagent.result("compat-values", "give", what), RESULTS[what])


def test_streamed_values_arrive_as_single_ones_do(runagent: RunAgent) -> None:
    """RunAgent's own server has other rules for chunks; here there is one table."""
    assert same(runagent.chunks("compat-values", "give_stream"), list(RESULTS.values()))


def test_positional_and_keyword_arguments_arrive(runagent: RunAgent) -> None:
    """As they were sent, text and structure alike."""
    result = runagent.result("compat-values", "echo", 1, "zwei", None, [1.0], k={"x": [True]}, ключ="значение")
    assert same(result, {"args": [1, "zwei", None, [1.0]], "kwargs": {"k": {"x": [True]}, "ключ": "значение"}})
    assert runagent.result("compat-values", "echo") == {"args": [], "kwargs": {}}


def test_text_becomes_what_the_signature_asks_for(runagent: RunAgent) -> None:
    """RunAgent's command line sends every argument as text."""
    assert runagent.result("compat-values", "typed", "7", ratio="2.5", names=["a"]) == [7, 2.5, ["a"]]


def test_a_function_without_a_result_gives_none(runagent: RunAgent) -> None:
    """What it printed goes to the agent's log."""
    assert runagent.result("compat-values", "nothing") is None


def test_an_extractor_picks_from_the_result(runagent: RunAgent) -> None:
    """A path that is not there gives None, and the answer always has all names."""
    assert runagent.result("compat-values", "picked", "dict") == {"first": "c", "none": None}


@pytest.mark.parametrize("slash", ["", "/"])
def test_the_base_url_may_end_with_a_slash(runagent: RunAgent, daemon: Daemon, slash: str) -> None:
    """For calls and for streams."""
    assert runagent.result("compat-values", "give", "integer", url=daemon.url + slash) == 7
    assert runagent.chunks("compat-values", "count_stream", 2, url=daemon.url + slash) == [0, 1]


def test_an_agent_answers_to_its_id_and_to_its_unique_name(runagent: RunAgent) -> None:
    """This client puts either into the path as it is, so a name with a space has to be percent-encoded for streams."""
    for agent in ("compat-values", "Values & streams", "Values%20%26%20streams"):
        assert runagent.result(agent, "give", "text") == "hi"
    for agent in ("compat-hasty", "hasty", "Values%20%26%20streams"):
        assert runagent.chunks(agent, "count_stream", 2) == [0, 1]


def test_a_call_may_take_its_time(runagent: RunAgent) -> None:
    """Nothing between the client and the function loses patience before the deadline."""
    began = time.monotonic()
    assert runagent.result("compat-values", "rest", 3) == "rested 3.0 s"
    assert time.monotonic() - began < 5
