"""Instances that serve one caller each: who gets which, who gives way, and that no call reaches another's."""

from __future__ import annotations

import dataclasses
import http.client
import json

import pytest

from runagentd.gateway import binding
from runagentd.wire.channel import Frame
from runagentd.wire.control import (
    Cause,
    Demand,
    FromGateway,
    InstanceReady,
    ReplaceInstance,
    Retire,
    Retired,
    Scaling,
    Tried,
    TryCall,
)
from runagentd.wire.manifest import CacheScope, Caching
from tests.fakes_gateway import LIMITS, FakeRunner, Gateway, abort, answer

INVOKE = "/v1/agents/echo-1/entrypoints/say:invoke"
A1, A2, A3 = "00000000000000a1", "00000000000000a2", "00000000000000a3"
APART = dataclasses.replace(LIMITS, one_caller=True, idle_ms=60_000)


def ready(gateway: Gateway, instance: str) -> FakeRunner:
    """One more instance, ready."""
    runner = gateway.supervisor.offer(instance=instance, limits=APART)
    runner.ready("say")
    while not isinstance(gateway.supervisor.receive(), InstanceReady):
        pass
    return runner


def serve(gateway: Gateway, *instances: str, maximum: int = 0) -> list[FakeRunner]:
    maximum = maximum or len(instances)
    gateway.supervisor.serve(limits=APART, scaling=Scaling(minimum=1, maximum=maximum))
    return [ready(gateway, instance) for instance in instances]


def call(gateway: Gateway, subject: str, tenant: str | None = None) -> http.client.HTTPConnection:
    return gateway.send("POST", INVOKE, b"{}", token=gateway.token(subject=subject, tenant=tenant))


def end(runner: FakeRunner, asked: http.client.HTTPConnection, value: object = 1) -> None:
    """The runner has the call, and answers it."""
    runner.result(runner.expect(Frame.CALL).call, value)
    assert answer(asked).json() == value


def told(gateway: Gateway, kind: type[FromGateway]) -> FromGateway:
    """The next message of this kind; what is said of the demand meanwhile is passed over."""
    while not isinstance(message := gateway.supervisor.receive(), kind):
        pass
    return message


def nothing_comes(runner: FakeRunner) -> None:
    runner.socket.settimeout(0.1)
    with pytest.raises(TimeoutError):
        runner.receive()
    runner.socket.settimeout(10)


def test_a_call_of_the_daemons_own_leaves_the_instance_to_the_first_caller(gateway: Gateway) -> None:
    """Whether a version is well is asked with nothing of anybody's; an instance that has a caller is not asked."""
    gateway.supervisor.serve(limits=APART)
    runner = gateway.supervisor.offer(instance=A1, limits=APART)
    runner.hello()
    entry = {
        "tag": "say", "file": "main.py", "module": "run", "parameters": [], "doc": "", "streams": False,
        "asynchronous": False, "returns": "bool",
    }  # fmt: skip
    runner.send(Frame.DESCRIBE, 0, None, json.dumps({"import_ms": 1.5, "entrypoints": [entry]}).encode())
    told(gateway, InstanceReady)
    question = TryCall(number=1, agent="echo-1", instance=A1, tag="say", timeout_ms=5000)
    gateway.supervisor.send(question)
    runner.result(runner.expect(Frame.CALL).call, True)
    assert told(gateway, Tried) == Tried(number=1, problem="")
    end(runner, call(gateway, "a"))
    gateway.supervisor.send(question)
    assert told(gateway, Tried) == Tried(number=1, problem="something went wrong in runagentd")
    nothing_comes(runner)


def test_a_caller_comes_back_to_its_own_instance(gateway: Gateway) -> None:
    """Two callers by turns, two instances: each the same one every time."""
    one, other = serve(gateway, A1, A2)
    end(one, call(gateway, "a"))
    for _ in range(3):
        end(other, call(gateway, "b"))
        end(one, call(gateway, "a"))


def test_one_person_in_two_tenants_is_two_callers(gateway: Gateway) -> None:
    """What was said in one tenant's name is not to be found in the other's."""
    one, other = serve(gateway, A1, A2)
    end(one, call(gateway, "a", "red"))
    end(other, call(gateway, "a", "blue"))
    end(one, call(gateway, "a", "red"))


def test_what_a_repeated_call_is_answered_with_is_of_one_tenant(gateway: Gateway) -> None:
    """The same person, key and arguments: in the name of another tenant it is another call."""
    one, two = serve(gateway, A1, A2)
    key = {"Idempotency_Key": '"key-of-16-letters"'}
    acme, other = (gateway.token(subject="alice", tenant=tenant) for tenant in ("acme", "other"))
    asked = gateway.send("POST", INVOKE, b"{}", token=acme, **key)
    end(one, asked, "for acme")
    asked = gateway.send("POST", INVOKE, b"{}", token=other, **key)
    end(two, asked, "for the other")
    again = gateway.ask("POST", INVOKE, b"{}", token=acme, **key)
    assert (again.json(), again.headers["idempotency-replayed"]) == ("for acme", "true")


