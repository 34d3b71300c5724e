"""What the supervisor asks the gateway, and waits for: of calls, of its cache, of what is called how often.

Runs as: the supervisor.
Reads from strangers: answers of a gateway that may be captured. Pages of it are passed on unread, by the number of the
question; words are escaped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from runagentd.log import escape
from runagentd.wire import admin, control

ANSWER_SECONDS = 5.0
TRAFFIC_SECONDS = 1.0
_NO_ANSWER = admin.Failed(message="no gateway answers at the moment; the daemon's log may say why")


class Questions:
    """Those that wait for an answer. `there` is whether there is a gateway that `send` reaches."""

    def __init__(self, *, there: Callable[[], bool], send: Callable[[control.FromSupervisor], None]) -> None:
        self._there = there
        self._send = send
        self._number = 0
        self._waiting: dict[int, asyncio.Future[control.Answer]] = {}

    def answered(self, answer: control.Answer) -> None:
        """An answer has come; nothing where nobody waits for it any more."""
        waiter = self._waiting.pop(answer.number, None)
        if waiter is not None and not waiter.done():
            waiter.set_result(answer)

    async def cache(self, *, agent: str, tag: str, purge: bool) -> admin.Reply:
        """What is kept of answers, of an agent or of all (""); with `purge`, after throwing it away."""
        answer = await self._ask(lambda number: control.CacheQuestion(number=number, purge=purge, agent=agent, tag=tag))
        return answer.state if isinstance(answer, control.CacheAnswer) else _NO_ANSWER

    async def calls(self, ask: admin.CallsAsk) -> admin.Reply:
        """A page of calls, those that are under way first."""
        answer = await self._ask(lambda number: control.CallsQuestion(number=number, ask=ask))
        return admin.CallsTold(page=answer.page) if isinstance(answer, control.CallsAnswer) else _NO_ANSWER

    async def traffic(self, agents: tuple[str, ...], *, detailed: bool) -> bytes:
        """Empty where no gateway answers: what we know ourselves is shown all the same."""
        answer = await self._ask(
            lambda number: control.TrafficQuestion(number=number, agents=agents, detailed=detailed),
            seconds=TRAFFIC_SECONDS,
        )
        return answer.page if isinstance(answer, control.TrafficAnswer) else b""

    async def try_call(self, agent: str, instance: str, tag: str, timeout_ms: int) -> str:
        """What is wrong with an instance, as a call of this entrypoint shows; "" where it answers well."""
        answer = await self._ask(
            lambda number: control.TryCall(
                number=number, agent=agent, instance=instance, tag=tag, timeout_ms=timeout_ms
            ),
            seconds=timeout_ms / 1000 + TRAFFIC_SECONDS,
        )
        # An agent's words, by way of a gateway that may be captured: they go into events and onto terminals.
        return escape(answer.problem) if isinstance(answer, control.Tried) else "no gateway has said what came of it"

    async def _ask(
        self, question: Callable[[int], control.FromSupervisor], *, seconds: float = ANSWER_SECONDS
    ) -> control.Answer | None:
        """What it answers; None where it does not in time, or there is none."""
        if not self._there():
            return None
        self._number += 1
        number = self._number
        waiter: asyncio.Future[control.Answer] = asyncio.get_running_loop().create_future()
        self._waiting[number] = waiter
        self._send(question(number))
        try:
            async with asyncio.timeout(seconds):
                return await waiter
        except TimeoutError:
            return None
        finally:
            self._waiting.pop(number, None)
