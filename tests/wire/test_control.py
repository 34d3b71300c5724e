"""Gateway and supervisor: each side takes the other's messages, and nothing else."""

from __future__ import annotations

from typing import get_args

import pytest

from runagentd.wire import control
from runagentd.wire.record import RecordError
from tests.wire.messages import FROM_GATEWAY, FROM_SUPERVISOR


def named(message: object) -> str:
    return type(message).__name__


@pytest.mark.parametrize("message", FROM_SUPERVISOR, ids=named)
def test_what_the_supervisor_says_reaches_the_gateway(message: control.FromSupervisor) -> None:
    """And the supervisor itself does not take it: a gateway cannot speak with its voice."""
    data = control.pack(message)
    assert control.parse_from_supervisor(data) == message
    with pytest.raises(RecordError, match=r"^not a message that may come from here$"):
        control.parse_from_gateway(data)


@pytest.mark.parametrize("message", FROM_GATEWAY, ids=named)
def test_what_the_gateway_says_reaches_the_supervisor(message: control.FromGateway) -> None:
    """And a gateway does not take it."""
    data = control.pack(message)
    assert control.parse_from_gateway(data) == message
    with pytest.raises(RecordError, match=r"^not a message that may come from here$"):
        control.parse_from_supervisor(data)


def test_every_message_has_a_sample() -> None:
    """A new message comes with its bytes in tests/wire/messages.txt."""
    assert {type(message) for message in FROM_SUPERVISOR} == set(get_args(control.FromSupervisor))
    assert {type(message) for message in FROM_GATEWAY} == set(get_args(control.FromGateway))


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x63", b"\xff" * 8])
def test_an_empty_or_unknown_datagram_is_refused(data: bytes) -> None:
    """A closed SOCK_SEQPACKET reads as an empty datagram: that is not a message either."""
    for parse in (control.parse_from_supervisor, control.parse_from_gateway):
        with pytest.raises(RecordError, match=r"^not a message that may come from here$"):
            parse(data)


def test_a_datagram_beyond_its_bound_is_refused() -> None:
    """160 KiB and one byte."""
    data = b"\x42" + bytes(160 * 1024 + 1)
    with pytest.raises(RecordError, match=r"^a record of 163841 bytes is larger than 163840$"):
        control.parse_from_gateway(data)


@pytest.mark.parametrize(
    ("number", "record", "reason"),
    [
        (66, b"\0\0\0\1a" + b"\0\1\0\1" + bytes(65537), "describe has 65537 where 65536 are the most"),
        (67, b"\0\0\0\1a" + b"\0\1\0\1" + bytes(65537), "report has 65537 where 65536 are the most"),
        (71, b"\0\0\0\x21" + 33 * b"\0\0\0\1k", "ids has 33 where 32 are the most"),
        (110, bytes(8) + b"\0\0\1\xf5" + 501 * b"x", "problem has 501 where 500 are the most"),
    ],
    ids=["InstanceReady", "InstanceFailed", "ApiKeysUsed", "Tried"],
)
def test_what_would_be_held_in_memory_has_narrower_bounds(number: int, record: bytes, reason: str) -> None:
    with pytest.raises(RecordError, match=f"^{reason}$"):
        control.parse_from_gateway(bytes([number]) + record)


def test_a_cause_that_does_not_exist_is_refused() -> None:
    """The set of causes is closed: no new one comes from a gateway."""
    good = control.pack(control.ReplaceInstance(instance="a", cause=control.Cause.DEADLINE))
    with pytest.raises(RecordError, match=r"^'deadlock' is not a Cause$"):
        control.parse_from_gateway(good.replace(b"deadline", b"deadlock"))
