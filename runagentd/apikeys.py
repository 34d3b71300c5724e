"""API keys: how one is written, made and taken apart. What is kept of one is a digest, never the key.

Runs as: runagentctl (makes them), the gateway (takes them apart). Pure but for the randomness of `create`.
Reads from strangers: yes, `parse`.

    ra_live_ + 26 characters of id + 43 characters of secret + 6 characters of checksum

The id is a ULID in Crockford's base 32 (48 bits of milliseconds, 80 random bits) and no secret: it is what lists and
logs show. The secret is 32 random bytes in base 62. The checksum is the CRC-32 (as of zlib) of all before it, in
base 62: a key with a mistake in it is told from a wrong one without a look at anything, and a scanner for leaked
secrets can tell a key from chance.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
import zlib

PREFIX = "ra_live_"
ID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_SECRET_CHARACTERS = 43  # the least n with 62**n >= 2**256
_CHECKSUM_CHARACTERS = 6  # the least n with 62**n >= 2**32
_KEY = re.compile(r"ra_live_([0-7][0-9A-HJKMNP-TV-Z]{25})[0-9A-Za-z]{43}([0-9A-Za-z]{6})")


def new_id() -> str:
    """A ULID: sorts by the time at which it was made."""
    number = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    return "".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))


def create(identity: str) -> str:
    """A new key with this id; to be shown once and kept by nobody but its user."""
    body = PREFIX + identity + _base62(secrets.randbits(256), _SECRET_CHARACTERS)
    return body + _checksum(body)


def parse(text: str) -> str | None:
    """The id of a well-formed key, None for anything else. Says nothing about whether there is such a key."""
    match = _KEY.fullmatch(text)
    if match is None or _checksum(text[:-_CHECKSUM_CHARACTERS]) != match[2]:
        return None
    return match[1]


def digest(text: str) -> bytes:
    """What is kept of a key. SHA-256 is enough for 256 random bits: a slow hash is for what people think up."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode("ascii")), _CHECKSUM_CHARACTERS)


def _base62(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits.append(_BASE62[digit])
    return "".join(reversed(digits))
