"""What the gateway tells the supervisor of an agent's calls, and which instances it gives up."""

from __future__ import annotations

import dataclasses

import pytest

from runagentd.gateway import demand
from runagentd.wire.channel import Frame
from runagentd.wire.control import Cause, Demand, HostPressed, Idle, InstanceReady, Retire, Retired, Scaling, Wake
from tests.fakes_gateway import LIMITS, FakeRunner, Gateway, answer

INVOKE = "/v1/agents/echo-1/entrypoints/say:invoke"
A1, A2 = "00000000000000a1", "00000000000000a2"


def ready(gateway: Gateway, instance: str) -> FakeRunner:
    """One more instance, ready."""
    runner = gateway.supervisor.offer(instance=instance)
    runner.ready("say")
    while not isinstance(gateway.supervisor.receive(), InstanceReady):
        pass
    return runner


def test_a_call_that_wakes_an_agent_waits_for_its_instance(gateway: Gateway) -> None:
    """No instance, no error: the supervisor is told, and the call goes to what it starts."""
    gateway.supervisor.serve(scaling=Scaling(minimum=0, maximum=2))
    assert gateway.supervisor.receive() == Demand(agent="echo-1", instances=0)
    assert gateway.ask("GET", "/v1/agents/echo-1").json()["state"] == "asleep"
    asked = gateway.send("POST", INVOKE, b"{}")
    assert gateway.supervisor.receive() == Demand(agent="echo-1", instances=1)
    runner = ready(gateway, A1)
    runner.result(runner.expect(Frame.CALL).call, "awake")
    assert answer(asked).json() == "awake"


def test_without_a_queue_one_call_waits_to_wake_the_agent_and_no_other(gateway: Gateway) -> None:
    """calls.queue = 0: else nobody would ever ask for an instance. Once there is one, nobody waits for its place."""
    gateway.supervisor.serve(limits=dataclasses.replace(LIMITS, queue=0), scaling=Scaling(minimum=0, maximum=2))
    gateway.supervisor.receive()
    asked = gateway.send("POST", INVOKE, b"{}")
    assert gateway.supervisor.receive() == Demand(agent="echo-1", instances=1)
    assert gateway.ask("POST", INVOKE, b"{}").json()["detail"] == "all places are taken and 1 calls wait"
    runner = ready(gateway, A1)
    call = runner.expect(Frame.CALL).call
    assert gateway.ask("POST", INVOKE, b"{}").json()["detail"] == "all places are taken and 0 calls wait"
    runner.result(call, "awake")
    assert answer(asked).json() == "awake"


