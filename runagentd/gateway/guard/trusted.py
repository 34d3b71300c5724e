"""Every kind of credentials that is believed, in one place: for the gateway, and for who asks without one.

Runs as: the gateway, runagentctl.
Reads from strangers: yes, what is judged.
"""

from __future__ import annotations

from collections.abc import Iterable

from runagentd.gateway.guard.identity import Authenticator, Credentials, Identity, Principal
from runagentd.gateway.guard.keyring import ApiKeys
from runagentd.gateway.guard.tokens import Verifier
from runagentd.gateway.guard.trust import Told, Trust


def authenticators(trust: Trust, *, issuer: str, audience: str) -> tuple[Authenticator, ...]:
    """In the order in which they are asked."""
    return (ApiKeys(trust.api_key, issuer=issuer), Verifier(trust.key, issuer=issuer, audience=audience))


async def judge(token: str, told: Iterable[object], *, issuer: str, audience: str, now: float) -> Principal:
    """Whose token or API key it is; `Refusal` where it is not to be believed. `told` is what a gateway is told."""
    trust = Trust(lambda: now)
    for message in told:
        if isinstance(message, Told):
            trust.tell(message)
    trust.apply()
    found = authenticators(trust, issuer=issuer, audience=audience)
    return await Identity(found, trust=trust, roles={}, clock=lambda: now).principal(Credentials(token))