def test_answers_are_kept_for_each_of_the_two_as_well(gateway: Gateway) -> None:
    """The cache does not carry over what instances do not."""
    caching = Caching(ttl=60, swr=0, scope=CacheScope.PRIVATE, streams=False, max_bytes=1024)
    gateway.supervisor.serve(limits=APART, cache=caching, scaling=Scaling(minimum=2, maximum=2))
    one, other = ready(gateway, A1), ready(gateway, A2)
    end(one, call(gateway, "a", "red"), "of red")
    end(other, call(gateway, "a", "blue"), "of blue")
    assert answer(call(gateway, "a", "red")).json() == "of red"


def test_a_wrong_choice_sends_nothing(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever chooses the instance: where the call would go into a sandbox, it is looked at once more."""
    (runner,) = serve(gateway, A1)
    end(runner, call(gateway, "a"))
    monkeypatch.setattr(binding, "choose", lambda seats, caller, target: seats[0])
    refused = answer(call(gateway, "b"))
    assert (refused.status, refused.json()["code"]) == (500, "SERVER_ERROR")
    nothing_comes(runner)
    assert any("its instance serves another caller" in line for line in gateway.log_lines)
    end(runner, call(gateway, "a"))


def test_the_longest_unused_gives_way_at_the_maximum(gateway: Gateway) -> None:
    """It gets no more calls, the supervisor is told why, and the one that comes instead serves who waits."""
    one, other = serve(gateway, A1, A2)
    end(one, call(gateway, "a"))
    end(other, call(gateway, "b"))
    end(one, call(gateway, "a"))
    third = call(gateway, "c")
    assert told(gateway, ReplaceInstance) == ReplaceInstance(instance=A2, cause=Cause.EVICTED)
    gateway.supervisor.gone(Cause.EVICTED, instance=A2)
    end(ready(gateway, A3), third)
    end(one, call(gateway, "a"))


def test_below_the_maximum_another_one_is_asked_for(gateway: Gateway) -> None:
    """What there is has a caller; nobody is ended while there may be more."""
    gateway.supervisor.serve(limits=APART, scaling=Scaling(minimum=0, maximum=2))
    assert told(gateway, Demand) == Demand(agent="echo-1", instances=0)
    asked = call(gateway, "a")
    assert told(gateway, Demand) == Demand(agent="echo-1", instances=1)
    one = ready(gateway, A1)
    end(one, asked)
    asked = call(gateway, "b")
    assert told(gateway, Demand) == Demand(agent="echo-1", instances=2)
    end(ready(gateway, A2), asked)
    end(one, call(gateway, "a"))


def test_a_busy_instance_is_waited_for_and_its_caller_is_not_in_the_way_of_others(gateway: Gateway) -> None:
    """a's own second call waits in front of b's, for a place that b cannot have; b's goes ahead where it can."""
    one, other = serve(gateway, A1, A2)
    first, frame = call(gateway, "a"), one.expect(Frame.CALL)
    end(other, call(gateway, "b"))
    second = call(gateway, "b")
    frame_of_b = other.expect(Frame.CALL)
    agent = gateway.inside(lambda: gateway.application.directory.find("echo"))
    waiting = call(gateway, "a")
    gateway.wait_until(lambda: agent.waiting == 1)
    again = call(gateway, "b")
    gateway.wait_until(lambda: agent.waiting == 2)
    other.result(frame_of_b.call, 2)
    assert answer(second).json() == 2
    end(other, again, 3)
    one.result(frame.call, 1)
    assert answer(first).json() == 1
    end(one, waiting)


def test_a_flood_gives_up_what_it_has_beyond_its_share(gateway: Gateway) -> None:
    """Both instances are the flood's; as soon as one of its calls has ended, the other caller gets that place."""
    one, other = serve(gateway, A1, A2)
    flood = [call(gateway, "a") for _ in range(2)]
    frames = [one.expect(Frame.CALL), other.expect(Frame.CALL)]
    flood += [call(gateway, "a") for _ in range(2)]
    agent = gateway.inside(lambda: gateway.application.directory.find("echo"))
    gateway.wait_until(lambda: agent.waiting == 2)
    single = call(gateway, "b")
    gateway.wait_until(lambda: agent.waiting == 3)
    other.result(frames[1].call, 1)
    assert told(gateway, ReplaceInstance) == ReplaceInstance(instance=A2, cause=Cause.EVICTED)
    gateway.supervisor.gone(Cause.EVICTED, instance=A2)
    end(ready(gateway, A3), single)
    one.result(frames[0].call, 1)
    one.result(one.expect(Frame.CALL).call, 1)
    one.result(one.expect(Frame.CALL).call, 1)
    assert [answer(each).json() for each in flood] == [1, 1, 1, 1]


def test_with_one_place_callers_take_turns(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller with calls without end keeps it for a turn; then it ends for the one who waits."""
    monkeypatch.setattr(binding, "TURN_SECONDS", 60.0)
    (runner,) = serve(gateway, A1)
    first, frame = call(gateway, "a"), runner.expect(Frame.CALL)
    agent = gateway.inside(lambda: gateway.application.directory.find("echo"))
    more = [call(gateway, "a")]
    gateway.wait_until(lambda: agent.waiting == 1)
    single = call(gateway, "b")
    gateway.wait_until(lambda: agent.waiting == 2)
    more.append(call(gateway, "a"))
    gateway.wait_until(lambda: agent.waiting == 3)
    runner.result(frame.call, 1)
    frame = runner.expect(Frame.CALL)
    monkeypatch.setattr(binding, "TURN_SECONDS", 0.0)  # its turn is over
    monkeypatch.setattr(binding, "turn_seconds", lambda seat: 0.0)
    runner.result(frame.call, 1)
    assert told(gateway, ReplaceInstance) == ReplaceInstance(instance=A1, cause=Cause.EVICTED)
    gateway.supervisor.gone(Cause.EVICTED, instance=A1)
    end(ready(gateway, A2), single)
    assert told(gateway, ReplaceInstance) == ReplaceInstance(instance=A2, cause=Cause.EVICTED)
    gateway.supervisor.gone(Cause.EVICTED, instance=A2)
    end(ready(gateway, A3), more[1])
    assert [answer(each).json() for each in (first, more[0])] == [1, 1]


def test_who_does_not_wait_any_more_costs_nobody_an_instance(gateway: Gateway) -> None:
    """b goes away while a's call runs: a keeps its instance."""
    (runner,) = serve(gateway, A1)
    first, frame = call(gateway, "a"), runner.expect(Frame.CALL)
    single = call(gateway, "b")
    agent = gateway.inside(lambda: gateway.application.directory.find("echo"))
    gateway.wait_until(lambda: agent.waiting == 1)
    abort(single)
    gateway.wait_until(lambda: agent.waiting == 0)
    runner.result(frame.call, 1)
    assert answer(first).json() == 1
    end(runner, call(gateway, "a"))


def test_what_its_caller_does_not_use_ends(gateway: Gateway) -> None:
    """After the idle time, and the demand falls before: nothing is started in its place."""
    limits = dataclasses.replace(APART, idle_ms=50)
    gateway.supervisor.serve(limits=limits, scaling=Scaling(minimum=0, maximum=2))
    assert gateway.supervisor.receive() == Demand(agent="echo-1", instances=0)
    asked = call(gateway, "a")
    runner = gateway.supervisor.offer(limits=limits)
    runner.ready("say")
    end(runner, asked)
    while (message := gateway.supervisor.receive()) != Demand(agent="echo-1", instances=0):
        assert not isinstance(message, ReplaceInstance)
    assert gateway.supervisor.receive() == ReplaceInstance(instance=A1, cause=Cause.SCALE_DOWN)


def test_of_too_many_those_that_nobody_has_end_first(gateway: Gateway) -> None:
    """But for the minimum, which is of those."""
    one, _, _ = serve(gateway, A1, A2, A3)
    end(one, call(gateway, "a"))
    gateway.supervisor.send(Retire(agent="echo-1", keep=2))
    assert told(gateway, Retired) == Retired(instance=A2)
    gateway.supervisor.send(Retire(agent="echo-1", keep=1))
    assert told(gateway, Retired) == Retired(instance=A1)


def test_calls_that_were_sent_ahead_are_their_callers_again(gateway: Gateway) -> None:
    """An instance ends with one of a's calls running and another one sent ahead: that one waits for a's next."""
    (one,) = serve(gateway, A1)
    for _ in range(12):
        end(one, call(gateway, "a"))
    first, frame = call(gateway, "a"), one.expect(Frame.CALL)
    second = call(gateway, "a")
    agent = gateway.inside(lambda: gateway.application.directory.find("echo"))
    gateway.wait_until(lambda: agent.waiting == 1)
    del frame
    one.close()
    gateway.supervisor.gone(Cause.SIGNAL, "killed")
    assert answer(first).json()["code"] == "INSTANCE_DIED"
    end(ready(gateway, A2), second)