def test_more_calls_ask_for_more_instances_and_fewer_for_fewer(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once on the way up, after a moment on the way down, and never beyond what there may be."""
    monkeypatch.setattr(demand, "FALL_SECONDS", 0.05)
    gateway.supervisor.serve(scaling=Scaling(minimum=1, maximum=2))
    assert gateway.supervisor.receive() == Demand(agent="echo-1", instances=0)
    runner = ready(gateway, A1)
    asked = [gateway.send("POST", INVOKE, b"{}")]
    assert gateway.supervisor.receive() == Demand(agent="echo-1", instances=1)
    asked += [gateway.send("POST", INVOKE, b"{}") for _ in range(2)]
    assert gateway.supervisor.receive() == Demand(agent="echo-1", instances=2)
    for each in asked:
        runner.result(runner.expect(Frame.CALL).call, 1)
        assert answer(each).status == 200
    assert gateway.supervisor.receive() in (Demand(agent="echo-1", instances=1), Demand(agent="echo-1", instances=0))


def test_an_agent_with_a_fixed_number_says_nothing(gateway: Gateway) -> None:
    """There is nothing to decide: not a message for each call."""
    runner = gateway.ready()
    asked = gateway.send("POST", INVOKE, b"{}")
    runner.result(runner.expect(Frame.CALL).call, 1)
    assert answer(asked).status == 200
    gateway.supervisor.send(Retire(agent="echo-1", keep=0))
    assert gateway.supervisor.receive() == Retired(instance=A1)


def test_calls_go_to_the_instance_with_fewer(gateway: Gateway) -> None:
    """Two calls, two instances: neither waits."""
    gateway.supervisor.serve(scaling=Scaling(minimum=2, maximum=2))
    runners = [ready(gateway, A1), ready(gateway, A2)]
    asked = [gateway.send("POST", INVOKE, b"{}") for _ in range(2)]
    agent = gateway.inside(lambda: gateway.application.directory.find("echo"))
    gateway.wait_until(lambda: agent.open_calls() == 2)  # else the second may find both idle
    for runner in runners:
        runner.result(runner.expect(Frame.CALL).call, runner.instance)
    assert {answer(each).json() for each in asked} == {A1, A2}


def test_the_one_that_was_idle_longest_is_given_up_and_none_that_has_a_call(gateway: Gateway) -> None:
    """Asked to keep one of two: the busy one stays, and gets the next call as well."""
    gateway.supervisor.serve(scaling=Scaling(minimum=2, maximum=2))
    runners = {A1: ready(gateway, A1), A2: ready(gateway, A2)}
    first = gateway.send("POST", INVOKE, b"{}")
    agent = gateway.inside(lambda: gateway.application.directory.find("echo"))
    gateway.wait_until(lambda: agent.open_calls() == 1)
    busy = next(name for name, each in gateway.inside(lambda: dict(agent.instances)).items() if each.load)
    idle = A2 if busy == A1 else A1
    gateway.supervisor.send(Retire(agent="echo-1", keep=1))
    assert gateway.supervisor.receive() == Retired(instance=idle)
    gateway.supervisor.send(Retire(agent="echo-1", keep=0))
    gateway.supervisor.gone(Cause.SCALE_DOWN, instance=idle)
    runners[busy].result(runners[busy].expect(Frame.CALL).call, 1)
    assert answer(first).status == 200
    second = gateway.send("POST", INVOKE, b"{}")
    runners[busy].result(runners[busy].expect(Frame.CALL).call, 2)
    assert answer(second).json() == 2


def test_while_the_host_is_short_of_memory_nobody_waits(gateway: Gateway) -> None:
    """What has a place goes on; what would have to wait is told to come back."""
    runner = gateway.ready()
    gateway.supervisor.send(HostPressed(pressed=True))
    first = gateway.send("POST", INVOKE, b"{}")
    call = runner.expect(Frame.CALL)
    refused = gateway.ask("POST", INVOKE, b"{}")
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert refused.json()["detail"] == "the host is short of memory, and all places are taken"
    runner.result(call.call, 1)
    assert answer(first).status == 200


def test_an_agent_that_failed_while_it_slept_is_tried_again_after_the_delay(gateway: Gateway) -> None:
    """Nobody starts it again by itself: without a new attempt by a call it would be unavailable for ever."""
    gateway.supervisor.serve(scaling=Scaling(minimum=0, maximum=1))
    gateway.supervisor.receive()
    asked = gateway.send("POST", INVOKE, b"{}")
    assert gateway.supervisor.receive() == Demand(agent="echo-1", instances=1)
    gateway.supervisor.gone(Cause.IMPORT, "no module", retry_after_ms=100)
    assert answer(asked).json()["code"] == "IMPORT_ERROR"
    agent = gateway.inside(lambda: gateway.application.directory.find("echo"))
    assert gateway.ask("POST", INVOKE, b"{}").json()["code"] == "IMPORT_ERROR"
    gateway.inside(lambda: setattr(agent, "_outage_until", 0.0))  # the delay is over
    again = gateway.send("POST", INVOKE, b"{}")
    runner = ready(gateway, A1)
    runner.result(runner.expect(Frame.CALL).call, "back")
    assert answer(again).json() == "back"


def test_an_idle_instance_is_named_once_and_woken_before_its_next_call(gateway: Gateway) -> None:
    """The supervisor is told before the runner has the call: frozen, it would not see it."""
    runner = gateway.ready(limits=dataclasses.replace(LIMITS, freeze_ms=50))
    assert gateway.supervisor.receive() == Idle(instance=A1)
    for _ in range(2):
        asked = gateway.send("POST", INVOKE, b"{}")
        assert gateway.supervisor.receive() == Wake(instance=A1)
        runner.result(runner.expect(Frame.CALL).call, "awake")
        assert answer(asked).json() == "awake"
        assert gateway.supervisor.receive() == Idle(instance=A1)


def test_an_instance_with_a_call_is_not_idle_however_long_it_takes(gateway: Gateway) -> None:
    """A call of four times the idle time: the first word of idleness comes after its end."""
    runner = gateway.ready(limits=dataclasses.replace(LIMITS, freeze_ms=50))
    asked = gateway.send("POST", INVOKE, b"{}")
    call = runner.expect(Frame.CALL)
    gateway.supervisor.connection.settimeout(0.2)  # type: ignore[union-attr]  # it is there
    with pytest.raises(TimeoutError):
        gateway.supervisor.receive()
    gateway.supervisor.connection.settimeout(10)  # type: ignore[union-attr]
    runner.result(call.call, 1)
    assert answer(asked).status == 200
    assert gateway.supervisor.receive() == Idle(instance=A1)
