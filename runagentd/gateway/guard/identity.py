"""Who calls: from what a client shows (a token, a key, a certificate) to a `Principal`, remembered for a while.

Runs as: the gateway.
Reads from strangers: yes, what clients show. Anything that is not good raises `Refusal`, and never another exception.
"""

from __future__ import annotations

import hashlib
import ipaddress
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from runagentd.errors import AUTHENTICATION, Refusal
from runagentd.gateway.guard.grants import Grants, Role
from runagentd.wire.trust import TOKEN_BYTES_MAX

CACHE_SECONDS = 60.0
CACHE_ENTRIES = 4096

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Credentials:
    """What a client shows of itself."""

    __slots__ = ("_token_digest", "address", "certificate", "token")

    def __init__(self, token: str | None, certificate: bytes | None = None, address: str = "") -> None:
        self.token = token
        """of the Authorization field, or of the query where a door allows it; a JWT, or an API key"""
        self.certificate = certificate
        """DER, verified in the TLS handshake against the configured authorities; None without mutual TLS"""
        self.address = address
        """where the client is, as a text of an IP address"""
        self._token_digest: bytes | None = None

    def token_digest(self) -> bytes | None:
        """SHA-256 of the token; None where there is none, or it is longer than any that we look at."""
        if self._token_digest is None and self.token is not None and len(self.token) <= TOKEN_BYTES_MAX:
            self._token_digest = hashlib.sha256(self.token.encode("utf-8", "surrogatepass")).digest()
        return self._token_digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who calls, and what they may do."""

    subject: str
    client: str
    token_id: str
    """the jti of a token, the id of an API key, the SHA-256 of a certificate: what can be revoked"""
    issuer: str
    issued: float
    expires: float
    """both in seconds since the epoch; nothing is believed after `expires`"""
    digest: str
    """an opaque name of issuer and subject: all that a runner is told about the caller"""
    grants: Grants
    tenant: str | None = None
    """the value of the claim that the configuration names for it, under the name of its issuer where that is not us"""
    signed_by: str | None = None
    """the key that signed a token of this daemon's own"""
    api_key: str | None = None
    """the id of the API key that was shown"""
    issuer_key: tuple[str, str, bytes] | None = None
    """the configured issuer whose token it was, and the id and the value of the key that signed it"""
    scopes: tuple[str, ...] = ()
    """as they were granted, for who asks what they are"""
    says: float = math.inf
    """when a token says itself that it expires: clocks may differ, so it is believed for a while longer"""
    networks: tuple[Network, ...] = ()
    """where the credentials may be used; none is everywhere"""

    @property
    def within_tenant(self) -> str:
        """An opaque name of issuer, subject and tenant: one person who acts for two tenants has two."""
        return self.digest if self.tenant is None else digest(self.digest, self.tenant)


class Rescinded(Protocol):
    """Who knows what has been revoked: `trust.Trust`."""

    async def known(self) -> None:
        """Return once anything is known at all; `Refusal` where that takes too long."""

    def stands(self, principal: Principal) -> bool:
        """Whether what a principal showed is still good."""

    def note_use(self, identity: str) -> None:
        """An API key was used."""


def digest(issuer: str, subject: str) -> str:
    """The opaque name of a principal: 32 hexadecimal digits."""
    return hashlib.sha256(f"{issuer}\0{subject}".encode("utf-8", "surrogatepass")).hexdigest()[:32]


class Foreign(Protocol):
    """Who knows which keys of other issuers are good: `issuers.Issuers`."""

    def stands(self, principal: Principal) -> bool:
        """Whether the key that signed a principal's token is still one of its issuer's."""


class Standing:
    """Implements `Rescinded` for tokens of all issuers: what is revoked here is revoked, whoever issued it."""

    def __init__(self, trust: Rescinded, foreign: Foreign) -> None:
        self._trust = trust
        self._foreign = foreign

    async def known(self) -> None:
        await self._trust.known()

    def stands(self, principal: Principal) -> bool:
        return self._trust.stands(principal) and self._foreign.stands(principal)

    def note_use(self, identity: str) -> None:
        self._trust.note_use(identity)


