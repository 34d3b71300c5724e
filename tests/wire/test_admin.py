"""The operator's commands and the supervisor's answers."""

from __future__ import annotations

from typing import get_args

import pytest

from runagentd.wire import admin
from runagentd.wire.record import RecordError
from tests.wire.messages import REPLIES, REQUESTS


def named(message: object) -> str:
    return type(message).__name__


@pytest.mark.parametrize("message", REQUESTS, ids=named)
def test_a_request_reaches_the_supervisor(message: admin.Request) -> None:
    """And is no reply."""
    data = admin.pack(message)
    assert admin.parse_request(data) == message
    with pytest.raises(RecordError, match=r"^not a reply$"):
        admin.parse_reply(data)


@pytest.mark.parametrize("message", REPLIES, ids=named)
def test_a_reply_reaches_the_operator(message: admin.Reply) -> None:
    """And is no request."""
    data = admin.pack(message)
    assert admin.parse_reply(data) == message
    with pytest.raises(RecordError, match=r"^not a request$"):
        admin.parse_request(data)


def test_every_message_has_a_sample() -> None:
    """A new message comes with its bytes in tests/wire/messages.txt."""
    assert {type(message) for message in REQUESTS} == set(get_args(admin.Request))
    assert {type(message) for message in REPLIES} == set(get_args(admin.Reply))


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x63"])
def test_an_empty_or_unknown_datagram_is_refused(data: bytes) -> None:
    """The connection is closed by whoever reads it."""
    with pytest.raises(RecordError):
        admin.parse_request(data)
    with pytest.raises(RecordError):
        admin.parse_reply(data)
