"""A call, stage by stage: each may refuse it, and each call leaves exactly one record.

Runs as: the gateway.
Reads from strangers: what a door has taken apart; the stages check what it means.

    request → admit → authenticate → authorize → limit → decode → limit → once → cache → route → channel ⇢ runner
                                                                                               respond → record

What limits an entrypoint alone is asked after the body has named it; `once` answers a call that ran before, and a call
with a key of its own asks no cache.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

import msgspec

from runagentd import errors
from runagentd.errors import Refusal
from runagentd.gateway.agents import Agent
from runagentd.gateway.announcements import Announcements
from runagentd.gateway.calls import Asked, Call, Mode, Replay, State
from runagentd.gateway.directory import Directory
from runagentd.gateway.guard.identity import Credentials, Identity, Principal, refused
from runagentd.gateway.guard.limits import Hold, Limits, Rule
from runagentd.gateway.kept import idempotency
from runagentd.gateway.kept.caching import Keeper, Member, Stage, directives
from runagentd.gateway.kept.idempotency import Ledger
from runagentd.gateway.kept.invocation import Contents
from runagentd.gateway.requests import WORKER_LOST, CallRecord, Request
from runagentd.gateway.trace import Tracer
from runagentd.gateway.values import Value, canonical
from runagentd.log import Log

OPEN_REQUESTS_MAX = 2048
"""Calls in this process at one time, over all agents."""
HELD_BACK_SECONDS = 0.05
HELD_BACK_MAX = 256
"""Refusals that wait at one time; the next ones do not, for each that waits is an open call."""


@dataclass(frozen=True, slots=True)
class View:
    """An agent as one caller sees it: the tags that exist for them."""

    agent: Agent
    tags: frozenset[str]


@dataclass(frozen=True, slots=True)
class Offer:
    """An entrypoint as one caller sees it."""

    agent: Agent
    tag: str
    rules: tuple[Rule, ...]


class Pipeline:
    """Everything between the doors and the channels. `sink` takes every record, with contents where they are kept."""

    def __init__(
        self,
        *,
        identity: Identity,
        directory: Directory,
        announcements: Announcements,
        limits: Limits,
        ledger: Ledger,
        caching: Stage,
        tracer: Tracer,
        log: Log,
        sink: Callable[[CallRecord, Contents | None], None],
    ) -> None:
        self._identity = identity
        self._directory = directory
        self._announcements = announcements
        self._limits = limits
        self._ledger = ledger
        self._caching = caching
        self.tracer = tracer
        self._log = log
        self._sink = sink
        self._running: set[Running] = set()
        self._held_back = 0

    def begin(self, request: Request) -> Running:
        """Use as a context: on leaving it, the call has ended one way or another, and its record is written."""
        return Running(self, request)

    async def run(self, request: Request, running: Running) -> None:
        """All stages up to the channel, in their order; `Refusal` from any of them."""
        self.admit(request)
        principal = running.principal = self.recall(request) or await self.principal(request.credentials)
        if not self._announcements.introduced:
            await self._announcements.know_agents()
        agent = running.agent = self.authorize(principal, request.agent)
        if self._limits.on:
            self.limit(request, principal, agent, running)
        asked = await self.decode(request, agent, principal, running)
        if running.revoked:
            raise _revoked()
        if agent.split.shares and not self._directory.names_a_version(request.agent):
            agent, asked = self.draw(request, asked, agent, running)
        if self._limits.on_tags:
            self.limit_tag(request, asked.tag, agent, running)
        running.single = asked.mode is Mode.SINGLE
        if agent.limits.history_contents:
            running.contents = Contents(asked.arguments, single=running.single)
        if request.idempotency_key is not None:
            if self.once(request, asked, agent, running):
                return
        elif agent.entrypoints[asked.tag].cache is not None and self.cache(request, asked, agent, principal, running):
            return
        self.route(asked, agent, running)

    # ---- the stages

    def admit(self, request: Request) -> None:
        """Whether there is room at all."""
        if self._announcements.draining:
            raise Refusal(errors.DRAINING, errors.DRAINING.title, retry_after=1)
        if len(self._running) > OPEN_REQUESTS_MAX:
            raise Refusal(errors.OVERLOADED, "the daemon has too many open calls", retry_after=1)

    def recall(self, request: Request) -> Principal | None:
        """Who calls, where that was found out a moment ago, and what an address may try is not limited."""
        return None if self._limits.on_addresses else self._identity.recall(request.credentials)

    async def principal(self, credentials: Credentials) -> Principal:
        """Whose credentials these are. What an address may try is asked before anything that costs processor time."""
        limits = self._limits
        try:
            limits.request(credentials.address)
            barred = limits.barred(credentials.address)
            if barred is not None and self._identity.recall(credentials) is None:
                raise barred
        except Refusal:
            await self._hold_back()
            raise
        try:
            return await self._identity.principal(credentials)
        except Refusal as refusal:
            if refusal.kind is errors.AUTHENTICATION and credentials.token is not None:
                limits.failed(credentials.address)
            raise

    async def _hold_back(self) -> None:
        """Let an address that is beyond its limit wait for its refusal: it cannot flood faster than it is answered."""
        if self._held_back < HELD_BACK_MAX:
            self._held_back += 1
            try:
                await asyncio.sleep(HELD_BACK_SECONDS)
            finally:
                self._held_back -= 1

    async def me(self, credentials: Credentials) -> tuple[Principal, list[dict[str, object]]]:
        """Who asks, and what is left of their limits."""
        principal = await self.principal(credentials)
        return principal, self._limits.of(principal)

    async def _asker(self, credentials: Credentials) -> Principal:
        """Who asks about agents, once it is known which there are."""
        principal = await self.principal(credentials)
        await self._announcements.know_agents()
        return principal

    async def visible(self, credentials: Credentials, identity: str) -> View:
        """The agent of this id or name, for questions that are no calls."""
        principal = await self._asker(credentials)
        return self._view(principal, self._find(principal, identity))

    async def callable(self, credentials: Credentials, identity: str) -> tuple[Principal, Agent]:
        """The caller, and an agent that they may call, for questions about calls."""
        principal = await self._asker(credentials)
        return principal, self.authorize(principal, identity)

    async def callable_all(self, credentials: Credentials) -> tuple[Principal, frozenset[str]]:
        """The caller, and the ids of all agents that they may call."""
        principal = await self._asker(credentials)
        sees, names = principal.grants.sees, self._directory.names
        return principal, frozenset(agent.id for agent in self._directory.all() if sees(names(agent.id)))

    def open_calls(self) -> list[Running]:
        """Requests that are under way and known to be for an agent, the last one first."""
        found = [running for running in self._running if running.agent is not None]
        return sorted(found, key=lambda running: running.request.arrived, reverse=True)

    async def visible_all(self, credentials: Credentials) -> list[View]:
        """Every agent that the caller may know of."""
        return self._views(await self._asker(credentials))

    async def catalogue(self, credentials: Credentials) -> list[Offer]:
        """Every entrypoint that the caller may know of, and what limits their calls to it."""
        principal = await self._asker(credentials)
        return [
            Offer(view.agent, tag, tuple(self._limits.rules(principal, view.agent.id, view.agent.name, tag)))
            for view in self._views(principal)
            for tag in view.agent.entrypoints
            if tag in view.tags
        ]

    def authorize(self, principal: Principal, identity: str) -> Agent:
        """The agent, where the caller may call it. One that exists but is not theirs looks exactly like none.

        Which of its entrypoints they may call is asked in `decode`, once a body has named one.
        """
        agent = self._find(principal, identity)
        if not principal.grants.sees(self._directory.names(agent.id)):
            raise Refusal(
                errors.PERMISSION,
                f"this token may look at agent {identity!r} and not call it",
                headers={"WWW-Authenticate": 'Bearer realm="runagentd", error="insufficient_scope"'},
            )
        return agent

    def _find(self, principal: Principal, identity: str) -> Agent:
        """The agent of this id or name; `Refusal` where there is none that the caller may know of.

        Whether there is one at all is asked last: until then nothing depends on it, so that time does not tell.
        """
        agent = self._directory.find(identity)
        if not self._sees(principal, identity) or agent is None:
            raise no_agent(identity)
        return agent

    def _sees(self, principal: Principal, identity: str) -> bool:
        return principal.grants.sees(self._directory.names(identity)) or principal.grants.has("agents:read")

    def _views(self, principal: Principal) -> list[View]:
        return [self._view(principal, agent) for agent in self._directory.all() if self._sees(principal, agent.id)]

    def _view(self, principal: Principal, agent: Agent) -> View:
        if principal.grants.has("agents:read"):
            return View(agent, frozenset(agent.entrypoints))
        names = self._directory.names(agent.id)
        return View(agent, frozenset(tag for tag in agent.entrypoints if principal.grants.may_invoke(names, tag)))

    def limit(self, request: Request, principal: Principal, agent: Agent, running: Running) -> None:
        """What the caller and the agent have left."""
        running.hold = self._limits.calls(principal, agent.id, agent.name, running.headers, request.door)

    def limit_tag(self, request: Request, tag: str, agent: Agent, running: Running) -> None:
        """What the entrypoint has left."""
        running.hold = self._limits.tag(agent.id, agent.name, tag, running.hold, running.headers, request.door)

    async def decode(self, request: Request, agent: Agent, principal: Principal, running: Running) -> Asked:
        """The body, read and checked to be arguments; of policy, entrypoint and caller the nearest deadline."""
        if request.declared_bytes is not None and request.declared_bytes > agent.limits.request_bytes:
            raise Refusal(
                errors.TOO_LARGE,
                f"the request is larger than the {agent.limits.request_bytes} bytes that the agent takes",
            )
        decoded = await request.decode(agent.limits.request_bytes)
        running.tag = decoded.tag
        if not self._may_invoke(principal, agent, decoded.tag) or decoded.tag not in agent.entrypoints:
            # "not found" is what RunAgent's clients look for in the text of a stream's error.
            raise Refusal(errors.NOT_FOUND, f"entrypoint {decoded.tag!r} not found in agent {agent.name!r}")
        if decoded.refusal is not None:
            raise decoded.refusal
        limit = agent.deadline_ms(decoded.tag)
        deadline_ms = limit if decoded.timeout_ms is None else min(limit, decoded.timeout_ms)
        running.hurried = deadline_ms < limit
        return Asked(
            request.id,
            decoded.tag,
            decoded.mode,
            decoded.arguments,
            (decoded.received or request.arrived) + deadline_ms / 1000,
            principal.digest,
            principal.within_tenant if agent.limits.one_caller else principal.digest,
            running.trace.traceparent,
            running.trace.state,
        )

    def draw(self, request: Request, asked: Asked, agent: Agent, running: Running) -> tuple[Agent, Asked]:
        """Which version of the agent has the call, and its own deadline where that is nearer."""
        running.drawn = True
        drawn = running.agent = agent.split.draw(agent, asked.tag)
        if drawn is agent:
            return agent, asked
        own = request.arrived + drawn.deadline_ms(asked.tag) / 1000
        return drawn, asked if asked.deadline <= own else msgspec.structs.replace(asked, deadline=own)

    def _may_invoke(self, principal: Principal, agent: Agent, tag: str) -> bool:
        return principal.grants.may_invoke(self._directory.names(agent.id), tag)

    def once(self, request: Request, asked: Asked, agent: Agent, running: Running) -> bool:
        """Whether the call ran before, and `running` has what came of it."""
        key = idempotency.parse(request.idempotency_key or "")
        path = f"{request.door}/{agent.id}" + (f"/{asked.tag}" if request.door == "native" else "")
        content = asked.tag.encode() + b"\0" + canonical(asked.arguments)
        before = self._ledger.begin(key, principal=asked.caller, path=path, mode=asked.mode, request=content)
        if isinstance(before, idempotency.Entry):
            running.entry = before
            return False
        running.headers["Idempotency-Replayed"] = "true"
        if isinstance(before, Refusal):
            raise before
        running.replay = Replay(before)
        return True

    def cache(self, request: Request, asked: Asked, agent: Agent, principal: Principal, running: Running) -> bool:
        """Whether there is something kept, or another call for the same is under way."""
        found = self._caching.look(asked, agent, principal, directives(request.cache_control))
        if found is None:
            return False
        running.headers.update(found.headers)
        if request.door != "native":
            running.headers.pop("ETag", None)  # it is not that of the envelope, in which there is a time
        else:
            running.fields = found.fields
        running.keeper = found.observer
        if isinstance(found.source, Member):
            running.member = found.source
            if found.started is not None and running.hold is not None and found.started.state is not State.CLOSED:
                found.started.released, running.hold = running.hold.release, None
        else:
            running.replay = found.source
        return found.source is not None

    def route(self, asked: Asked, agent: Agent, running: Running) -> None:
        """On its way to a runner, or in the agent's queue."""
        call = running.call = Call(asked, agent.loop)
        if running.entry is not None:
            call.observer, call.once = running.entry, True
        elif running.keeper is not None:
            call.observer = running.keeper
        if running.hold is not None:
            call.released = running.hold.release
        try:
            agent.submit(call)
        except Refusal:
            call.close()
            if running.entry is not None:
                running.entry.forget()
            raise

    # ---- record

    def entered(self, running: Running) -> None:
        """One more open request."""
        self._running.add(running)

    def left(self, running: Running, record: CallRecord) -> None:
        """One request fewer, and its record."""
        self._running.discard(running)
        agent = running.agent
        # Who chose the version by its alias could choose whose calls fail.
        if agent is not None and running.drawn and running.call is not None:
            agent.split.tally.add(agent.side, running.refusal, hurried=running.hurried)
        self._sink(record, running.contents)

    def end_revoked(self) -> None:
        """End every open call of whoever is not to be believed any more."""
        for running in list(self._running):
            if running.principal is not None and not self._identity.stands(running.principal):
                running.revoke()

    def unexpected(self, request: Request, error: Exception) -> Refusal:
        """A fault of ours: logged with its place, told without it."""
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        where = f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}" if place is not None else "?"
        self._log.error(
            "a request failed in the gateway", request=request.id, problem=type(error).__name__, where=where
        )
        return Refusal(errors.SERVER, errors.SERVER.title)


