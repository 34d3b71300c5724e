"""Whom this gateway believes, as the supervisor has told it: keys, API keys, and what was revoked.

Runs as: the gateway.
Reads from strangers: nothing; what is looked up here was taken apart by the authenticators.
The supervisor tells all of it at each connection, then each change. What a change consists of is applied at once when
it is complete, and until the first one is, nobody is believed and nobody is refused: calls wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from runagentd import errors
from runagentd.errors import Refusal
from runagentd.gateway.guard.identity import Principal
from runagentd.gateway.guard.keyring import NOBODY
from runagentd.gateway.guard.tokens import SKEW_SECONDS
from runagentd.wire.control import TRUST_ROWS_MAX, ApiKeysGone, ApiKeysKnown, ApiKeysUsed, Revoked, TrustedKeys
from runagentd.wire.trust import ApiKey, PublicKey

INTRODUCTION_SECONDS = 2.0
"""How long a call waits in a fresh gateway that knows no keys yet."""
USED_MAX = 10_000

Told = TrustedKeys | ApiKeysKnown | ApiKeysGone | Revoked


class Trust:
    """All of it, in memory. `clock` gives seconds since the epoch."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._told: list[Told] = []
        self._from_scratch = True
        self._known = asyncio.Event()
        self._keys: dict[str, tuple[PublicKey, Ed25519PublicKey]] = {}
        self._api_keys: dict[str, ApiKey] = {}
        self._revoked_ids: set[str] = set()
        self._revoked_up_to: dict[str, int] = {}
        self._revoked_before = 0
        self._used: set[str] = set()

    # ---- what the supervisor says

    def begin(self) -> None:
        """A new connection: all will be told again; until it has been, what was known before holds."""
        self._told.clear()
        self._from_scratch = True

    def tell(self, message: Told) -> None:
        """A part of a change."""
        self._told.append(message)

    def apply(self) -> None:
        """The change is complete."""
        if self._from_scratch:
            self._from_scratch = False
            self._api_keys, self._revoked_ids, self._revoked_up_to, self._revoked_before = {}, set(), {}, 0
        told, self._told = self._told, []
        for message in told:
            match message:
                case TrustedKeys(keys=keys):
                    self._keys = {key.key_id: (key, Ed25519PublicKey.from_public_bytes(key.public)) for key in keys}
                case ApiKeysKnown(keys=api_keys):
                    self._api_keys.update((key.id, key) for key in api_keys)
                case ApiKeysGone(ids=ids):
                    for identity in ids:
                        self._api_keys.pop(identity, None)
                case Revoked():
                    self._revoked_ids.update(message.token_ids)
                    for row in message.subjects:
                        self._revoked_up_to[row.subject] = max(row.before, self._revoked_up_to.get(row.subject, 0))
                    self._revoked_before = max(self._revoked_before, message.before)
        self._known.set()

    # ---- what the authenticators ask

    async def known(self) -> None:
        """Return once keys are known; `Refusal` where they are not in time."""
        if self._known.is_set():
            return
        try:
            async with asyncio.timeout(INTRODUCTION_SECONDS):
                await self._known.wait()
        except TimeoutError:
            raise Refusal(errors.UNAVAILABLE, "the daemon is starting", retry_after=1) from None

    def key(self, key_id: str) -> Ed25519PublicKey | None:
        """The key that tokens with this `kid` have to be signed with."""
        entry = self._keys.get(key_id)
        return entry[1] if entry is not None and self._believed(entry[0]) else None

    def _believed(self, key: PublicKey) -> bool:
        return key.until == 0 or self._clock() < key.until

    def public_keys(self) -> list[PublicKey]:
        """All that tokens may be signed with, now or soon."""
        return [key for key, _ in self._keys.values() if self._believed(key)]

    def api_key(self, identity: str) -> ApiKey:
        """The API key with this id, or `NOBODY`."""
        return self._api_keys.get(identity, NOBODY)

    def stands(self, principal: Principal) -> bool:
        """Whether what this principal showed is still good: neither revoked nor gone."""
        if principal.api_key is not None:
            return principal.api_key in self._api_keys
        if principal.signed_by is not None and self.key(principal.signed_by) is None:
            return False
        # By a clock that may be ahead of ours, "issued" may be later than a revocation that came after it.
        issued = principal.issued - (0 if principal.issuer_key is None else SKEW_SECONDS)
        return not (
            principal.token_id in self._revoked_ids
            or issued <= self._revoked_before
            or issued <= self._revoked_up_to.get(principal.subject, 0)
        )

    # ---- when API keys were used

    def note_use(self, identity: str) -> None:
        """An API key was used; reported in batches."""
        if len(self._used) < USED_MAX:
            self._used.add(identity)

    def take_used(self) -> list[ApiKeysUsed]:
        """What has not been reported yet, as messages."""
        ids, self._used = sorted(self._used), set()
        return [
            ApiKeysUsed(ids=tuple(ids[first : first + TRUST_ROWS_MAX])) for first in range(0, len(ids), TRUST_ROWS_MAX)
        ]
