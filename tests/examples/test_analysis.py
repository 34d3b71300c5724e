"""The analysis example finds what an editor would mark, and tells of it on the way.

Runs as: the test process.
Reads from strangers: nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import ModuleType

import pytest

from tests.examples.load import example

TEXT = "The the cat sat (on the mat. It was a mat! Was it?"


@pytest.fixture
def agent() -> Iterator[ModuleType]:
    with example("analysis", "editor") as module:
        yield module


def test_doubled_words_and_open_brackets_are_found(agent: ModuleType) -> None:
    """Each finding names its rule and its sentence."""
    report = agent.analyse(TEXT)
    assert [(one.rule, one.sentence, one.message) for one in report.findings] == [
        ("doubled word", 1, "“The the”"),
        ("brackets", 1, "“(” is never closed"),
    ]
    assert (report.sentences, report.words, report.words_per_sentence) == (3, 13, 4.3)


def test_an_empty_text_has_an_empty_report(agent: ModuleType) -> None:
    """Nothing to read is nothing to report, and no division by zero."""
    report = agent.analyse(" \n")
    assert (report.sentences, report.words, report.reading_ease, report.findings) == (0, 0, None, [])


def test_often_used_words_belong_to_the_whole_text(agent: ModuleType) -> None:
    """A long word that keeps coming back is reported once, at the end."""
    report = agent.analyse("Sandbox one. Sandbox two. Sandbox three. Sandbox four.")
    assert [one.message for one in report.findings] == ["“sandbox” comes 4 times in 8 words"]


def test_the_stream_tells_findings_and_progress_and_ends_with_the_report(agent: ModuleType) -> None:
    """Events come in reading order; the last one is the report that `analyse` gives."""

    async def collect() -> list[tuple[str, object]]:
        return [
            (event["event"], event.get("done")) async for event in agent.analyse_stream(TEXT)
        ]  # fmt: skip

    assert asyncio.run(collect()) == [
        ("finding", None),
        ("finding", None),
        ("progress", 1),
        ("progress", 2),
        ("progress", 3),
        ("report", None),
    ]


def test_leaving_the_stream_stops_the_reading(agent: ModuleType) -> None:
    """A client that goes away after one event costs one sentence."""

    async def leave() -> int:
        stream = agent.analyse_stream("One. " * 1000)
        event = await anext(stream)
        await stream.aclose()
        return int(event["done"])

    assert asyncio.run(leave()) == 1