class Authenticator(Protocol):
    """One kind of credentials."""

    def takes(self, credentials: Credentials) -> bool:
        """Whether they look like this kind."""

    async def verify(self, credentials: Credentials, roles: Mapping[str, Role], now: float) -> Principal:
        """Whose they are; `Refusal` AUTHENTICATION where they are not good."""


class Identity:
    """Asks the first authenticator that takes the credentials, and remembers its answer for up to a minute.

    The memory is what keeps a call fast: a signature costs over 100 µs, a look at the memory about one.
    `clock` gives seconds since the epoch.
    """

    def __init__(
        self,
        authenticators: tuple[Authenticator, ...],
        *,
        trust: Rescinded,
        roles: Mapping[str, Role],
        clock: Callable[[], float],
    ) -> None:
        self._authenticators = authenticators
        self._trust = trust
        self._roles = roles
        self._clock = clock
        # By digest and not by token: what is in memory cannot be sent to us (a core dump, a debugger).
        self._known: dict[bytes, tuple[float, Principal]] = {}
        self._epoch = 0

    def recall(self, credentials: Credentials) -> Principal | None:
        """Whose token this is, where it was found good a short time ago: a look that costs a microsecond."""
        key = credentials.token_digest()
        entry = None if key is None else self._known.get(key)
        return self._admitted(entry[1], credentials) if entry is not None and self._clock() < entry[0] else None

    async def principal(self, credentials: Credentials) -> Principal:
        """Whose credentials these are; `Refusal` AUTHENTICATION where they are missing or not good."""
        if credentials.token is not None:
            key = credentials.token_digest()
            if key is None:
                raise refused("the token is longer than 8 KiB")
        elif credentials.certificate is not None:
            key = b"certificate" + hashlib.sha256(credentials.certificate).digest()
        else:
            raise refused(NOTHING_SENT)
        now = self._clock()
        entry = self._known.get(key)
        if entry is not None and now < entry[0]:
            principal = entry[1]
        else:
            principal = await self._verified(key, credentials, now)
        return self._admitted(principal, credentials)

    def _admitted(self, principal: Principal, credentials: Credentials) -> Principal:
        if principal.networks:
            _check_address(credentials.address, principal.networks)
        if principal.api_key is not None:
            self._trust.note_use(principal.api_key)
        return principal

    async def _verified(self, key: bytes, credentials: Credentials, now: float) -> Principal:
        self._known.pop(key, None)
        await self._trust.known()
        while True:
            epoch = self._epoch
            principal = await self._verify(credentials, now)
            # Else something has changed while an authenticator waited, and what it looked at is of yesterday.
            if epoch == self._epoch:
                break
        if not self._trust.stands(principal):
            raise refused("the token, key or certificate was revoked")
        while len(self._known) >= CACHE_ENTRIES:
            # Dictionaries keep the order of insertion, so the first is the oldest; all live a minute at most.
            del self._known[next(iter(self._known))]
        self._known[key] = (min(principal.expires, now + CACHE_SECONDS), principal)
        return principal

    def stands(self, principal: Principal) -> bool:
        """Whether a principal that was found before is still to be believed."""
        return self._trust.stands(principal)

    async def _verify(self, credentials: Credentials, now: float) -> Principal:
        if credentials.token == "":
            raise refused(NOTHING_SENT)
        for authenticator in self._authenticators:
            if authenticator.takes(credentials):
                return await authenticator.verify(credentials, self._roles, now)
        raise refused("the token is neither a signed JWT nor an API key")

    def set_roles(self, roles: Mapping[str, Role]) -> None:
        """Other roles from now on."""
        self._roles = roles
        self.forget()

    def forget(self) -> None:
        """A new epoch: keys, roles or revocations have changed, so nothing that was found before is believed."""
        self._epoch += 1
        self._known.clear()


NOTHING_SENT = "no token was sent"


def _check_address(address: str, networks: tuple[Network, ...]) -> None:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        found = None
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    if found is None or not any(found in network for network in networks):
        raise refused("this key may not be used from this address")


def refused(message: str) -> Refusal:
    """The one form of "who are you?". RFC 6750, section 3: the scheme, and the error where a token was sent."""
    challenge = 'Bearer realm="runagentd"' + (', error="invalid_token"' if message != NOTHING_SENT else "")
    return Refusal(AUTHENTICATION, message, headers={"WWW-Authenticate": challenge})
