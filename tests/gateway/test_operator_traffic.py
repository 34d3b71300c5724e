"""What `runagentctl top` and `describe` are told of calls."""

from __future__ import annotations

from runagentd.wire import traffic
from runagentd.wire.channel import Frame
from runagentd.wire.control import TrafficAnswer, TrafficQuestion
from tests.fakes_gateway import FakeRunner, Gateway, answer

INVOKE = "/v1/agents/echo-1/entrypoints/say:invoke"


def ask(gateway: Gateway, *agents: str, detailed: bool = False) -> traffic.Traffic:
    """What the gateway tells its supervisor, which is the test."""
    gateway.supervisor.send(TrafficQuestion(number=7, agents=agents, detailed=detailed))
    told = gateway.supervisor.receive()
    assert isinstance(told, TrafficAnswer)
    assert told.number == 7
    return traffic.parse(told.page)


def call(gateway: Gateway, runner: FakeRunner, *, good: bool) -> None:
    asked = gateway.send("POST", INVOKE, b"{}")
    frame = runner.expect(Frame.CALL)
    if good:
        runner.result(frame.call, 1)
    else:
        runner.error(frame.call, "exception", "no", type="ValueError")
    answer(asked)


def test_agents_are_told_in_the_order_in_which_they_were_asked_for(gateway: Gateway) -> None:
    """With how many calls ended, how, and how long they took; one that is not known is left out."""
    runner = gateway.ready()
    call(gateway, runner, good=True)
    call(gateway, runner, good=False)
    gateway.supervisor.serve("other-1", "other")
    told = ask(gateway, "other-1", "nobody", "echo-1")
    assert [row.agent for row in told.agents] == ["other-1", "echo-1"]
    row = told.agents[1]
    assert (row.state, row.open, row.waiting, row.calls, row.failed) == ("ready", 0, 0, 2, 1)
    assert sum(row.times.buckets) == 2
    assert (row.outcomes, row.tags, row.instances) == ((), (), ())
    assert told.since_ns < told.made_ns


def test_one_agent_in_detail(gateway: Gateway) -> None:
    """Its entrypoints, the most called first, and its instances; a tag that a caller made up is not among them."""
    runner = gateway.ready("rare", "say")
    call(gateway, runner, good=True)
    call(gateway, runner, good=False)
    gateway.ask("POST", "/v1/agents/echo-1/entrypoints/made-up:invoke", b"{}")
    [row] = ask(gateway, "echo-1", detailed=True).agents
    assert [(tag.tag, tag.calls, tag.failed) for tag in row.tags] == [("say", 2, 1), ("rare", 0, 0)]
    assert {(count.name, count.count) for count in row.outcomes} == {("OK", 1), ("FUNCTION_ERROR", 1), ("NOT_FOUND", 1)}
    assert [(each.instance, each.open, each.calls) for each in row.instances] == [("00000000000000a1", 0, 2)]


def test_a_page_is_bounded_however_much_there_is(gateway: Gateway) -> None:
    """256 entrypoints with long names are more than a message holds: those that are called least are left out."""
    tags = tuple(f"{number:03}" + "\N{SNOWMAN}" * 197 for number in range(256))
    gateway.supervisor.serve(tags=tags[:90])  # what a manifest holds
    [row] = ask(gateway, "echo-1", detailed=True).agents
    assert len(row.tags) == 90
    agent = gateway.inside(lambda: gateway.application.directory.find("echo-1"))
    agent.entrypoints |= dict.fromkeys(tags, agent.entrypoints[tags[0]])
    [row] = ask(gateway, "echo-1", detailed=True).agents
    assert len(row.tags) == 128
    assert traffic.BYTES_MAX == 128 * 1024
