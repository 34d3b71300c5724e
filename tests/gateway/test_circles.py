"""Nothing that a flood of refusals leaves behind needs the garbage collector."""

from __future__ import annotations

import gc

import pytest

from runagentd.errors import Refusal
from runagentd.gateway import collector
from runagentd.wire.channel import Frame
from tests.fakes_gateway import Gateway, answer

INVOKE = "/v1/agents/echo-1/entrypoints/say:invoke"
RUN = "/api/v1/agents/echo-1/run"
TIMES = 20


def refusals() -> int:
    return sum(isinstance(each, Refusal) for each in gc.get_objects())


@pytest.mark.parametrize(
    ("path", "body", "token", "status"),
    [
        (INVOKE, b"{}", "x.y.z", 401),
        (INVOKE, b"[]", "", 422),
        ("/v1/agents/echo-1/entrypoints/nay:invoke", b"{}", "", 404),
        (RUN, b"{}", "", 422),
        (RUN, b'{"entrypoint_tag":"say_stream"}', "", 400),
    ],
)
def test_a_refusal_is_gone_with_its_answer(gateway: Gateway, path: str, body: bytes, token: str, status: int) -> None:
    """Its traceback holds frames whose variables lead back to it; full collections were a third of a second in ten."""
    gateway.ready("say", "say_stream")
    gateway.ask("POST", path, body, token=token or gateway.token())
    gc.collect()
    gc.disable()
    try:
        before = refusals()
        for _ in range(TIMES):
            assert gateway.ask("POST", path, body, token=token or gateway.token()).status == status
        assert refusals() - before < TIMES // 2
    finally:
        gc.enable()


def test_so_is_that_of_a_call_that_failed(gateway: Gateway) -> None:
    """The call keeps the reason for its end, and whoever reads it raises that."""
    runner = gateway.ready()
    gc.collect()
    gc.disable()
    try:
        before = refusals()
        for _ in range(TIMES):
            asked = gateway.send("POST", INVOKE, b"{}")
            runner.error(runner.expect(Frame.CALL).call, "exception", "no", b"", type="ValueError")
            assert answer(asked).status == 502
        assert refusals() - before < TIMES // 2
    finally:
        gc.enable()


def test_full_collections_are_left_to_the_pace() -> None:
    """Young objects are looked at as before."""
    before = gc.get_threshold()
    try:
        collector.take_over()
        assert gc.get_threshold() == (*before[:2], 1_000_000_000)
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
