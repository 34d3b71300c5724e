"""One call of the supervisor's own, on an instance that nobody else calls yet: whether a new version is well.

Runs as: the gateway.
Reads from strangers: what the function returns or raises; of the first it is only looked at whether it is `false`.
"""

from __future__ import annotations

import asyncio

from runagentd.errors import Refusal
from runagentd.gateway.agents import Agent
from runagentd.gateway.calls import OURS, Asked, Call, Mode
from runagentd.gateway.instances import Phase
from runagentd.gateway.requests import request_id
from runagentd.gateway.trace import Tracer
from runagentd.wire.control import TRIED_CHARACTERS_MAX, TryCall

NO_ARGUMENTS = b"[[],{}]"


async def problem(agent: Agent | None, question: TryCall) -> str:
    """What was wrong; "" where the function has answered, and not with `false`."""
    instance = agent.instances.get(question.instance) if agent is not None else None
    if agent is None or instance is None or instance.phase is not Phase.READY or instance.description is None:
        return "its instance is there no more"
    told = next((each for each in instance.description.entrypoints if each.tag == question.tag), None)
    if told is None:
        return "there is no such function"
    required = [parameter.name for parameter in told.parameters if parameter.required]
    if required:
        return f"it needs arguments ({', '.join(required)}), and is called without any"[:TRIED_CHARACTERS_MAX]
    identity = request_id(None)
    call = Call(
        Asked(
            request_id=identity,
            tag=question.tag,
            mode=Mode.STREAM if told.streams else Mode.SINGLE,
            arguments=NO_ARGUMENTS,
            deadline=asyncio.get_running_loop().time() + question.timeout_ms / 1000,
            principal="",
            caller=OURS,
            traceparent=Tracer(recording=False, share=0.0).begin(None, None, identity).traceparent,
        )
    )
    agent.try_out(call, instance)
    try:
        while (value := await call.next()) is not None:
            if value.body == b"false":
                agent.abandon(call, "client")
                return "it answered false"
    except Refusal as refusal:
        return refusal.message[:TRIED_CHARACTERS_MAX] or refusal.kind.title
    return ""
