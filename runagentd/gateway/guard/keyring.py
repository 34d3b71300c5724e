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

_NOBODY = (ApiKeySecret(digest=bytes(32), until=0),)
_UNKNOWN = "the API key is not known here, or no longer"


class ApiKeys:
    """An `Authenticator`. `find` gives the key of an id; `issuer` is whose subjects they act for."""

    def __init__(self, find: Callable[[str], ApiKey | None], *, issuer: str) -> None:
        self._find = find
        self._issuer = issuer

    def takes(self, credentials: Credentials) -> bool:
        return credentials.token is not None and credentials.token.startswith(apikeys.PREFIX)

    async def verify(self, credentials: Credentials, roles: Mapping[str, Role], now: float) -> Principal:
        """Whose key this is; `Refusal` AUTHENTICATION where it is not good.

        An unknown id, an expired key and a wrong secret are told alike, and after the same comparisons.
        """
        text = credentials.token or ""
        identity = apikeys.parse(text)
        if identity is None:
            raise refused("the API key is mistyped: its checksum does not fit")
        key = self._find(identity)
        shown = apikeys.digest(text)
        until = 0.0
        for secret in key.secrets if key is not None else _NOBODY:
            if hmac.compare_digest(secret.digest, shown):
                until = secret.until or math.inf
        if key is not None and key.expires:
            until = min(until, key.expires)
        if key is None or now >= until:
            raise refused(_UNKNOWN)
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