def _revoked() -> Refusal:
    return refused("the token, key or certificate was revoked")


def _gone(error: BaseException | None) -> Refusal:
    """Why nobody waits for the answer."""
    if isinstance(error, asyncio.CancelledError) and error.args == (WORKER_LOST,):
        return Refusal(errors.CANCELLED, "the worker that had the client's connection ended", cause=WORKER_LOST)
    return Refusal(errors.CANCELLED, "the client went away", cause="client")


def no_agent(identity: str) -> Refusal:
    """The one answer for an agent that is not there and for one that is somebody else's."""
    return Refusal(errors.AGENT_NOT_FOUND, f"there is no agent {identity!r} that this token may call")


class Running:
    """One request's way through the pipeline: `async with` gives it, and its end is recorded once."""

    __slots__ = (
        "_pipeline",
        "_recorded",
        "agent",
        "call",
        "chunks",
        "contents",
        "drawn",
        "entry",
        "fields",
        "headers",
        "hold",
        "hurried",
        "keeper",
        "member",
        "principal",
        "refusal",
        "replay",
        "request",
        "result_bytes",
        "revoked",
        "single",
        "tag",
        "trace",
    )

    def __init__(self, pipeline: Pipeline, request: Request) -> None:
        self._pipeline = pipeline
        self._recorded = False
        self.request = request
        self.trace = pipeline.tracer.begin(request.traceparent, request.tracestate, request.id)
        self.principal: Principal | None = None
        self.agent: Agent | None = None
        self.call: Call | None = None
        self.tag: str | None = None
        self.refusal: Refusal | None = None
        self.hold: Hold | None = None
        """places that limits count: the call's from `route` on"""
        self.entry: idempotency.Entry | None = None
        """the key under which the call must run once"""
        self.drawn = False
        """whether it was drawn by lot which version has it"""
        self.hurried = False
        """whether its caller gives it less time than the agent has"""
        self.single = True
        self.member: Member | None = None
        """its part in a call that it shares with others"""
        self.keeper: Keeper | None = None
        """who keeps the answer of its call"""
        self.fields: Callable[[Value], dict[str, str]] | None = None
        """headers that depend on the result"""
        self.replay: Replay | None = None
        """what came of a call that ran before"""
        self.contents: Contents | None = None
        """arguments and results, where the agent's policy has them kept"""
        self.revoked = False
        self.chunks = 0
        self.result_bytes = 0
        self.headers: dict[str, str] = {"traceresponse": self.trace.traceresponse}
        """fields that stages add to the answer, also to a refusal"""

    def __enter__(self) -> Running:
        self._pipeline.entered(self)
        return self

    async def start(self) -> None:
        """Take the request through all stages up to the channel."""
        try:
            await self._pipeline.run(self.request, self)
        except Refusal as refusal:
            self._refused(refusal)
            raise
        except ConnectionError:
            raise  # the client is gone: there is nobody to tell
        except TimeoutError as error:
            raise self._refused(Refusal(errors.SLOW_CALLER, "the request's body did not arrive in time")) from error
        except Exception as error:
            raise self._refused(self._pipeline.unexpected(self.request, error)) from error

    async def next(self, *, patience: float | None = None) -> Value | None:
        """The next value, or None at the end; the record is written then, before the last byte is sent."""
        source = self.call or self.replay or self.member
        if source is None:
            raise self._refused(Refusal(errors.SERVER, errors.SERVER.title))
        try:
            value = await source.next(patience=patience)
        except Refusal as refusal:
            self._refused(refusal)
            raise
        if value is None:
            self.record()
        else:
            self._delivered(value)
            if self.fields is not None:
                self.headers.update(self.fields(value))
            if self.single:
                self.record()
        return value

    def at_hand(self, bytes_max: int) -> list[Value]:
        """More of a stream that has come already, to be sent in one piece with what `next` has given."""
        source = self.call or self.replay or self.member
        found = source.at_hand(bytes_max) if source is not None else []
        for value in found:
            self._delivered(value)
        return found

    def _delivered(self, value: Value) -> None:
        self.chunks += 1
        self.result_bytes += len(value.body)
        if self.contents is not None:
            self.contents.delivered(value.body)

    @property
    def began(self) -> bool:
        """Whether there is something to read."""
        return self.call is not None or self.replay is not None or self.member is not None

    def leave(self) -> None:
        """The client is gone: the call is cancelled, and whoever waits in `next` gets a `Refusal`.

        A call with an idempotency key goes on: its client can ask again, and has the result then.
        """
        if self.member is not None:
            self.member.leave()
        if self.entry is not None and self.entry.detached:
            return
        if self.call is not None and self.agent is not None and not self.call.ended:
            self.agent.abandon(self.call, "client")

    def revoke(self) -> None:
        """The caller is not to be believed any more: the call ends now, or does not begin."""
        self.revoked = True
        if self.call is not None and self.agent is not None:
            self.call.cut(_revoked())
            self.agent.abandon(self.call, "revoked")
        if self.member is not None:
            self.member.cut(_revoked())

    def _refused(self, refusal: Refusal) -> Refusal:
        self.refusal = refusal
        refusal.headers = {**self.headers, **refusal.headers}
        self.record()
        return refusal

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()  # a door that leaves before the end has a client that is gone, or too slow
        if not self._recorded:
            if self.refusal is None:
                self.refusal = _gone(error)
            self.record()

    def record(self) -> None:
        """Write the record; later calls do nothing."""
        if self._recorded:
            return
        self._recorded = True
        if self.call is None and self.hold is not None:
            self.hold.release()
        request, principal, refusal = self.request, self.principal, self.refusal
        call = self.member.flight.call if self.member is not None else self.call
        now = time.monotonic()
        self._pipeline.left(
            self,
            CallRecord(
                request.id,
                request.door,
                request.peer,
                principal.subject if principal is not None else None,
                principal.digest if principal is not None else None,
                self.agent.id if self.agent is not None else None,
                self.tag,
                call.instance or None if call is not None else None,
                refusal.kind.code if refusal is not None else "OK",
                refusal.cause if refusal is not None else None,
                self._detail(refusal) if refusal is not None else None,
                time.time() - (now - request.arrived),
                now - request.arrived,
                call.started - request.arrived if call is not None and call.started else None,
                len(call.asked.arguments) if call is not None else None,
                self.result_bytes,
                self.chunks,
                request.client,
                self.trace,
                request.route,
                request.path,
                self._status() if self.trace.recorded else 0,
                refusal.kind.fault if refusal is not None else None,
            ),
        )

    def _status(self) -> int:
        """Of the answer, as far as there is one: a WebSocket has none, and whoever is gone gets none."""
        refusal, native = self.refusal, self.request.door == "native"
        if self.request.route.startswith("GET ") or (refusal is not None and refusal.kind is errors.CANCELLED):
            return 0
        if refusal is None or (native and self.chunks and not self.single):
            return 200
        return refusal.kind.native_status if native else refusal.kind.runagent_status

    def _detail(self, refusal: Refusal) -> str:
        # Why somebody is not believed is said in our words alone, and before anything of a call was looked at.
        if self.contents is None and refusal.kind is not errors.AUTHENTICATION:
            return refusal.kind.title  # a message may quote an argument, or what the function knows
        kind = refusal.exception_type
        return refusal.message if kind is None else f"{kind}: {refusal.message}"
