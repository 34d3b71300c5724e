"""The stage `cache`: answers from what is kept, and one call for all who ask the same at the same time.

Runs as: the gateway.
Reads from strangers: arguments and Cache-Control fields.
A call that fills the cache belongs to its flight and not to the caller who came first: callers may leave as they like,
and the last one to leave ends it. A stream runs for its caller alone, and is kept when it was complete.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import Callable

import msgspec

from runagentd import errors
from runagentd.errors import Refusal
from runagentd.gateway.agents import Agent
from runagentd.gateway.calls import Asked, Call, Mode, Replay
from runagentd.gateway.guard.identity import Principal
from runagentd.gateway.kept.cache import Cache, Entry, etag_of, key_of, size_of
from runagentd.gateway.values import Value, canonical
from runagentd.wire.manifest import CacheScope, Caching

NAME = "runagentd"
REFRESHES_MAX = 16
"""Calls in the background at one time, over all agents."""

FORM_BYTES_MAX, FORMS_MAX = 1024, 1024

_DIRECTIVE = re.compile(r'\s*([A-Za-z-]{1,32})(?:="?([0-9]{1,10})"?)?\s*')


class Directives(msgspec.Struct, frozen=True):
    """What a request wants (RFC 9111, section 5.2.1); what is not understood is as if it was not there."""

    no_store: bool = False
    no_cache: bool = False
    only_if_cached: bool = False
    max_age: int | None = None


def directives(field: str | None) -> Directives:
    """The ones that we know in a Cache-Control field."""
    if not field:
        return Directives()
    found: dict[str, str | None] = {}
    for part in field[:1024].split(","):
        match = _DIRECTIVE.fullmatch(part)
        if match is not None:
            found[match[1].lower()] = match[2]
    age = found.get("max-age")
    return Directives(
        no_store="no-store" in found,
        no_cache="no-cache" in found,
        only_if_cached="only-if-cached" in found,
        max_age=None if age is None else int(age),
    )


class Place(msgspec.Struct, frozen=True):
    """Where an answer belongs."""

    partition: str
    key: bytes
    rules: Caching
    agent: str
    tag: str
    request_id: str


class Keeper:
    """Observes a call and keeps its answer, if it was whole and good."""

    def __init__(self, cache: Cache, place: Place) -> None:
        self._cache = cache
        self._place = place
        self._values: list[Value] | None = []
        self._bytes = 0

    def delivered(self, value: Value) -> None:
        """A result or a chunk."""
        self._bytes += len(value.body)
        if self._values is None or self._bytes > self._place.rules.max_bytes:
            self._values = None
        else:
            self._values.append(value)

    def ended(self, call: Call, error: Refusal | None) -> None:
        """Nothing more comes."""
        del call
        if error is not None or not self._values:
            return
        place, values = self._place, tuple(self._values)
        entry = Entry(
            values, etag_of(values), time.monotonic(), place.rules.ttl, place.rules.swr, size_of(values), place.agent,
            place.tag, place.request_id,
        )  # fmt: skip
        self._cache.store(place.partition, place.key, entry)


class Flight:
    """One call, and all who wait for its result."""

    def __init__(self, call: Call, keeper: Keeper, over: Callable[[], None]) -> None:
        self.call = call
        self.members: set[Member] = set()
        self._keeper = keeper
        self._over = over
        self._value: Value | None = None
        self._error: Refusal | None = None
        self._done = False

    def delivered(self, value: Value) -> None:
        self._value = value
        self._keeper.delivered(value)

    def ended(self, call: Call, error: Refusal | None) -> None:
        self._keeper.ended(call, error)
        self._error, self._done = error, True
        self._over()
        for member in self.members:
            member.wake()

    def outcome(self) -> Value | None:
        """The result; a `Refusal` of one's own where the call failed. None while it runs."""
        if not self._done:
            return None
        if self._error is not None:
            raise self._error.copy()
        if self._value is None:
            raise Refusal(errors.SERVER, errors.SERVER.title)
        return self._value


class Member:
    """One caller's part of a flight. `last` is called when nobody waits for it any more."""

    def __init__(self, flight: Flight, *, deadline: float, last: Callable[[Flight], None]) -> None:
        self.flight = flight
        self._deadline = deadline
        self._last = last
        self._waiter: asyncio.Future[None] | None = None
        self._cut: Refusal | None = None
        self._read = False
        flight.members.add(self)

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def next(self, *, patience: float | None = None) -> Value | None:
        """The result, then None. Each caller has its own deadline, whatever the flight's is."""
        if self._read:
            return None
        while True:
            if self._cut is not None:
                raise self._cut
            value = self.flight.outcome()
            if value is not None:
                self._read = True
                return value
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise Refusal(errors.TIMEOUT, f"{errors.TIMEOUT.title} while its function ran", cause="deadline")
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(left if patience is None else min(left, patience)):
                    await self._waiter
            except TimeoutError:
                if patience is not None and time.monotonic() < self._deadline:
                    raise
            finally:
                self._waiter = None

    def at_hand(self, bytes_max: int) -> list[Value]:
        """None: there is one result, and `next` gives it."""
        del bytes_max
        return []

    def leave(self) -> None:
        """This caller wants nothing more."""
        if self in self.flight.members:
            self.flight.members.discard(self)
            if not self.flight.members and not self.flight.call.ended:
                self._last(self.flight)

    def cut(self, error: Refusal) -> None:
        """This caller is to have nothing more."""
        self._cut = error
        self.wake()
        self.leave()


class Found(msgspec.Struct):
    """What the stage has found out about one request."""

    source: Replay | Member | None = None
    started: Call | None = None
    """the call that was made for this request, where it shares one"""
    observer: Keeper | None = None
    """of a call that the request has to make itself"""
    headers: dict[str, str] = {}
    fields: Callable[[Value], dict[str, str]] | None = None
    """more headers, once the result is there"""


