"""JWTs into principals: who calls, and what they may do.

Runs as: the gateway.
Reads from strangers: yes, the token. Anything that is not a good token raises `Refusal`, and never another exception.
Follows RFC 8725 (JWT best practice) and RFC 9068 (access tokens): one algorithm, an explicit type, exact issuer and
audience, no header that names a key elsewhere is believed, and a lifetime that has a bound.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Collection, Mapping

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from runagentd.gateway.guard.grants import Role, grants
from runagentd.gateway.guard.identity import Credentials, Principal, digest, refused

LIFETIME_SECONDS_MAX = 7 * 24 * 3600
SKEW_SECONDS = 30
FORGED_MAX = 1024
"""Tokens with a wrong signature that are remembered."""

_FORGED = "the token's signature is not valid"
_KEY_ID = re.compile(r"[A-Za-z0-9_.~-]{1,128}")
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


class Header(msgspec.Struct):
    """What is looked at of a token's header (RFC 7515, section 4.1). Fields that name keys elsewhere are not."""

    alg: str
    typ: str
    kid: str
    crit: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_HEADER = msgspec.json.Decoder(Header)


def looks_like_one(token: str | None) -> bool:
    """Whether it has the three parts of a compact JWS."""
    return token is not None and _COMPACT.fullmatch(token) is not None


def header_of(token: str, *, algorithms: Collection[str], types: Collection[str]) -> Header:
    """The header, where it is one that can be believed so far; `Refusal` AUTHENTICATION where it is not."""
    try:
        header = _HEADER.decode(from_base64url(token.partition(".")[0]))
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise refused("the token's header cannot be read, or lacks alg, typ or kid") from error
    if header.crit is not msgspec.UNSET:
        # RFC 7515, section 4.1.11: an extension that we do not know must be refused, and we know none.
        raise refused("the token's header has 'crit'")
    if header.alg not in algorithms:
        raise refused(f"the token's algorithm is not {' or '.join(algorithms)}")
    # RFC 7515, section 4.1.9: in any case, and what begins with "application/" may leave that out.
    if header.typ.lower().removeprefix("application/") not in types:
        raise refused(f"the token's type is not {' or '.join(types)}")
    return header


def check_times(issued: float, expires: float, not_before: float, *, lifetime_max: float, now: float) -> None:
    """Whether it holds now, as far as two clocks may differ, and for no longer than it may."""
    if expires - issued > lifetime_max:
        raise refused(f"the token lives longer than {_days(lifetime_max)}")
    if now >= expires + SKEW_SECONDS:
        raise refused("the token has expired")
    if max(issued, not_before) > now + SKEW_SECONDS:
        raise refused("the token is not valid yet")


def check_texts(texts: Mapping[str, str]) -> None:
    """Claims that are shown to people and written to logs."""
    for name, text in texts.items():
        if not 1 <= len(text) <= 255 or not text.isprintable():
            raise refused(f"the token's claim '{name}' is empty, too long or not printable")


def _days(seconds: float) -> str:
    return f"{seconds / 86400:g} days" if seconds != 86400 else "a day"


class _Claims(msgspec.Struct):
    iss: str
    aud: str | list[str]
    sub: str
    client_id: str
    iat: int
    exp: int
    jti: str
    scope: str
    nbf: int | None = None
    tenant: str | None = None


def from_base64url(text: str) -> bytes:
    """The bytes; ValueError for what is none of it."""
    # altchars and validate: the alphabet of RFC 4648, section 5, and nothing else.
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


class Verifier:
    """An `Authenticator` for the JWTs of one issuer, this daemon itself."""

    def __init__(self, key: Callable[[str], Ed25519PublicKey | None], *, issuer: str, audience: str) -> None:
        """`key` finds the public key of a `kid`."""
        self._key_of = key
        self._issuer = issuer
        self._audience = audience
        self._claims_decoder = msgspec.json.Decoder(_Claims)
        self._jws = jwt.PyJWS(algorithms=["EdDSA"])
        self._forged: dict[bytes, Ed25519PublicKey] = {}
        """By digest, with the key that did not sign them: that stays true for ever.

        To find it out takes 150 µs, and who has such a token shows it again and again: an attacker, or a client that
        nobody has told of a new one.
        """

    def takes(self, credentials: Credentials) -> bool:
        return looks_like_one(credentials.token)

    async def verify(self, credentials: Credentials, roles: Mapping[str, Role], now: float) -> Principal:
        """Whose token this is; `Refusal` AUTHENTICATION where it is not good."""
        token = credentials.token or ""
        claims, key_id = self._claims(token, credentials.token_digest() or b"")
        self._check(claims, now)
        return Principal(
            subject=claims.sub,
            client=claims.client_id,
            token_id=claims.jti,
            issuer=claims.iss,
            issued=float(claims.iat),
            expires=float(claims.exp + SKEW_SECONDS),
            says=float(claims.exp),
            digest=digest(claims.iss, claims.sub),
            grants=grants(claims.scope.split(" "), roles),
            tenant=claims.tenant,
            signed_by=key_id,
            scopes=tuple(claims.scope.split()),
        )

    def _claims(self, token: str, token_digest: bytes) -> tuple[_Claims, str]:
        key_id, key = self._key(token)
        if self._forged.get(token_digest) is key:
            raise refused(_FORGED)
        try:
            payload = self._jws.decode_complete(token, key, algorithms=["EdDSA"])["payload"]
            return self._claims_decoder.decode(payload), key_id
        except jwt.InvalidSignatureError as error:
            while len(self._forged) >= FORGED_MAX:
                # Dictionaries keep the order of insertion, so the first is the oldest.
                del self._forged[next(iter(self._forged))]
            self._forged[token_digest] = key
            raise refused(_FORGED) from error
        except msgspec.ValidationError as error:
            raise refused("the token lacks a claim, or one has the wrong type") from error
        # PyJWT, cryptography and msgspec are fed a stranger's bytes here, and what else they can raise is not
        # written down anywhere: every way to fail is a refusal.
        except Exception as error:
            raise refused("the token cannot be read") from error

    def _key(self, token: str) -> tuple[str, Ed25519PublicKey]:
        header = header_of(token, algorithms=("EdDSA",), types=("at+jwt",))
        key = self._key_of(header.kid) if _KEY_ID.fullmatch(header.kid) else None
        if key is None:
            raise refused("the token names a key that is not known here")
        return header.kid, key

    def _check(self, claims: _Claims, now: float) -> None:
        audience = claims.aud if isinstance(claims.aud, str) else claims.aud[0] if len(claims.aud) == 1 else ""
        if claims.iss != self._issuer:
            raise refused("the token's issuer is another one")
        if audience != self._audience:
            raise refused("the token is meant for another installation")
        check_times(claims.iat, claims.exp, claims.nbf or 0, lifetime_max=LIFETIME_SECONDS_MAX, now=now)
        texts = {"sub": claims.sub, "client_id": claims.client_id, "jti": claims.jti}
        check_texts(texts if claims.tenant is None else {**texts, "tenant": claims.tenant})
