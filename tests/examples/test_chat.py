"""The chat example remembers, answers by its rules, and keeps conversations apart.

Runs as: the test process.
Reads from strangers: nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.examples.load import example


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.chdir(tmp_path)
    with example("chat", "chat") as module:
        yield module


def test_chat_remembers_a_name_across_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second import of the agent, as after a restart, knows what the first was told."""
    monkeypatch.chdir(tmp_path)
    with example("chat", "chat") as first:
        assert first.chat("Hello!") == "Hello. What is your name?"
        assert first.chat("My name is Ada.") == "Pleased to meet you, Ada."
    with example("chat", "chat") as second:
        assert second.chat("who am I?") == "You are Ada; you told me."
        assert second.chat("Hello") == "Hello again, Ada."


def test_chat_retrieves_the_fact_that_fits_best(agent: ModuleType) -> None:
    """Of two facts the one that shares more words with the question is told, seen from the other side."""
    agent.chat("remember that my build runs at noon")
    agent.chat("remember that the cat is called Mog")
    assert agent.chat("What do you know about the cat?") == "You told me: the cat is called Mog."
    assert agent.chat("when does the build run") == "You told me: your build runs at noon."
    assert agent.chat("what do you know about pigs?") == "You have told me nothing about pigs."


def test_chat_admits_what_it_is(agent: ModuleType) -> None:
    """It does not pretend to be a model."""
    assert agent.chat("Are you a model?") == (
        "A hundred lines of rules and one SQLite file. There is no language model in here."
    )
    assert agent.chat("The sea is deep.") == "I have no rule for that. Why do you say: “The sea is deep”?"


def test_chat_keeps_conversations_apart(agent: ModuleType) -> None:
    """A name told in one conversation is not known in another."""
    agent.chat("My name is Ada", conversation="one")
    assert agent.chat("who am I", conversation="two") == "You have not told me your name yet."


def test_chat_stream_gives_the_same_words(agent: ModuleType) -> None:
    """The pieces of a stream are the words of the reply, white space included."""
    assert list(agent.chat_stream("call me Bo")) == ["Pleased ", "to ", "meet ", "you, ", "Bo."]


def test_history_and_forget(agent: ModuleType) -> None:
    """History tells the last lines, oldest first; forget drops them and says how many."""
    agent.chat("thanks")
    assert [(line.speaker, line.text) for line in agent.history()] == [
        ("user", "thanks"),
        ("agent", "You are welcome."),
    ]
    assert agent.forget() == 2
    assert agent.history() == []
