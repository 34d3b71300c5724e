"""Places, queue, deadlines, and instances that come and go."""

from __future__ import annotations

import dataclasses
import http.client
import json
import time

import pytest

from runagentd.gateway import agents
from runagentd.wire.channel import Frame
from runagentd.wire.control import (
    AgentRemoved,
    CallLimits,
    Cause,
    Drain,
    Drained,
    InstanceFailed,
    InstanceReady,
    ReplaceInstance,
    Scaling,
)
from tests.fakes_gateway import LIMITS, FakeRunner, Gateway, abort, answer

INVOKE = "/v1/agents/echo-1/entrypoints/say:invoke"


def limits(**changes: int) -> CallLimits:
    return dataclasses.replace(LIMITS, **changes)  # type: ignore[arg-type]  # only numbers are changed here


def test_a_call_waits_for_a_place_and_they_are_served_in_their_order(gateway: Gateway) -> None:
    """The function is not running while a call waits, so nothing was sent for it."""
    runner = gateway.ready()
    first = gateway.send("POST", INVOKE, b'{"n":1}')
    one = runner.expect(Frame.CALL)
    second = gateway.send("POST", INVOKE, b'{"n":2}')
    agent = gateway.inside(lambda: gateway.application.directory.find("echo"))
    gateway.wait_until(lambda: agent.waiting == 1)
    third = gateway.send("POST", INVOKE, b'{"n":3}')
    gateway.wait_until(lambda: agent.waiting == 2)
    assert gateway.inside(agent.open_calls) == 1
    runner.result(one.call, 1)
    for number, asked in ((2, second), (3, third)):
        call = runner.expect(Frame.CALL)
        assert call.body == b'[[],{"n":%d}]' % number
        runner.result(call.call, number)
        assert answer(asked).json() == number
    assert answer(first).json() == 1


def test_a_full_queue_refuses_at_once(gateway: Gateway) -> None:
    """503 with Retry-After, not a wait into the client's own timeout."""
    runner = gateway.ready(limits=limits(queue=1))
    first = gateway.send("POST", INVOKE, b"{}")
    call = runner.expect(Frame.CALL)
    second = gateway.send("POST", INVOKE, b"{}")
    agent = gateway.inside(lambda: gateway.application.directory.find("echo"))
    gateway.wait_until(lambda: agent.waiting == 1)
    got = gateway.ask("POST", INVOKE, b"{}")
    assert (got.status, got.headers["retry-after"], got.json()["code"]) == (503, "1", "OVERLOADED")
    assert got.json()["detail"] == "all places are taken and 1 calls wait"
    assert got.json()["retryable"] is True
    runner.result(call.call, 1)
    runner.result(runner.expect(Frame.CALL).call, 2)
    assert [answer(first).json(), answer(second).json()] == [1, 2]


def test_as_many_calls_run_as_the_policy_allows_and_no_more(gateway: Gateway) -> None:
    """concurrency = 3."""
    runner = gateway.ready(limits=limits(concurrency=3))
    asked = [gateway.send("POST", INVOKE, b"{}") for _ in range(5)]
    calls = [runner.expect(Frame.CALL).call for _ in range(3)]
    agent = gateway.inside(lambda: gateway.application.directory.find("echo"))
    gateway.wait_until(lambda: agent.waiting == 2)
    runner.result(calls[1], "second")
    calls[1] = runner.expect(Frame.CALL).call
    for call in calls:
        runner.result(call, "x")
    runner.result(runner.expect(Frame.CALL).call, "x")
    assert sorted(answer(one).json() for one in asked) == ["second", "x", "x", "x", "x"]


def test_a_call_that_reached_its_deadline_keeps_its_place_until_it_has_stopped(gateway: Gateway) -> None:
    """The caller is answered at once; the limit does not lie."""
    runner = gateway.ready(limits=limits(deadline_ms=60))
    first = gateway.send("POST", INVOKE, b"{}")
    call = runner.expect(Frame.CALL)
    got = answer(first)
    assert (got.status, got.json()["code"], got.json()["cause"]) == (504, "TIMEOUT_ERROR", "deadline")
    assert runner.expect(Frame.CANCEL).header == b'{"reason":"deadline"}'
    second = gateway.send("POST", INVOKE, b"{}", Runagent_Timeout="50ms")
    got = answer(second)
    assert (got.status, got.json()["detail"]) == (
        504,
        "the call reached its deadline while it waited for a free place",
    )
    runner.error(call.call, "cancelled", "stopped at last")
    third = gateway.send("POST", INVOKE, b"{}")
    runner.result(runner.expect(Frame.CALL).call, 3)
    assert answer(third).json() == 3


