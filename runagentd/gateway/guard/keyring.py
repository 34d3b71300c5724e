"""API keys into principals.

Runs as: the gateway.
Reads from strangers: yes, the key. Anything that is not a good one raises `Refusal`, and never another exception.
"""

from __future__ import annotations

import hmac
import ipaddress
import math
from collections.abc import Callable, Mapping

from runagentd import apikeys
from runagentd.gateway.guard.grants import Role, grants
from runagentd.gateway.guard.identity import Credentials, Principal, digest, refused
from runagentd.wire.trust import ApiKey, ApiKeySecret

_SECRETS_MAX = 2
_NO_SECRETS = (ApiKeySecret(digest=bytes(32), until=0),) * _SECRETS_MAX
"""Of which nobody knows a key: SHA-256 has no known preimage of zeros."""
NOBODY = ApiKey(
    id="", subject="", tenant=None, scopes=(), created=0, expires=0, addresses=(), secrets=(),
)  # fmt: skip
"""Stands for a key that is not there. It has no secret, so nobody can show it."""
_NEVER = {0: math.inf}
UNKNOWN = "the API key is not known here, or no longer"


class ApiKeys:
    """An `Authenticator`. `find` gives the key of an id, or `NOBODY`; `issuer` is whose subjects they act for."""

    def __init__(self, find: Callable[[str], ApiKey], *, issuer: str) -> None:
        self._find = find
        self._issuer = issuer

    def takes(self, credentials: Credentials) -> bool:
        return credentials.token is not None and credentials.token.startswith(apikeys.PREFIX)

    async def verify(self, credentials: Credentials, roles: Mapping[str, Role], now: float) -> Principal:
        """Whose key this is; `Refusal` AUTHENTICATION where it is not good.

        An unknown id, an expired key and a wrong secret are told alike, and after the same work, to the last
        instruction: tests/hostile/test_work.py.
        """
        text = credentials.token or ""
        identity = apikeys.parse(text)
        if identity is None:
            raise refused("the API key is mistyped: its checksum does not fit")
        key = self._find(identity)
        shown = apikeys.digest(text)
        until = 0.0
        for secret in (key.secrets + _NO_SECRETS)[:_SECRETS_MAX]:
            if hmac.compare_digest(secret.digest, shown):
                until = _NEVER.get(secret.until, secret.until)
        until = min(until, _NEVER.get(key.expires, key.expires))
        if now >= until:
            raise refused(UNKNOWN)
        return Principal(
            subject=key.subject,
            client=key.subject,
            token_id=key.id,
            issuer=self._issuer,
            issued=float(key.created),
            expires=until,
            digest=digest(self._issuer, key.subject),
            grants=grants(key.scopes, roles),
            tenant=key.tenant,
            api_key=key.id,
            scopes=key.scopes,
            networks=tuple(ipaddress.ip_network(each) for each in key.addresses),
        )
