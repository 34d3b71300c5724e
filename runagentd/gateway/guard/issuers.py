"""Tokens of other issuers into principals: whose keys are believed, and what their claims mean here.

Runs as: the gateway.
Reads from strangers: yes, the token, and key sets of an egress process that may be captured. Anything that is not a
good token raises `Refusal`, and never another exception.

This process connects to nothing: the egress process fetches keys and hands them over (`wire.issuers`). A token that
names a key that is not known here makes us ask for the keys anew, at most once in half a minute for each issuer.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from runagentd import errors
from runagentd.errors import Refusal
from runagentd.gateway.guard import tokens
from runagentd.gateway.guard.grants import Role, grants
from runagentd.gateway.guard.identity import Credentials, Principal, digest, refused
from runagentd.log import Log
from runagentd.wire.issuers import ALGORITHMS, FromGateway, Greeting, KeySet, Refresh, VerifyingKey
from runagentd.wire.settings import Issuer
from runagentd.wire.trust import TOKEN_BYTES_MAX, signed_digest

ANSWER_SECONDS = 2.0
"""How long a call waits for keys, or for other keys."""
ASK_SECONDS = 30.0
GRANTED_MAX = 256

_Public = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | Ed25519PublicKey
_FITS: dict[type, tuple[str, ...]] = {
    rsa.RSAPublicKey: ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    ec.EllipticCurvePublicKey: ("ES256", "ES384"),
    Ed25519PublicKey: ("EdDSA",),
}


class _Believed:
    """One issuer: its settings, and its keys as they were told last."""

    def __init__(self, settings: Issuer) -> None:
        self.settings = settings
        self.keys: dict[str, tuple[VerifyingKey, _Public]] = {}
        self.told: KeySet | None = None
        self.first = asyncio.Event()
        """set once anything was told of it"""
        self.asked = -ASK_SECONDS
        self.waiting: asyncio.Future[None] | None = None
        self.expiry: asyncio.TimerHandle | None = None

    def key(self, kid: str, now: float) -> tuple[VerifyingKey, _Public] | None:
        if self.told is None or now >= self.told.until:
            return None
        return self.keys.get(kid)


class Issuers:
    """An `Authenticator`, and `identity.Foreign`. `changed` is called when somebody may not be believed any more.

    `send` gives a message to the egress process; `clock` gives seconds since the epoch.
    """

    def __init__(
        self,
        settings: Iterable[Issuer],
        *,
        send: Callable[[FromGateway], None],
        changed: Callable[[], None],
        clock: Callable[[], float],
        log: Log,
    ) -> None:
        self._send = send
        self._changed = changed
        self._clock = clock
        self._log = log
        self._by_issuer: dict[str, _Believed] = {}
        self._by_name: dict[str, _Believed] = {}
        self._jws = jwt.PyJWS(algorithms=list(ALGORITHMS))
        self._take_over(settings)

    def configure(self, settings: Iterable[Issuer]) -> None:
        """These and no others; the keys of one that stays are kept. Whoever calls this clears what is remembered."""
        before = set(self._by_name.values())
        self._take_over(settings)
        if not before.issuperset(self._by_name.values()):
            # Its keys may have come already, while they were nobody's here: the egress process is told apart from us.
            self._send(Greeting())

    def _take_over(self, settings: Iterable[Issuer]) -> None:
        before = self._by_name
        self._by_name = {}
        for each in settings:
            known = before.get(each.name)
            if known is not None and known.settings.source == each.source:
                known.settings = each
                self._by_name[each.name] = known
            else:
                self._by_name[each.name] = _Believed(each)
        for name, gone in before.items():
            if self._by_name.get(name) is not gone and gone.expiry is not None:
                gone.expiry.cancel()
        self._by_issuer = {each.settings.issuer: each for each in self._by_name.values()}

    def take(self, message: KeySet) -> None:
        """What the egress process says of an issuer; of one that is not configured nothing is believed."""
        believed = self._by_name.get(message.issuer)
        if believed is None or message.source != believed.settings.source:
            return
        believed.first.set()
        # An egress process that is new and could fetch nothing yet knows less than we do.
        if message.fetched or believed.told is None:
            self._replace(believed, message)
        if believed.waiting is not None and not believed.waiting.done():
            believed.waiting.set_result(None)

    def _replace(self, believed: _Believed, message: KeySet) -> None:
        before, believed.told = believed.told, message
        if before is None or before.keys != message.keys:
            believed.keys = dict(self._loaded(message))
            self._changed()
        self._watch_expiry(believed)

    def _loaded(self, message: KeySet) -> Iterable[tuple[str, tuple[VerifyingKey, _Public]]]:
        for key in message.keys:
            try:
                public = load_der_public_key(key.public)
            except Exception as error:  # noqa: BLE001  (cryptography names no common type for what it cannot load)
                self._log.error(f"a key of an issuer cannot be read: {type(error).__name__}", issuer=message.issuer)
                continue
            if isinstance(public, (rsa.RSAPublicKey, ec.EllipticCurvePublicKey, Ed25519PublicKey)):
                yield key.kid, (key, public)

    def _watch_expiry(self, believed: _Believed) -> None:
        """Keys that nobody could fetch anew for too long are given up, and open streams with them."""
        if believed.expiry is not None:
            believed.expiry.cancel()
            believed.expiry = None
        if believed.told is not None and believed.told.until > self._clock():
            delay = believed.told.until - self._clock()
            believed.expiry = asyncio.get_running_loop().call_later(delay, self._expired, believed)

    def _expired(self, believed: _Believed) -> None:
        believed.expiry = None
        self._log.error("the keys of an issuer are too old to be believed", issuer=believed.settings.name)
        self._changed()

    def stands(self, principal: Principal) -> bool:
        """Whether the key that signed a principal's token is still one of its issuer's; true for what is not ours."""
        if principal.issuer_key is None:
            return True
        name, kid, value = principal.issuer_key
        believed = self._by_name.get(name)
        if believed is None or believed.settings.issuer != principal.issuer:
            return False
        found = believed.key(kid, self._clock())
        return found is not None and found[0].public == value

    # ---- Authenticator

    def takes(self, credentials: Credentials) -> bool:
        """Whether a token says that it is of an issuer that is configured. Nothing of it is believed for that."""
        token = credentials.token
        if not self._by_issuer or token is None or not tokens.looks_like_one(token):
            return False
        return self._claimed_issuer(token) in self._by_issuer

    def _claimed_issuer(self, token: str) -> str:
        try:
            claims = _unique_json(tokens.from_base64url(token.split(".")[1]))
        except Refusal:
            return ""
        except (ValueError, RecursionError):
            return ""
        issuer = claims.get("iss")
        return issuer if isinstance(issuer, str) else ""

    async def verify(self, credentials: Credentials, roles: Mapping[str, Role], now: float) -> Principal:
        """Whose token this is; `Refusal` AUTHENTICATION where it is not good."""
        token = credentials.token or ""
        believed = self._by_issuer.get(self._claimed_issuer(token))
        if believed is None or len(token) > TOKEN_BYTES_MAX:
            raise refused("the token's issuer is another one")
        settings = believed.settings
        try:
            header = tokens.header_of(token, algorithms=settings.algorithms, types=settings.types)
            key = await self._key(believed, header.kid)
            claims = self._verified(token, header, key)
            return self._principal(believed, key[0], claims, roles, now, token)
        except Refusal as refusal:
            # The caller is told no more than of a token of ours; the operator wants to know what an issuer does wrong.
            self._log.debug("a token of an issuer is not good", issuer=settings.name, problem=refusal.message)
            raise

    async def _key(self, believed: _Believed, kid: str) -> tuple[VerifyingKey, _Public]:
        if not 1 <= len(kid) <= 255 or not kid.isprintable():
            raise refused("the token names a key that is not known here")
        await self._first_keys(believed)
        found = believed.key(kid, self._clock())
        if found is None and await self._asked_anew(believed):
            found = believed.key(kid, self._clock())
        if found is None:
            raise refused("the token names a key that is not known here")
        return found

    async def _first_keys(self, believed: _Believed) -> None:
        """Return once keys are known. Without any a good token cannot be told from a bad one, so it is not a 401."""
        if not believed.first.is_set():
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    await believed.first.wait()
            except TimeoutError:
                pass
        if believed.told is None or not believed.told.fetched:
            await self._asked_anew(believed)
        if believed.told is None or not believed.told.fetched:
            raise Refusal(errors.UNAVAILABLE, "the keys of the token's issuer are not known yet", retry_after=5)

    async def _asked_anew(self, believed: _Believed) -> bool:
        """Ask for the keys, or wait with whoever has asked; whether there was an answer."""
        loop = asyncio.get_running_loop()
        if believed.waiting is None or believed.waiting.done():
            if loop.time() - believed.asked < ASK_SECONDS:
                return False
            believed.asked = loop.time()
            believed.waiting = loop.create_future()
            self._send(Refresh(issuer=believed.settings.name))
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await asyncio.shield(believed.waiting)
        except TimeoutError:
            return False
        return True

    def _verified(self, token: str, header: tokens.Header, found: tuple[VerifyingKey, _Public]) -> dict[str, Any]:
        key, public = found
        # By the type of the key that was handed over, too: the stronger side checks again.
        possible = next((algorithms for kind, algorithms in _FITS.items() if isinstance(public, kind)), ())
        if header.alg not in key.algorithms or header.alg not in possible:
            raise refused("the token's algorithm is not one of its key's")
        try:
            payload = self._jws.decode_complete(token, public, algorithms=[header.alg])["payload"]
        except jwt.InvalidSignatureError as error:
            raise refused("the token's signature is not valid") from error
        # As in `tokens`: every way in which a stranger's bytes can fail there is a refusal.
        except Exception as error:
            raise refused("the token cannot be read") from error
        return _unique_json(payload)

    def _principal(
        self,
        believed: _Believed,
        key: VerifyingKey,
        claims: dict[str, Any],
        roles: Mapping[str, Role],
        now: float,
        token: str,
    ) -> Principal:
        settings, told = believed.settings, believed.told
        if claims.get("iss") != settings.issuer:
            raise refused("the token's issuer is another one")
        audience = claims.get("aud")
        meant = audience if isinstance(audience, list) else [audience]
        if not any(each in settings.audience for each in meant if isinstance(each, str)):
            raise refused("the token is meant for another installation")
        issued, expires = _moment(claims, "iat"), _moment(claims, "exp")
        not_before = _moment(claims, "nbf") if "nbf" in claims else 0.0
        tokens.check_times(issued, expires, not_before, lifetime_max=settings.lifetime_max, now=now)
        subject = _text(claims, settings.subject)
        client = next((claims[name] for name in ("client_id", "azp") if isinstance(claims.get(name), str)), subject)
        identity = claims["jti"] if isinstance(claims.get("jti"), str) else signed_digest(token)
        tenant = _text(claims, settings.tenant) if settings.tenant else None
        # Under the name of its issuer: none can speak for another's subjects and tenants, nor for ours.
        subject = f"{settings.name}:{subject}"
        tenant = None if tenant is None else f"{settings.name}:{tenant}"
        texts = {settings.subject: subject, "client_id": client, "jti": identity}
        tokens.check_texts(texts if tenant is None else {**texts, settings.tenant: tenant})
        scopes = tuple(dict.fromkeys(_granted(settings, claims)))[:GRANTED_MAX]
        return Principal(
            subject=subject,
            client=client,
            token_id=identity,
            issuer=settings.issuer,
            issued=issued,
            expires=min(expires + tokens.SKEW_SECONDS, told.until if told is not None else now),
            says=float(expires),
            digest=digest(settings.issuer, subject),
            grants=grants(scopes, roles),
            tenant=tenant,
            scopes=scopes,
            issuer_key=(settings.name, key.kid, key.public),
        )


def _granted(settings: Issuer, claims: dict[str, Any]) -> Iterable[str]:
    for grant in settings.grants:
        if not grant.claim or grant.value in _values(claims, grant.claim):
            yield from grant.scopes


def _values(claims: dict[str, Any], name: str) -> tuple[str, ...]:
    """The texts that a claim has: itself, its members, or for scopes its words (RFC 8693, section 4.2)."""
    found: Any = claims.get(name)
    if found is None:
        # "realm_access.roles": a claim within a claim; a name with dots of its own was found above.
        found = claims
        for part in name.split("."):
            found = found.get(part) if isinstance(found, dict) else None
    if isinstance(found, str):
        return tuple(found.split(" ")) if name in ("scope", "scp") else (found,)
    if isinstance(found, list):
        return tuple(each for each in found if isinstance(each, str))
    return ()


def _text(claims: dict[str, Any], name: str) -> str:
    values = _values(claims, name)
    if len(values) != 1:
        raise refused(f"the token's claim '{name}' is not one text")
    return values[0]


def _moment(claims: dict[str, Any], name: str) -> float:
    """NumericDate (RFC 7519, section 2): a number, also with a fraction."""
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**40:
        raise refused(f"the token's claim '{name}' is not a time")
    return float(value)


def _unique_json(data: bytes) -> dict[str, Any]:
    """A JSON object. Of two members with one name nobody can say which the issuer meant (RFC 7519, section 4)."""
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise refused("the token's claims cannot be read") from error
    if not isinstance(value, dict):
        raise refused("the token's claims are no object")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a member is there twice")
    return found


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is not JSON")
