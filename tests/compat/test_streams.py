"""PyPI's `runagent` 0.1.49 gets right streams: order, number, ends, failures, and going away in the middle."""

from __future__ import annotations

import time

import pytest

from tests.compat.runagent_client import RunAgent

pytestmark = [pytest.mark.root, pytest.mark.kernel, pytest.mark.slow]


@pytest.mark.parametrize("length", [0, 1, 3, 1000])
def test_every_chunk_arrives_once_and_in_order(runagent: RunAgent, length: int) -> None:
    """An empty stream is one without chunks, and no error."""
    assert runagent.chunks("compat-values", "count_stream", length) == list(range(length))


def test_an_asynchronous_generator_streams(runagent: RunAgent) -> None:
    """Each chunk when it is there."""
    assert runagent.chunks("compat-values", "count_slowly_stream", 5, seconds=0.01) == [0, 1, 2, 3, 4]


def test_large_chunks_arrive_whole(runagent: RunAgent) -> None:
    """The client accepts 10 MiB a message; these are 1 MiB each, more than all credit at once."""
    chunks = runagent.chunks("compat-values", "chunks_of_stream", 1 << 20, 8)
    assert [len(chunk) for chunk in chunks] == [1 << 20] * 8


def test_a_plain_function_behind_a_stream_tag_gives_one_chunk(runagent: RunAgent) -> None:
    """The tag alone decides how a client asks."""
    assert runagent.chunks("compat-values", "echo_stream", 1) == [{"args": [1], "kwargs": {}}]


def test_a_failure_midway_comes_after_the_chunks_before_it(runagent: RunAgent) -> None:
    """Its type and message reach the caller; STREAM_ERROR is what this client makes of every error frame."""
    answer = runagent.run("compat-values", "break_off_stream", 2, "it broke")
    assert answer["chunks"] == [0, 1]
    assert (answer["error"]["type"], answer["error"]["code"]) == ("RunAgentExecutionError", "STREAM_ERROR")
    assert answer["error"]["message"] == "RuntimeError: it broke"


def test_a_wrong_argument_is_named_before_the_first_chunk(runagent: RunAgent) -> None:
    """By its JSON pointer."""
    answer = runagent.run("compat-values", "count_stream", "many")
    assert (answer["chunks"], answer["error"]["message"]) == ([], 'expected an integer, not "many" (at /input_args/0)')


def test_who_stops_reading_stops_the_generator(runagent: RunAgent) -> None:
    """The agent serves one call at a time, so the next one would wait 90 s for a generator that goes on."""
    began = time.monotonic()
    assert runagent.run("compat-values", "count_slowly_stream", 900, seconds=0.1, take=2) == {"chunks": [0, 1]}
    assert runagent.result("compat-values", "give", "text") == "hi"
    assert time.monotonic() - began < 5


def test_a_stream_that_reaches_its_deadline_says_so(runagent: RunAgent) -> None:
    """After what it yielded until then; the agent answers the next call."""
    began = time.monotonic()
    answer = runagent.run("hasty", "count_slowly_stream", 900, seconds=0.05)
    assert 1 <= time.monotonic() - began < 4
    assert 5 <= len(answer["chunks"]) <= 21
    assert answer["error"]["message"] == "the call reached its deadline while its function ran"
    assert runagent.chunks("hasty", "count_stream", 2) == [0, 1]