class Stage:
    """The cache and its flights."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self._keys: dict[tuple[str, str, str, str, bool, bytes], bytes] = {}
        self._flights: dict[tuple[str, bytes], Flight] = {}
        self._refreshes = 0

    def look(self, asked: Asked, agent: Agent, principal: Principal, wanted: Directives) -> Found | None:
        """What there is for this request; None where its entrypoint keeps nothing."""
        rules = agent.entrypoints[asked.tag].cache
        if rules is None or not self.cache.bytes_max or (asked.mode is Mode.STREAM and not rules.streams):
            return None
        if wanted.no_store:
            return Found(headers={"Cache-Status": f"{NAME}; fwd=request"})
        place = self._place(asked, agent, principal, rules)
        counts = self.cache.count(agent.id)
        entry = None if wanted.no_cache else self.cache.find(place.partition, place.key)
        if entry is not None:
            age = int(time.monotonic() - entry.stored)
            if wanted.max_age is None or age <= wanted.max_age:
                if age < entry.ttl:
                    counts.hits += 1
                    return _hit(entry, age, f"{NAME}; hit; ttl={entry.ttl - age}", rules)
                if age < entry.ttl + entry.swr:
                    counts.stale += 1
                    self._refresh(place, asked, agent)
                    return _hit(entry, age, f"{NAME}; hit; ttl={entry.ttl - age}; detail=stale", rules)
        if wanted.only_if_cached:
            raise Refusal(errors.NOT_CACHED, errors.NOT_CACHED.title)
        reason = "request" if wanted.no_cache else "stale" if entry is not None else "miss"
        if asked.mode is Mode.STREAM:
            counts.misses += 1
            return Found(
                observer=Keeper(self.cache, place),
                headers={"Cache-Status": f"{NAME}; fwd={reason}", **_control(rules, 0)},
            )
        flight = self._flights.get((place.partition, place.key))
        collapsed = flight is not None
        if flight is None:
            counts.misses += 1
            flight = self._start(place, asked, agent)
        else:
            counts.joined += 1
        member = Member(flight, deadline=asked.deadline, last=lambda flight: agent.abandon(flight.call, "client"))
        status = f"{NAME}; fwd={reason}" + ("; collapsed" if collapsed else "")
        return Found(
            source=member,
            started=None if collapsed else flight.call,
            headers={"Cache-Status": status},
            fields=lambda value: _fresh(value, rules),
        )

    def _start(self, place: Place, asked: Asked, agent: Agent) -> Flight:
        """A call for whoever asks; its deadline is the entrypoint's, and not that of the caller who came first."""
        deadline = time.monotonic() + agent.deadline_ms(asked.tag) / 1000
        call = Call(msgspec.structs.replace(asked, deadline=deadline), agent.loop)
        where = (place.partition, place.key)

        def over() -> None:
            self._flights.pop(where, None)

        flight = Flight(call, Keeper(self.cache, place), over)
        call.observer = flight
        agent.submit(call)
        if not call.ended:
            self._flights[where] = flight
        return flight

    def _refresh(self, place: Place, asked: Asked, agent: Agent) -> None:
        """A call in the background, charged to nobody; where there is no room for it, the next caller tries again."""
        where = (place.partition, place.key)
        if where in self._flights or self._refreshes >= REFRESHES_MAX:
            return
        try:
            flight = self._start(place, asked, agent)
        except Refusal:
            return
        if flight.call.ended:
            return
        self._refreshes += 1
        over = flight._over

        def finished() -> None:
            self._refreshes -= 1
            over()

        flight._over = finished

    def _place(self, asked: Asked, agent: Agent, principal: Principal, rules: Caching) -> Place:
        match rules.scope:
            case CacheScope.PUBLIC:
                partition = "everybody"
            case CacheScope.TENANT if principal.tenant is not None:
                tenant = hashlib.sha256(f"{principal.issuer}\0{principal.tenant}".encode("utf-8", "surrogatepass"))
                partition = f"tenant {tenant.hexdigest()}"
            case _:
                partition = f"principal {asked.caller}"
        return Place(partition, self._key(asked, agent), rules, agent.id, asked.tag, asked.request_id)

    def _key(self, asked: Asked, agent: Agent) -> bytes:
        """Of short arguments it is remembered: to put them into their canonical form takes ten microseconds."""
        streams, arguments = asked.mode is Mode.STREAM, asked.arguments
        question = (agent.id, agent.version, agent.policy_digest, asked.tag, streams, arguments)
        key = self._keys.get(question)
        if key is None:
            key = key_of(
                agent.id.encode(), agent.version.encode(), agent.policy_digest.encode(), asked.tag.encode(),
                asked.mode.value.encode(), canonical(arguments),
            )  # fmt: skip
            if len(arguments) <= FORM_BYTES_MAX:
                if len(self._keys) >= FORMS_MAX:
                    self._keys.clear()
                self._keys[question] = key
        return key


def _hit(entry: Entry, age: int, status: str, rules: Caching) -> Found:
    headers = {"Cache-Status": status, "Age": str(age), "ETag": entry.etag, **_control(rules, age)}
    return Found(source=Replay(entry.values), headers=headers)


def _fresh(value: Value, rules: Caching) -> dict[str, str]:
    return {"ETag": etag_of((value,)), **_control(rules, 0)}


def _control(rules: Caching, age: int) -> dict[str, str]:
    who = "public" if rules.scope is CacheScope.PUBLIC else "private"
    stale = f", stale-while-revalidate={rules.swr}" if rules.swr else ""
    return {"Cache-Control": f"{who}, max-age={max(0, rules.ttl - age)}{stale}", "Vary": "Authorization"}
