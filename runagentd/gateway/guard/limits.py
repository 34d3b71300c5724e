"""The stage `limit`: rates, places and daily quotas, by address, principal, tenant, agent and tag.

Runs as: the gateway.
Reads from strangers: addresses and names, which are only compared.
A call is charged for principal, tenant and agent, or for nothing; then for its entrypoint, once a body has named it:
what it has cost the others is not given back, for a bucket that has been full since would get too much.
A place is given back when the call's code has really stopped.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections.abc import Iterator, Sequence

import msgspec

from runagentd import errors
from runagentd.errors import Refusal
from runagentd.gateway.guard.gcra import SECOND, Buckets, Rate
from runagentd.gateway.guard.identity import Principal
from runagentd.gateway.guard.proxies import parse
from runagentd.gateway.guard.quota import DAY_SECONDS, Quotas
from runagentd.wire import settings

KEYS_MAX = 100_000
"""Buckets of one kind that are not full: 100 bytes each."""


ADDRESSES_REMEMBERED = 4096
"""To read an address takes 3 µs, to find it again 0.1."""


class Rule(msgspec.Struct, frozen=True):
    """What one key of a kind may have; None and 0 do not limit."""

    kind: str
    rate: Rate | None
    concurrency: int
    daily: int


class Charge(msgspec.Struct, frozen=True):
    """A rule, and whose bucket it is about."""

    rule: Rule
    key: str


class Hold:
    """Places that a call takes, until it is released."""

    __slots__ = ("_places", "_taken")

    def __init__(self, places: dict[str, int]) -> None:
        self._places = places
        self._taken: list[str] = []

    def take(self, key: str) -> None:
        self._places[key] = self._places.get(key, 0) + 1
        self._taken.append(key)

    def release(self) -> None:
        """Give all back; later calls do nothing."""
        taken, self._taken = self._taken, []
        for key in taken:
            left = self._places[key] - 1
            if left:
                self._places[key] = left
            else:
                del self._places[key]


class Limits:
    """Every limit and its state. State stays where settings change: a bucket is full or not whatever its rate."""

    def __init__(self, configured: settings.Limits, quotas: Quotas) -> None:
        self._quotas = quotas
        self._buckets: dict[str, Buckets] = {}
        self._places: dict[str, int] = {}
        self.configure(configured)

    def configure(self, configured: settings.Limits) -> None:
        """Other rules from now on."""
        self._rules: dict[tuple[str, str], Rule] = {}
        for limit in configured.limits:
            rate = Rate(limit.count, limit.seconds, limit.burst) if limit.count else None
            self._rules[limit.kind, limit.name] = Rule(limit.kind, rate, limit.concurrency, limit.daily)
            self._buckets.setdefault(limit.kind, Buckets(KEYS_MAX))
        self._with_exceptions = {kind for kind, name in self._rules if name}
        self._loopback = configured.loopback
        self._keys: dict[str, str | None] = {}
        self._address = self._rules.get(("address", ""))
        self._failed_login = self._rules.get(("failed_login", ""))
        kinds = {kind for kind, _ in self._rules}
        self.on = not kinds.isdisjoint(("principal", "tenant", "agent"))
        """whether `calls` has anything to do"""
        self.on_addresses = self._address is not None and self._address.rate is not None
        """whether `request` has anything to do"""
        self.on_tags = "tag" in kinds

    def configured(self) -> Iterator[tuple[str, str, str, float]]:
        """Every limit that is set: its kind, for whom (empty for everybody), what of it, and how much."""
        for (kind, name), rule in self._rules.items():
            if rule.rate is not None:
                yield kind, name, "rate_per_second", rule.rate.count / rule.rate.seconds
                yield kind, name, "burst", rule.rate.burst
            if rule.concurrency:
                yield kind, name, "concurrency", rule.concurrency
            if rule.daily:
                yield kind, name, "daily", rule.daily

    # ---- addresses

    def connection(self, peer: str) -> Hold | None:
        """A place for a connection of this peer; None where it has as many as it may."""
        rule, hold = self._address, Hold(self._places)
        key = self._key_of(peer) if rule is not None and rule.concurrency else None
        if rule is not None and key is not None:
            place = f"address:{key}"
            if self._places.get(place, 0) >= rule.concurrency:
                return None
            hold.take(place)
        return hold

    def request(self, address: str) -> None:
        """A request from an address, before anything else of it is looked at."""
        self._charge_address(self._address, address)

    def barred(self, address: str) -> Refusal | None:
        """Why this address may not even try to show who it is; None where it may."""
        rule = self._failed_login
        if rule is None or not self._buckets[rule.kind]:
            return None
        key = self._key_of(address)
        if rule.rate is not None and key is not None:
            wait = self._buckets[rule.kind].wait(key, rule.rate, time.monotonic_ns())
            if wait:
                return _refusal(rule, wait / SECOND, "too many failed logins from this address")
        return None

    def failed(self, address: str) -> None:
        """It has failed to."""
        rule = self._failed_login
        key = self._key_of(address) if rule is not None else None
        if rule is not None and rule.rate is not None and key is not None:
            self._buckets[rule.kind].take(key, rule.rate, time.monotonic_ns())

    def _charge_address(self, rule: Rule | None, address: str) -> None:
        if rule is None or rule.rate is None:
            return
        key = self._key_of(address)
        if key is None:
            return
        now, buckets = time.monotonic_ns(), self._buckets[rule.kind]
        wait = buckets.wait(key, rule.rate, now)
        if wait:
            raise _refusal(rule, wait / SECOND, "too many requests from this address")
        buckets.take(key, rule.rate, now)

    def _key_of(self, address: str) -> str | None:
        """An IPv4 address, or the /64 of an IPv6 one, which one client owns whole; None where it is not limited."""
        try:
            return self._keys[address]
        except KeyError:
            pass
        if len(self._keys) >= ADDRESSES_REMEMBERED:
            self._keys.clear()
        key = self._keys[address] = self._find_key(address)
        return key

    def _find_key(self, address: str) -> str | None:
        parsed = parse(address)
        if parsed is None:
            return address
        if parsed.is_loopback and not self._loopback:
            return None
        if isinstance(parsed, ipaddress.IPv6Address):
            return parsed.packed[:8].hex()
        return str(parsed)

    # ---- calls

    def calls(
        self, principal: Principal, agent: str, agent_name: str, headers: dict[str, str], door: str
    ) -> Hold | None:
        """Charge a call for whom it is of and for what it is to."""
        if not self.on:
            return None
        charges = [
            self._charge("principal", principal.digest, principal.subject),
            self._charge("agent", agent, agent, agent_name),
        ]
        if principal.tenant is not None:
            charges.append(self._charge("tenant", principal.tenant, principal.tenant))
        hold = Hold(self._places)
        self._take([charge for charge in charges if charge is not None], hold, headers, door)
        return hold

    def tag(
        self, agent: str, agent_name: str, tag: str, hold: Hold | None, headers: dict[str, str], door: str
    ) -> Hold | None:
        """Charge it for its entrypoint, too."""
        if not self.on_tags:
            return hold
        charge = self._charge("tag", f"{agent}/{tag}", f"{agent}/{tag}", f"{agent_name}/{tag}")
        if charge is None:
            return hold
        hold = hold or Hold(self._places)
        self._take([charge], hold, headers, door)
        return hold

    def of(self, principal: Principal) -> list[dict[str, object]]:
        """What a principal has left, for `GET /v1/me`."""
        charges = [self._charge("principal", principal.digest, principal.subject)]
        if principal.tenant is not None:
            charges.append(self._charge("tenant", principal.tenant, principal.tenant))
        now = time.monotonic_ns()
        names = ("name", "quota", "window", "left", "reset")
        return [
            dict(zip(names, row, strict=True))
            for charge in charges
            if charge is not None
            for row in self._left(charge, now)
        ]

    def rules(self, principal: Principal, agent: str, agent_name: str, tag: str) -> list[Rule]:
        """What an operator has set for calls of this caller to this entrypoint, from the address to the tag."""
        found = [
            self._charge("principal", "", principal.subject),
            self._charge("tenant", "", principal.tenant) if principal.tenant is not None else None,
            self._charge("agent", "", agent, agent_name),
            self._charge("tag", "", f"{agent}/{tag}", f"{agent_name}/{tag}"),
        ]
        rules = [charge.rule for charge in found if charge is not None]
        if self._address is not None:
            rules.insert(0, self._address)
        return [rule for rule in rules if rule.rate is not None or rule.concurrency or rule.daily]

    def _charge(self, kind: str, key: str, *names: str) -> Charge | None:
        if kind in self._with_exceptions:
            for name in names:
                rule = self._rules.get((kind, name)) if name else None
                if rule is not None:
                    return Charge(rule, key)
        rule = self._rules.get((kind, ""))
        return None if rule is None else Charge(rule, key)

    def _take(self, charges: Sequence[Charge], hold: Hold, headers: dict[str, str], door: str) -> None:
        now = time.monotonic_ns()
        try:
            for charge in charges:
                self._ask(charge, now)
            for charge in charges:
                rule = charge.rule
                if rule.daily and not self._quotas.take(f"{rule.kind}:{charge.key}", rule.daily, time.time()):
                    raise _used_up(rule)
        except Refusal:
            hold.release()
            self._show(charges, headers, door, now)
            raise
        for charge in charges:
            rule = charge.rule
            if rule.rate is not None:
                self._buckets[rule.kind].take(charge.key, rule.rate, now)
            if rule.concurrency:
                hold.take(f"{rule.kind}:{charge.key}")
        self._show(charges, headers, door, now)

    def _ask(self, charge: Charge, now: int) -> None:
        rule = charge.rule
        if rule.rate is not None:
            wait = self._buckets[rule.kind].wait(charge.key, rule.rate, now)
            if wait:
                said = f"{rule.rate.count} calls in {_seconds(rule.rate.seconds)}"
                raise _refusal(rule, wait / SECOND, f"more than {said} for this {rule.kind}")
        if rule.concurrency and self._places.get(f"{rule.kind}:{charge.key}", 0) >= rule.concurrency:
            said = f"{rule.concurrency} calls at one time"
            raise _refusal(rule, 1.0, f"more than {said} for this {rule.kind}", "concurrency")
        if rule.daily and self._quotas.left(f"{rule.kind}:{charge.key}", rule.daily, time.time()) < 1:
            raise _used_up(rule)

    def _left(self, charge: Charge, now: int) -> list[tuple[str, int, int, int, int]]:
        """(name, quota, window, what is left, seconds until it is full) of each counted limit of a charge."""
        rule, rows = charge.rule, []
        rate = rule.rate
        if rate is not None:
            left, reset = self._buckets[rule.kind].left(charge.key, rate, now)
            rows.append((rule.kind, rate.burst, rate.window_seconds, left, reset))
        if rule.daily:
            left = self._quotas.left(f"{rule.kind}:{charge.key}", rule.daily, time.time())
            rows.append((f"{rule.kind}-daily", rule.daily, DAY_SECONDS, left, math.ceil(_until_tomorrow())))
        return rows

    def _show(self, charges: Sequence[Charge], headers: dict[str, str], door: str, now: int) -> None:
        """The fields of draft-ietf-httpapi-ratelimit-headers on our door, the older ones on RunAgent's."""
        for charge in charges:
            for name, quota, window, left, reset in self._left(charge, now):
                if door != "native":
                    _show_nearest(headers, quota, left, reset)
                elif "RateLimit" in headers:
                    headers["RateLimit-Policy"] += f', "{name}";q={quota};w={window}'
                    headers["RateLimit"] += f', "{name}";r={left};t={reset}'
                else:
                    headers["RateLimit-Policy"] = f'"{name}";q={quota};w={window}'
                    headers["RateLimit"] = f'"{name}";r={left};t={reset}'


def _show_nearest(headers: dict[str, str], quota: int, left: int, reset: int) -> None:
    """One set of fields for all limits: that of the one which is nearest to its end."""
    if int(headers.get("X-RateLimit-Remaining", left)) >= left:
        headers["X-RateLimit-Limit"] = str(quota)
        headers["X-RateLimit-Remaining"] = str(left)
        headers["X-RateLimit-Reset"] = str(math.ceil(time.time()) + reset)
        headers["X-RateLimit-Reset-After"] = str(reset)


def _used_up(rule: Rule) -> Refusal:
    return _refusal(rule, _until_tomorrow(), f"the daily quota of {rule.daily} calls is used up", "daily")


def _seconds(seconds: int) -> str:
    return {1: "a second", 60: "a minute", 3600: "an hour"}.get(seconds, f"{seconds} s")


def _until_tomorrow() -> float:
    return DAY_SECONDS - time.time() % DAY_SECONDS


def _refusal(rule: Rule, wait_seconds: float, message: str, what: str = "rate") -> Refusal:
    return Refusal(errors.RATE_LIMIT, message, retry_after=wait_seconds, limit=f"{rule.kind}-{what}")