@pytest.mark.parametrize("how", ["deadline", "client"])
def test_a_call_that_does_not_stop_costs_the_instance(gateway: Gateway, how: str) -> None:
    """After the grace the supervisor is told to replace it; calls that waited go to the next one."""
    runner = gateway.ready(limits=limits(deadline_ms=2000, cancel_grace_ms=50))
    first = gateway.send("POST", INVOKE, b"{}", **({"Runagent_Timeout": "50ms"} if how == "deadline" else {}))
    runner.expect(Frame.CALL)
    if how == "client":
        abort(first)
    runner.expect(Frame.CANCEL)
    second = gateway.send("POST", INVOKE, b"{}")
    assert gateway.supervisor.receive() == ReplaceInstance(instance="00000000000000a1", cause=Cause.DEADLINE)
    assert runner.at_end()
    gateway.supervisor.gone(Cause.DEADLINE)
    successor = gateway.supervisor.offer(instance="00000000000000a2")
    successor.ready("say")
    successor.result(successor.expect(Frame.CALL).call, "from the next")
    assert answer(second).json() == "from the next"
    if how == "deadline":
        assert answer(first).status == 504


def test_a_call_during_the_start_of_an_instance_waits_for_it(gateway: Gateway) -> None:
    """The first call of an agent that has no instance yet is answered, too."""
    gateway.supervisor.serve()
    asked = gateway.send("POST", INVOKE, b"{}")
    runner = gateway.supervisor.offer()
    runner.ready("say")
    runner.result(runner.expect(Frame.CALL).call, "hi")
    assert answer(asked).json() == "hi"


def test_a_failed_import_is_told_with_the_agents_own_problem(gateway: Gateway) -> None:
    """To the supervisor in full, to callers as 503 with the first problem; and it is over with the next instance."""
    gateway.supervisor.serve()
    runner = gateway.supervisor.offer()
    waiting = gateway.send("POST", INVOKE, b"{}")
    runner.hello()
    report = json.dumps(
        {"problems": [{"where": "main.py", "what": "ModuleNotFoundError: no numpy", "hints": []}]}
    ).encode()
    runner.send(Frame.FAILED, 0, None, report)
    assert gateway.supervisor.receive() == InstanceFailed(instance="00000000000000a1", report=report)
    runner.close()
    gateway.supervisor.gone(Cause.IMPORT, retry_after_ms=3400)
    for got in (answer(waiting), gateway.ask("POST", INVOKE, b"{}")):
        assert (got.status, got.headers["retry-after"], got.json()["code"]) == (503, "4", "IMPORT_ERROR")
        assert got.json()["detail"] == "main.py: ModuleNotFoundError: no numpy"
    runner = gateway.supervisor.offer(instance="00000000000000a2")
    runner.ready("say")
    gateway.supervisor.receive()
    asked = gateway.send("POST", INVOKE, b"{}")
    runner.result(runner.expect(Frame.CALL).call, 1)
    assert answer(asked).status == 200


def test_a_start_that_is_far_away_is_not_waited_for(gateway: Gateway) -> None:
    """With the supervisor's own word as Retry-After."""
    runner = gateway.ready()
    runner.close()
    gateway.supervisor.gone(Cause.SIGNAL, "killed by SIGSEGV", retry_after_ms=8000)
    agent = gateway.inside(lambda: gateway.application.directory.find("echo"))
    gateway.wait_until(lambda: agent.state() == "unavailable")
    got = gateway.ask("POST", INVOKE, b"{}")
    assert (got.status, got.headers["retry-after"], got.json()["code"]) == (503, "8", "UNAVAILABLE")
    assert (got.json()["detail"], got.json()["cause"]) == ("the agent is not ready: killed by SIGSEGV", "signal")


