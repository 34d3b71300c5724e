"""Whom the gateway is to believe: public keys, digests of API keys, and what has been revoked.

Runs as: the supervisor (sends), the gateway (keeps it in memory). Pure.
Reads from strangers: nothing; the supervisor read it from files of root's.
Times are in whole seconds since the epoch, as in a JWT (RFC 7519, NumericDate).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

TOKEN_BYTES_MAX = 8 * 1024
"""A longer JWT is not looked at, and none is made: it travels in a field of each request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """An Ed25519 key that tokens of this installation may be signed with: 32 bytes (RFC 8032, section 5.1.5).

    `until` is 0 for a key that signs or will sign; else the key is retired, and believed until then.
    """

    key_id: str
    public: bytes
    until: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeySecret:
    """The SHA-256 of a whole key; `until` is 0 for as long as the key itself lives."""

    digest: bytes
    until: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """All that is known of an API key: two secrets at most, the second while a rotation overlaps."""

    id: str
    subject: str
    tenant: str | None
    scopes: tuple[str, ...]
    created: int
    expires: int
    """0 is never"""
    addresses: tuple[str, ...]
    """networks in CIDR form that it may be used from; none is from anywhere"""
    secrets: tuple[ApiKeySecret, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectRevoked:
    """What was issued to this subject up to and including `before`."""

    subject: str
    before: int


def signed_digest(token: str) -> str:
    """What a compact JWS is revoked by where it has no id of its own: SHA-256 of what was signed, in hexadecimal.

    And not of all of it: of an ECDSA signature (r, s) anybody can make (r, n - s), which is as good.
    """
    return hashlib.sha256(token.rpartition(".")[0].encode("utf-8", "surrogatepass")).hexdigest()
