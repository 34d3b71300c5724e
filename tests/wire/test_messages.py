"""The bytes of every record between processes, as a golden file."""

from __future__ import annotations

from pathlib import Path

from tests.wire import messages


def test_the_bytes_of_every_message_are_those_that_were_read_by_a_person() -> None:
    """tests/wire/messages.txt; tests/wire/messages.py says how to write it again after a change that is meant."""
    assert messages.forms() == Path(__file__).with_name("messages.txt").read_text()