def test_nobody_waits_for_ever_for_an_instance_that_does_not_come(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After some seconds without one that is even starting: 503."""
    monkeypatch.setattr(agents, "PATIENCE_SECONDS", 0.05)
    gateway.supervisor.serve()
    got = gateway.ask("POST", INVOKE, b"{}")
    assert (got.status, got.headers["retry-after"], got.json()["code"]) == (503, "1", "UNAVAILABLE")


def test_a_result_that_was_written_before_the_end_still_counts(gateway: Gateway) -> None:
    """The supervisor's word may overtake the last bytes of the channel."""
    runner = gateway.ready()
    asked = gateway.send("POST", INVOKE, b"{}")
    call = runner.expect(Frame.CALL)
    gateway.supervisor.gone(Cause.EXIT, "exit status 0")
    agent = gateway.inside(lambda: gateway.application.directory.find("echo"))
    gateway.wait_until(lambda: agent.state() == "unavailable")
    runner.result(call.call, "done")
    runner.close()
    assert answer(asked).json() == "done"


def test_a_runner_that_closes_its_channel_and_lives_is_replaced(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else would notice."""
    monkeypatch.setattr("runagentd.gateway.instances.TRUTH_SECONDS", 0.05)
    runner = gateway.ready()
    asked = gateway.send("POST", INVOKE, b"{}")
    runner.expect(Frame.CALL)
    runner.socket.close()
    assert gateway.supervisor.receive() == ReplaceInstance(instance="00000000000000a1", cause=Cause.PROTOCOL)
    got = answer(asked)
    assert (got.status, got.json()["code"], got.json()["cause"]) == (502, "PROTOCOL_ERROR", "protocol")


# ---- calls that are sent ahead


def quick(gateway: Gateway, monkeypatch: pytest.MonkeyPatch, calls: int = 12) -> FakeRunner:
    """An instance whose functions are known to be short: it gets calls ahead of its places."""
    monkeypatch.setattr("runagentd.gateway.instances.AHEAD_SECONDS", 9.0)  # the machine may be busy
    runner = gateway.ready(limits=limits(cancel_grace_ms=60))
    for _ in range(calls):
        asked = gateway.send("POST", INVOKE, b"{}")
        runner.result(runner.expect(Frame.CALL).call, 0)
        answer(asked)
    return runner


def test_none_is_sent_ahead_where_each_call_has_a_process_of_its_own(gateway: Gateway) -> None:
    """What waits for another call is nowhere near the code of this one, however short its functions are."""
    runner = gateway.ready(limits=limits(one_by_one=True))
    agent = gateway.inside(lambda: gateway.application.directory.find("echo"))
    instance = next(iter(agent.instances.values()))
    instance._service_seconds = 0.0
    first, second = (gateway.send("POST", INVOKE, b"{}") for _ in range(2))
    gateway.wait_until(lambda: agent.waiting == 1)
    assert gateway.inside(lambda: len(instance.channel.open_calls)) == 1
    runner.result(runner.expect(Frame.CALL).call, 1)
    runner.result(runner.expect(Frame.CALL).call, 2)
    assert {answer(first).json(), answer(second).json()} == {1, 2}


@pytest.mark.parametrize(("maximum", "most"), [(1, 17), (2, 5)])
def test_no_more_work_is_sent_ahead_than_takes_two_milliseconds(gateway: Gateway, maximum: int, most: int) -> None:
    """The next caller's turn comes that soon, whatever was sent before.

    Of very short functions it is sixteen, or four where another instance could take a call over.
    """
    gateway.supervisor.serve(limits=limits(queue=64), scaling=Scaling(maximum=maximum))
    gateway.supervisor.offer().ready("say")
    gateway.supervisor.receive()
    agent = gateway.inside(lambda: gateway.application.directory.find("echo"))
    instance = next(iter(agent.instances.values()))
    asked: list[http.client.HTTPConnection] = []
    for seconds, sent in ((0.0021, 1), (0.0011, 2), (0.0005, 4), (0.0, most)):
        instance._service_seconds = seconds
        gateway.inside(lambda: agent.place_free(instance))
        while len(asked) < sent + 1:
            asked.append(gateway.send("POST", INVOKE, b"{}"))
        gateway.wait_until(lambda: instance.load + len(agent._waiting) == len(asked))
        assert gateway.inside(lambda: instance.load) == sent
    for each in asked:
        abort(each)


@pytest.mark.parametrize("cause", ["exit", "signal", "seccomp"])
def test_a_call_whose_own_process_ended_is_told_how_and_the_instance_goes_on(gateway: Gateway, cause: str) -> None:
    """Not the supervisor but the runner says so."""
    runner = gateway.ready()
    asked = gateway.send("POST", INVOKE, b"{}")
    runner.error(runner.expect(Frame.CALL).call, "died", "it ended", cause=cause)
    got = answer(asked)
    assert (got.status, got.json()["code"], got.json()["cause"]) == (502, "INSTANCE_DIED", cause)
    assert got.json()["detail"] == "it ended"
    asked = gateway.send("POST", INVOKE, b"{}")
    runner.result(runner.expect(Frame.CALL).call, 1)
    assert answer(asked).json() == 1


def test_calls_that_were_sent_ahead_and_never_started_go_to_the_next_instance(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the one that was running is lost with its instance."""
    runner = quick(gateway, monkeypatch)
    first = gateway.send("POST", INVOKE, b'{"n":1}')
    assert runner.expect(Frame.CALL).body == b'[[],{"n":1}]'
    second = gateway.send("POST", INVOKE, b'{"n":2}')
    assert runner.expect(Frame.CALL).body == b'[[],{"n":2}]'
    runner.close()
    gateway.supervisor.gone(Cause.OUT_OF_MEMORY)
    assert answer(first).json()["code"] == "OUT_OF_MEMORY"
    successor = gateway.supervisor.offer(instance="00000000000000a2")
    successor.ready("say")
    call = successor.expect(Frame.CALL)
    assert call.body == b'[[],{"n":2}]'
    successor.result(call.call, "second chance")
    assert answer(second).json() == "second chance"


def test_the_grace_of_a_call_that_was_sent_ahead_begins_when_it_could_start(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A runner that is busy with the one before has done nothing wrong."""
    runner = quick(gateway, monkeypatch)
    first = gateway.send("POST", INVOKE, b"{}")
    one = runner.expect(Frame.CALL)
    second = gateway.send("POST", INVOKE, b"{}")
    two = runner.expect(Frame.CALL)
    abort(second)
    assert runner.expect(Frame.CANCEL).call == two.call
    time.sleep(0.15)  # more than the grace, in which nothing may happen: there is no event to wait for
    runner.result(one.call, "unharmed")
    assert answer(first).json() == "unharmed"
    assert gateway.supervisor.receive() == ReplaceInstance(instance="00000000000000a1", cause=Cause.DEADLINE)


# ---- the supervisor


def test_a_supervisor_that_comes_back_announces_everything_again(gateway: Gateway) -> None:
    """Calls that wait are answered by the new instance; the gateway never stopped."""
    runner = gateway.ready()
    running = gateway.send("POST", INVOKE, b"{}")
    runner.expect(Frame.CALL)
    gateway.supervisor.drop()
    got = answer(running)
    assert (got.status, got.json()["code"], got.json()["cause"]) == (502, "INSTANCE_DIED", "supervisor-lost")
    waiting = gateway.send("POST", INVOKE, b"{}")
    gateway.supervisor.connect(introduce=False)
    successor = gateway.ready()
    successor.result(successor.expect(Frame.CALL).call, "again")
    assert answer(waiting).json() == "again"


def test_agents_that_are_not_announced_again_are_served_no_more(gateway: Gateway) -> None:
    """Once the supervisor says that it has named all."""
    gateway.ready()
    gateway.supervisor.drop()
    gateway.supervisor.connect()
    gateway.wait_until(lambda: not gateway.application.directory.all())
    assert gateway.ask("POST", INVOKE, b"{}").status == 404


def test_an_agent_that_is_removed_ends_its_calls(gateway: Gateway) -> None:
    """And is unknown from then on."""
    runner = gateway.ready()
    asked = gateway.send("POST", INVOKE, b"{}")
    runner.expect(Frame.CALL)
    gateway.supervisor.send(AgentRemoved(agent="echo-1"))
    assert answer(asked).json()["code"] == "INSTANCE_DIED"
    assert gateway.ask("POST", INVOKE, b"{}").status == 404


def test_ready_is_told_for_each_instance(gateway: Gateway) -> None:
    """With the runner's own words, unread."""
    gateway.supervisor.serve()
    runner = gateway.supervisor.offer()
    runner.hello()
    body = b'{"entrypoints": [{"tag": "say", "unknown": [1, {}]}]}'
    runner.send(Frame.DESCRIBE, 0, None, body)
    assert gateway.supervisor.receive() == InstanceReady(instance="00000000000000a1", describe=body)


def test_a_drain_lets_open_calls_end_and_takes_no_new_ones(gateway: Gateway) -> None:
    """Then it is told."""
    runner = gateway.ready()
    asked = gateway.send("POST", INVOKE, b"{}")
    call = runner.expect(Frame.CALL)
    gateway.supervisor.send(Drain(grace_ms=5000))
    gateway.wait_until(lambda: gateway.application.announcements.draining)
    got = gateway.ask("POST", INVOKE, b"{}")
    assert (got.status, got.headers["retry-after"], got.json()["code"]) == (503, "1", "DRAINING")
    assert gateway.ask("GET", "/readyz").status == 503
    runner.result(call.call, "last")
    assert answer(asked).json() == "last"
    assert gateway.supervisor.receive() == Drained()


def test_a_drain_cancels_what_has_not_ended_within_its_grace(gateway: Gateway) -> None:
    """The caller is told, and the function too."""
    runner = gateway.ready()
    asked = gateway.send("POST", INVOKE, b"{}")
    runner.expect(Frame.CALL)
    gateway.supervisor.send(Drain(grace_ms=30))
    got = answer(asked)
    assert (got.status, got.json()["code"], got.json()["cause"]) == (503, "CANCELLED", "drain")
    assert runner.expect(Frame.CANCEL).header == b'{"reason":"drain"}'
    assert gateway.supervisor.receive() == Drained()


def test_what_is_no_message_ends_the_link_and_it_is_made_again(gateway: Gateway) -> None:
    """A supervisor of another version must not leave half a state behind."""
    if gateway.supervisor.connection is None:
        raise AssertionError("not connected")
    gateway.supervisor.connection.send(b"\xffnonsense")
    with pytest.raises(EOFError):
        gateway.supervisor.receive()
    gateway.supervisor.drop()
    gateway.supervisor.connect()
    assert gateway.ask("GET", "/readyz").status == 200
