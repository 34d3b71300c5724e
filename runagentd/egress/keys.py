"""A JWK Set of an issuer's (RFC 7517) into the keys that its tokens may be signed with.

Runs as: the egress process. Pure.
Reads from strangers: yes, whatever an issuer's server, or somebody in its place, answers. Any bytes at all give keys,
or one `KeysError`; what is wrong with a single key costs that key.
"""

from __future__ import annotations

import base64
import binascii
from collections import Counter
from collections.abc import Callable, Collection
from typing import TypeAlias

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from runagentd.egress.members import Doubled, outline
from runagentd.wire.issuers import KEYS_MAX, VerifyingKey

BYTES_MAX = 256 * 1024
_RSA_BITS = range(2048, 8192 + 1)
_MEMBERS_MAX = 256
_RSA_ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_PRIVATE = ("d", "p", "q", "dp", "dq", "qi", "oth", "k")
"""RFC 7518, sections 6.2.2, 6.3.2 and 6.4: what only the holder of a private or symmetric key has."""

_Public: TypeAlias = "rsa.RSAPublicKey | ec.EllipticCurvePublicKey | Ed25519PublicKey"


class KeysError(ValueError):
    """There is no key to be had from this."""


class _Set(msgspec.Struct):
    keys: list[msgspec.Raw]


class _Jwk(msgspec.Struct):
    kty: str
    kid: str | None = None
    use: str | None = None
    key_ops: list[str] | None = None
    alg: str | None = None
    crv: str | None = None
    n: str | None = None
    e: str | None = None
    x: str | None = None
    y: str | None = None


_SET = msgspec.json.Decoder(_Set)
_JWK = msgspec.json.Decoder(_Jwk)
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])


def keys_of(data: bytes, allowed: Collection[str]) -> tuple[tuple[VerifyingKey, ...], tuple[str, ...]]:
    """The usable keys, and why others are not; `KeysError` where none is. `allowed` are the operator's algorithms."""
    if len(data) > BYTES_MAX:
        raise KeysError(f"the key set is larger than {BYTES_MAX} bytes")
    try:
        members = _SET.decode(data).keys
        repeated = isinstance(outline(data), Doubled)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise KeysError("this is no JWK Set: an object with an array 'keys'") from error
    if repeated:
        raise KeysError("a member of the JWK Set is there twice")
    if len(members) > _MEMBERS_MAX:
        raise KeysError(f"the key set has {len(members)} keys, more than {_MEMBERS_MAX}")
    found: list[VerifyingKey] = []
    problems: list[str] = []
    for position, member in enumerate(members):
        try:
            found.append(_key(bytes(member), allowed))
        except KeysError as error:
            problems.append(f"key {position}: {error}")
    # Nobody can say which of two keys of one name a token means: a set that was put together wrongly, or by two.
    doubled = {kid for kid, count in Counter(key.kid for key in found).items() if count > 1}
    problems += [f"two keys have the kid {kid!r:.80}" for kid in sorted(doubled)]
    usable = [key for key in found if key.kid not in doubled]
    if len(usable) > KEYS_MAX:
        problems.append(f"{len(usable)} keys can be used, and only the first {KEYS_MAX} are")
        usable = usable[:KEYS_MAX]
    if not usable:
        raise KeysError("no key can be used: " + ("; ".join(problems[:5]) or "there is none"))
    return tuple(usable), tuple(problems)


def _key(member: bytes, allowed: Collection[str]) -> VerifyingKey:
    try:
        names = _MEMBERS.decode(member)
        jwk = _JWK.decode(member)
        doubled = isinstance(outline(member), Doubled)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise KeysError("this is no JWK") from error
    if doubled:
        # RFC 7517, section 4: the names of members must be unique.
        raise KeysError("a member of it is there twice")
    if jwk.kty == "oct":
        raise KeysError("it is symmetric: whoever can check a signature could make one")
    if any(name in names for name in _PRIVATE):
        raise KeysError("it is private, and now everybody's who can read this address")
    if jwk.kid is None or not 1 <= len(jwk.kid) <= 255 or not jwk.kid.isprintable():
        raise KeysError("it has no kid of 1 to 255 printable characters")
    if jwk.use not in (None, "sig") or (jwk.key_ops is not None and "verify" not in jwk.key_ops):
        raise KeysError("it is not for signatures")
    make = _KINDS.get(jwk.kty)
    if make is None:
        raise KeysError(f"its kind {jwk.kty!r:.40} is not known")
    try:
        public, possible = make(jwk)
    except KeysError:
        raise
    except (ValueError, TypeError, OverflowError, UnsupportedAlgorithm) as error:
        raise KeysError("its numbers are no key") from error
    algorithms = tuple(sorted((possible if jwk.alg is None else possible & {jwk.alg}) & set(allowed)))
    if not algorithms:
        raise KeysError(f"its algorithm {jwk.alg!r:.40} is not allowed, or not possible with it")
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return VerifyingKey(kid=jwk.kid, algorithms=algorithms, public=public.public_bytes(*form))


def _rsa(jwk: _Jwk) -> tuple[_Public, frozenset[str]]:
    modulus, exponent = _number(jwk.n), _number(jwk.e)
    if modulus.bit_length() not in _RSA_BITS:
        raise KeysError(f"it has {modulus.bit_length()} bits, and not {_RSA_BITS.start} to {_RSA_BITS.stop - 1}")
    if not 2**16 < exponent < 2**32 or exponent % 2 == 0 or modulus % 2 == 0:
        # FIPS 186-5, section 5.1; an exponent of 1 makes every text its own signature.
        raise KeysError("its exponent or its modulus is not one of a sound key")
    return rsa.RSAPublicNumbers(exponent, modulus).public_key(), _RSA_ALGORITHMS


def _ec(jwk: _Jwk) -> tuple[_Public, frozenset[str]]:
    curves: dict[str | None, tuple[ec.EllipticCurve, str]] = {
        "P-256": (ec.SECP256R1(), "ES256"), "P-384": (ec.SECP384R1(), "ES384"),
    }  # fmt: skip
    if jwk.crv not in curves:
        raise KeysError(f"its curve {jwk.crv!r:.40} is not known")
    curve, algorithm = curves[jwk.crv]
    # public_key() refuses a point that is not on the curve (CVE-2015-7940 and its like).
    return ec.EllipticCurvePublicNumbers(_number(jwk.x), _number(jwk.y), curve).public_key(), frozenset({algorithm})


def _okp(jwk: _Jwk) -> tuple[_Public, frozenset[str]]:
    if jwk.crv != "Ed25519":
        raise KeysError(f"its curve {jwk.crv!r:.40} is not known")
    return Ed25519PublicKey.from_public_bytes(_octets(jwk.x)), frozenset({"EdDSA"})


_KINDS: dict[str, Callable[[_Jwk], tuple[_Public, frozenset[str]]]] = {"RSA": _rsa, "EC": _ec, "OKP": _okp}


def _octets(text: str | None) -> bytes:
    if text is None:
        raise KeysError("a number of it is missing")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise KeysError("a number of it is not in base64url") from error


def _number(text: str | None) -> int:
    return int.from_bytes(_octets(text), "big")
