"""`/.well-known/jwks.json`: the keys that tokens of this installation are signed with, now or soon.

Runs as: the gateway.
Reads from strangers: nothing.
For others who want to believe our tokens, so it needs no token: a JWK Set (RFC 7517) of OKP keys (RFC 8037).
"""

from __future__ import annotations

import base64
import json

from runagentd.errors import Refusal
from runagentd.gateway.doors.native import check_method
from runagentd.gateway.doors.problems import problem
from runagentd.gateway.exchange import Exchange, Reply
from runagentd.gateway.guard.trust import Trust

MAX_AGE_SECONDS = 300
"""A new key is published for at least as long before it signs (`signing.PUBLISHED_SECONDS_MIN`)."""


class PublicKeys:
    """Answers with what `trust` holds at that moment."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust

    async def answer(self, exchange: Exchange) -> Reply:
        """The JWK Set, or a problem."""
        try:
            check_method(exchange, "GET", "HEAD")
            await self._trust.known()
        except Refusal as refusal:
            return problem(refusal, exchange.id)
        keys = [
            {
                "kty": "OKP",
                "crv": "Ed25519",
                "alg": "EdDSA",
                "use": "sig",
                "kid": key.key_id,
                "x": base64.urlsafe_b64encode(key.public).rstrip(b"=").decode("ascii"),
            }
            for key in self._trust.public_keys()
        ]
        return Reply(
            200,
            json.dumps({"keys": keys}).encode("ascii"),
            content_type="application/jwk-set+json",
            headers={"Cache-Control": f"public, max-age={MAX_AGE_SECONDS}"},
        )
