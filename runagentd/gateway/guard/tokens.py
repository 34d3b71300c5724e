"""JWTs into principals: who calls, and what they may do.

Runs as: the gateway.
Reads from strangers: yes, the token. Anything that is not a good token raises `Refusal`, and never another exception.
Follows RFC 8725 (JWT best practice) and RFC 9068 (access tokens): one algorithm, an explicit type, exact issuer and
audience, no header that names a key elsewhere is believed, and a lifetime that has a bound.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from runagentd.gateway.guard.grants import Role, grants
from runagentd.gateway.guard.identity import Credentials, Principal, digest, refused

LIFETIME_SECONDS_MAX = 7 * 24 * 3600
SKEW_SECONDS = 30

_KEY_ID = re.compile(r"[A-Za-z0-9_.~-]{1,128}")
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_TYPES = ("at+jwt", "application/at+jwt")  # RFC 9068, section 4: both spellings, in any case


class _Header(msgspec.Struct):
    alg: str
    typ: str
    kid: str
    crit: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


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


def _from_base64url(text: str) -> bytes:
    # altchars and validate: the alphabet of RFC 4648, section 5, and nothing else.
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


class Verifier:
    """An `Authenticator` for the JWTs of one issuer, this daemon itself."""

    def __init__(self, key: Callable[[str], Ed25519PublicKey | None], *, issuer: str, audience: str) -> None:
        """`key` finds the public key of a `kid`."""
        self._key_of = key
        self._issuer = issuer
        self._audience = audience
        self._header_decoder = msgspec.json.Decoder(_Header)
        self._claims_decoder = msgspec.json.Decoder(_Claims)
        self._jws = jwt.PyJWS(algorithms=["EdDSA"])

    def takes(self, credentials: Credentials) -> bool:
        return credentials.token is not None and _COMPACT.fullmatch(credentials.token) is not None

    async def verify(self, credentials: Credentials, roles: Mapping[str, Role], now: float) -> Principal:
        """Whose token this is; `Refusal` AUTHENTICATION where it is not good."""
        token = credentials.token or ""
        claims, key_id = self._claims(token)
        self._check(claims, now)
        return Principal(
            subject=claims.sub,
            client=claims.client_id,
            token_id=claims.jti,
            issuer=claims.iss,
            issued=float(claims.iat),
            expires=float(claims.exp + SKEW_SECONDS),
            digest=digest(claims.iss, claims.sub),
            grants=grants(claims.scope.split(" "), roles),
            tenant=claims.tenant,
            signed_by=key_id,
            scopes=tuple(claims.scope.split()),
        )

    def _claims(self, token: str) -> tuple[_Claims, str]:
        key_id, key = self._key(token)
        try:
            payload = self._jws.decode_complete(token, key, algorithms=["EdDSA"])["payload"]
            return self._claims_decoder.decode(payload), key_id
        except jwt.InvalidSignatureError as error:
            raise refused("the token's signature is not valid") from error
        except msgspec.ValidationError as error:
            raise refused("the token lacks a claim, or one has the wrong type") from error
        # PyJWT, cryptography and msgspec are fed a stranger's bytes here, and what else they can raise is not
        # written down anywhere: every way to fail is a refusal.
        except Exception as error:
            raise refused("the token cannot be read") from error

    def _key(self, token: str) -> tuple[str, Ed25519PublicKey]:
        try:
            header = self._header_decoder.decode(_from_base64url(token.partition(".")[0]))
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise refused("the token's header cannot be read, or lacks alg, typ or kid") from error
        if header.crit is not msgspec.UNSET:
            # RFC 7515, section 4.1.11: an extension that we do not know must be refused, and we know none.
            raise refused("the token's header has 'crit'")
        if header.alg != "EdDSA":
            raise refused("the token's algorithm is not EdDSA")
        if header.typ.lower() not in _TYPES:
            raise refused("the token's type is not at+jwt")
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
        if claims.exp - claims.iat > LIFETIME_SECONDS_MAX:
            raise refused("the token lives longer than 7 days")
        if now >= claims.exp + SKEW_SECONDS:
            raise refused("the token has expired")
        if max(claims.iat, claims.nbf or 0) > now + SKEW_SECONDS:
            raise refused("the token is not valid yet")
        texts = {"sub": claims.sub, "client_id": claims.client_id, "jti": claims.jti}
        if claims.tenant is not None:
            texts["tenant"] = claims.tenant
        for name, text in texts.items():
            if not 1 <= len(text) <= 255 or not text.isprintable():
                raise refused(f"the token's claim '{name}' is empty, too long or not printable")
