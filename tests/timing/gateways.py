"""What a gateway is asked whose answers have to look alike; and gateways that leak."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from runagentd import apikeys
from runagentd.gateway.guard.grants import Role
from runagentd.gateway.guard.identity import Credentials, Principal, refused
from runagentd.gateway.guard.keyring import NOBODY, UNKNOWN, ApiKeys
from runagentd.gateway.pipeline import Pipeline, no_agent
from runagentd.wire.trust import ApiKey, ApiKeySecret
from tests.fakes_gateway import Gateway

OF_EACH = 64
PRESENT, ABSENT = "there, and not theirs", "not there"

Questions = dict[str, list[str]]


def prepared(gateway: Gateway, leak: str = "") -> dict[str, Questions]:
    """The questions of each pair, as bytes of HTTP; the gateway leaks from then on, where it should."""
    for number in range(OF_EACH):
        gateway.supervisor.serve(agent=f"id-{number:02}", name=f"there-{number:02}", tags=("say", "pay"))
    directory = gateway.application.directory
    gateway.wait_until(lambda: len(directory.all()) == OF_EACH)
    if leak:
        _LEAKS[leak](gateway)
    return {name: make(gateway) for name, make in PAIRS.items()}


def ask(method: str, path: str, token: str) -> str:
    """One request; the plain form for POST."""
    body = "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}" if method == "POST" else "\r\n"
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n{body}"


def new_key(gateway: Gateway, scope: str = "agents:invoke:*/*", *, expires: int = 0) -> str:
    """An API key that is known, once `Gateway.spread` was called."""
    identity = apikeys.new_id()
    text = apikeys.create(identity)
    gateway.store.add_api_key(
        ApiKey(
            id=identity, subject="alice", tenant=None, scopes=(scope,), created=int(time.time()), expires=expires,
            addresses=(), secrets=(ApiKeySecret(digest=apikeys.digest(text), until=0),),
        ),
        "test",
    )  # fmt: skip
    return text


def with_another_secret(text: str) -> str:
    """A well-formed key with the same id."""
    identity = apikeys.parse(text)
    if identity is None:
        raise ValueError("this is no API key")
    return apikeys.create(identity)


def _keys(gateway: Gateway) -> Questions:
    known = [with_another_secret(new_key(gateway)) for _ in range(OF_EACH)]
    gateway.spread()
    unknown = [apikeys.create(apikeys.new_id()) for _ in range(OF_EACH)]
    return {
        PRESENT: [ask("GET", "/v1/agents", key) for key in known],
        ABSENT: [ask("GET", "/v1/agents", key) for key in unknown],
    }


def _revoked_keys(gateway: Gateway) -> Questions:
    keys = [new_key(gateway) for _ in range(OF_EACH)]
    for key in keys:
        gateway.store.revoke_api_key(apikeys.parse(key) or "")
    gateway.spread()
    unknown = [apikeys.create(apikeys.new_id()) for _ in range(OF_EACH)]
    return {
        PRESENT: [ask("GET", "/v1/agents", key) for key in keys],
        ABSENT: [ask("GET", "/v1/agents", key) for key in unknown],
    }


def _agents(gateway: Gateway) -> Questions:
    token = gateway.token("mine", ttl=3600)
    path = "/v1/agents/{}/entrypoints/say:invoke"
    return {
        PRESENT: [ask("POST", path.format(f"there-{number:02}"), token) for number in range(OF_EACH)],
        ABSENT: [ask("POST", path.format(f"where-{number:02}"), token) for number in range(OF_EACH)],
    }


def _entrypoints(gateway: Gateway) -> Questions:
    key = new_key(gateway, "agents:invoke:there-*/say")
    gateway.spread()
    path = "/v1/agents/there-{:02}/entrypoints/{}:invoke"
    return {
        PRESENT: [ask("POST", path.format(number, "pay"), key) for number in range(OF_EACH)],
        ABSENT: [ask("POST", path.format(number, "yap"), key) for number in range(OF_EACH)],
    }


PAIRS: Mapping[str, Callable[[Gateway], Questions]] = {
    "an API key with another secret, or an unknown one": _keys,
    "an API key that was revoked, or an unknown one": _revoked_keys,
    "an agent that is not theirs, or none": _agents,
    "an entrypoint that is not theirs, or none": _entrypoints,
}


# ---- on purpose


class EarlyKeys(ApiKeys):
    """An id that is not there is refused before anything is compared."""

    async def verify(self, credentials: Credentials, roles: Mapping[str, Role], now: float) -> Principal:
        if self._find(apikeys.parse(credentials.token or "") or "") is NOBODY:
            raise refused(UNKNOWN)
        return await super().verify(credentials, roles, now)


def leak_keys(gateway: Gateway, kind: type[ApiKeys] = EarlyKeys) -> None:
    """From now on."""
    identity = gateway.application.identity
    identity._authenticators = tuple(
        kind(each._find, issuer=each._issuer) if isinstance(each, ApiKeys) else each
        for each in identity._authenticators
    )


def early_find(self: Pipeline, principal: Principal, identity: str) -> object:
    """Looks at what the caller may do only where there is an agent, as seems natural."""
    if self._directory.find(identity) is None:
        raise no_agent(identity)
    return _find(self, principal, identity)


_find = Pipeline._find


def leak_agents(gateway: Gateway) -> None:
    """From now on."""
    Pipeline._find = early_find  # type: ignore[method-assign,assignment] # in a process of its own


_LEAKS: Mapping[str, Callable[[Gateway], None]] = {"early keys": leak_keys, "early agents": leak_agents}
LEAKS: Mapping[str, tuple[str, ...]] = {
    "early keys": ("an API key with another secret, or an unknown one",),
    "early agents": ("an agent that is not theirs, or none",),
}
