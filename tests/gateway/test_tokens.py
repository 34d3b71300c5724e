"""Good tokens give principals; everything else is refused with a reason."""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from runagentd import signing
from runagentd.errors import AUTHENTICATION, ConfigurationError, Refusal
from runagentd.gateway.guard import identity, keyring, tokens
from runagentd.gateway.guard.grants import Grants
from runagentd.gateway.guard.identity import Credentials, Identity, Principal
from runagentd.gateway.guard.trust import Told, Trust
from runagentd.trust import TrustStore

HERE = "urn:runagentd:here"
NOW = 1_800_000_000.0


class Clock:
    """A clock that stands where it is put."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def trusting(store: TrustStore, clock: Callable[[], float]) -> Trust:
    """What a gateway knows that was told everything."""
    trust = Trust(clock)
    for message in store.changes(-1).messages():
        if isinstance(message, Told):
            trust.tell(message)
    trust.apply()
    return trust


class Issuer:
    """A key, a verifier that trusts it, and a clock for both."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.key = signing.create_or_open(str(folder / "keys"))
        with TrustStore(folder / "keys") as store:
            self.trust = trusting(store, self.clock)
        self.verifier = tokens.Verifier(self.trust.key, issuer=HERE, audience=HERE)
        self.identity = Identity((self.verifier,), trust=self.trust, roles={}, clock=self.clock)

    def claims(self, **changes: object) -> dict[str, Any]:
        """Any: JSON."""
        good = {
            "iss": HERE,
            "aud": HERE,
            "sub": "alice",
            "client_id": "alice",
            "iat": int(NOW),
            "exp": int(NOW) + 60,
            "jti": "j1",
            "scope": "agents:invoke:echo/*",
        }
        return {name: value for name, value in {**good, **changes}.items() if value is not None}

    def token(self, header: Mapping[str, object] | None = None, /, **changes: object) -> str:
        fields = {"typ": "at+jwt", "kid": self.key.key_id, **(header or {})}
        return jwt.encode(self.claims(**changes), self.key.private, algorithm="EdDSA", headers=fields)

    def principal(self, token: str | None) -> Principal:
        return asyncio.run(self.identity.principal(Credentials(token)))

    def refusal(self, token: str | None) -> str:
        with pytest.raises(Refusal) as refused:
            self.principal(token)
        assert refused.value.kind is AUTHENTICATION
        return refused.value.message


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    return Issuer(tmp_path)


def part(value: object) -> str:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def test_a_good_token_says_who_calls_and_what_they_may_call(issuer: Issuer) -> None:
    """Names in a scope are percent-encoded; scopes of another kind are passed over."""
    token = issuer.token(
        scope="openid agents:invoke:echo/* agents:invoke:my%20agent%2F1/* agents:read agents:invoke:x/y"
    )
    principal = issuer.principal(token)
    assert (principal.subject, principal.client, principal.token_id) == ("alice", "alice", "j1")
    assert principal.grants.plain == frozenset({"agents:read"})
    assert [principal.grants.may_invoke((agent,), "any") for agent in ("echo", "my agent/1", "x")] == [
        True,
        True,
        False,
    ]
    assert principal.grants.may_invoke(("x",), "y")
    assert issuer.principal(issuer.token(scope="agents:invoke:*/*")).grants.may_invoke(("any",), "tag")
    assert issuer.principal(issuer.token(scope="")).grants == Grants()
    assert not issuer.principal(issuer.token(scope="agents:invoke:%2A/*")).grants.may_invoke(("any",), "tag")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"iss": "urn:runagentd:there"}, "the token's issuer is another one"),
        ({"aud": "urn:runagentd:there"}, "the token is meant for another installation"),
        ({"aud": [HERE, "urn:runagentd:there"]}, "the token is meant for another installation"),
        ({"aud": []}, "the token is meant for another installation"),
        ({"exp": int(NOW) - 30}, "the token has expired"),
        ({"exp": int(NOW) + 7 * 24 * 3600 + 1}, "the token lives longer than 7 days"),
        ({"iat": int(NOW) + 31, "exp": int(NOW) + 60}, "the token is not valid yet"),
        ({"nbf": int(NOW) + 31}, "the token is not valid yet"),
        ({"sub": ""}, "the token's claim 'sub' is empty, too long or not printable"),
        ({"sub": "a\nb"}, "the token's claim 'sub' is empty, too long or not printable"),
        ({"jti": "x" * 256}, "the token's claim 'jti' is empty, too long or not printable"),
        *(
            ({name: None}, "the token lacks a claim, or one has the wrong type")
            for name in ("iss", "aud", "sub", "client_id", "iat", "exp", "jti", "scope")
        ),
        ({"exp": "1800000060"}, "the token lacks a claim, or one has the wrong type"),
        ({"exp": 1800000060.5}, "the token lacks a claim, or one has the wrong type"),
        ({"exp": True}, "the token lacks a claim, or one has the wrong type"),
        ({"scope": ["agents:invoke:*/*"]}, "the token lacks a claim, or one has the wrong type"),
        ({"exp": 10**400, "iat": 10**400 - 1}, "the token is not valid yet"),
    ],
)
def test_each_claim_is_checked(issuer: Issuer, changes: dict[str, object], message: str) -> None:
    """RFC 9068, section 4, and the bounds of our own."""
    assert issuer.refusal(issuer.token(None, **changes)) == message


def test_clocks_may_differ_by_half_a_minute_and_a_lifetime_may_not(issuer: Issuer) -> None:
    """Skew is for the moment, not for the length."""
    assert issuer.principal(issuer.token(exp=int(NOW) - 29)).subject == "alice"
    assert issuer.principal(issuer.token(iat=int(NOW) + 29, nbf=int(NOW) + 30)).subject == "alice"
    assert issuer.principal(issuer.token(exp=int(NOW) + 7 * 24 * 3600)).subject == "alice"


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"typ": "JWT"}, "the token's type is not at+jwt"),
        ({"kid": "another"}, "the token names a key that is not known here"),
        ({"kid": "../../etc/passwd"}, "the token names a key that is not known here"),
        ({"kid": "x" * 200}, "the token names a key that is not known here"),
        ({"crit": ["exp"]}, "the token's header has 'crit'"),
        ({"crit": []}, "the token's header has 'crit'"),
    ],
)
def test_each_header_is_checked(issuer: Issuer, header: dict[str, object], message: str) -> None:
    """RFC 8725, section 3."""
    assert issuer.refusal(issuer.token(header)) == message


def test_headers_that_name_a_key_elsewhere_are_not_believed(issuer: Issuer) -> None:
    """jku, x5u and jwk change nothing: neither do they help a bad token nor harm a good one."""
    other = Ed25519PrivateKey.generate()
    raw = other.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": part(raw)}
    header = {"typ": "at+jwt", "kid": issuer.key.key_id, "jku": "http://127.0.0.1/keys", "jwk": jwk}
    forged = jwt.encode(issuer.claims(), other, algorithm="EdDSA", headers=header)
    assert issuer.refusal(forged) == "the token's signature is not valid"
    assert issuer.principal(issuer.token({"jku": "http://127.0.0.1/keys", "jwk": jwk})).subject == "alice"


def test_no_other_algorithm_is_taken(issuer: Issuer) -> None:
    """Not none, not a symmetric one with the public key as secret, not another curve."""
    key_id = issuer.key.key_id
    public = issuer.key.private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    header = {"typ": "at+jwt", "kid": key_id}
    claims = issuer.claims()
    for token in (
        f"{part({'alg': 'none', **header})}.{part(claims)}.",
        f"{part({'alg': 'none', **header})}.{part(claims)}.AA",
        jwt.encode(claims, public, algorithm="HS256", headers=header),
        jwt.encode(claims, ec.generate_private_key(ec.SECP256R1()), algorithm="ES256", headers=header),
    ):
        assert issuer.refusal(token) in (
            "the token's algorithm is not EdDSA",
            "the token is neither a signed JWT nor an API key",
        )


def test_a_token_that_was_changed_anywhere_is_refused(issuer: Issuer) -> None:
    """Each character of the signed part counts."""
    token = issuer.token()
    for position in range(0, len(token), 7):
        changed = token[:position] + ("A" if token[position] != "A" else "B") + token[position + 1 :]
        issuer.refusal(changed)


def test_a_forged_token_is_remembered_with_the_key_that_did_not_sign_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody verifies it twice, and under another key of the same name it is looked at again. The oldest go first."""
    monkeypatch.setattr(tokens, "FORGED_MAX", 2)
    signer, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    keys = {"k": other.public_key()}
    verifier = tokens.Verifier(keys.get, issuer=HERE, audience=HERE)
    verified: list[str] = []
    decode = verifier._jws.decode_complete

    def noted(token: str, *arguments: Any, **more: Any) -> Any:
        verified.append(token)
        return decode(token, *arguments, **more)

    monkeypatch.setattr(verifier._jws, "decode_complete", noted)
    claims = {"iss": HERE, "aud": HERE, "sub": "a", "client_id": "a", "iat": 1, "exp": 60, "jti": "j", "scope": ""}
    first, *more = (
        jwt.encode({**claims, "jti": name}, signer, algorithm="EdDSA", headers={"typ": "at+jwt", "kid": "k"})
        for name in ("j1", "j2", "j3")
    )

    def message(token: str) -> str:
        with pytest.raises(Refusal) as refused:
            asyncio.run(verifier.verify(Credentials(token), {}, 2.0))
        return refused.value.message

    assert [message(first), message(first)] == ["the token's signature is not valid"] * 2
    assert verified == [first]
    keys["k"] = signer.public_key()
    assert asyncio.run(verifier.verify(Credentials(first), {}, 2.0)).token_id == "j1"
    keys["k"] = other.public_key()
    assert [message(token) for token in (*more, first)] == ["the token's signature is not valid"] * 3
    assert verified == [first, first, *more, first]


@given(st.one_of(st.text(max_size=60), st.from_regex(r"[A-Za-z0-9_-]{1,40}\.[A-Za-z0-9_-]{1,40}\.[A-Za-z0-9_-]{1,40}")))
def test_any_text_is_refused_and_never_raises_anything_else(text: str) -> None:
    """Whatever PyJWT, cryptography and msgspec think of it."""
    key = Ed25519PrivateKey.generate().public_key()
    trust = Trust(Clock())
    trust.apply()
    verifier = tokens.Verifier({"k": key}.get, issuer=HERE, audience=HERE)
    keys = keyring.ApiKeys(trust.api_key, issuer=HERE)
    with pytest.raises(Refusal):
        asyncio.run(Identity((keys, verifier), trust=trust, roles={}, clock=Clock()).principal(Credentials(text)))


@pytest.mark.parametrize(
    ("header", "payload"),
    [
        (b"\xff", {}),
        (b"[]", {}),
        (b"[" * 3000, {}),
        ({"alg": "EdDSA", "typ": "at+jwt", "kid": 7}, {}),
        ({"alg": ["EdDSA"], "typ": "at+jwt", "kid": "k"}, {}),
    ],
)
def test_odd_headers_are_refused(issuer: Issuer, header: object, payload: object) -> None:
    """As headers that cannot be read."""
    expected = "the token's header cannot be read, or lacks alg, typ or kid"
    assert issuer.refusal(f"{part(header)}.{part(payload)}.AAAA") == expected


def test_missing_and_huge_tokens_are_refused_without_a_look(issuer: Issuer) -> None:
    """8 KiB is the limit."""
    assert issuer.refusal(None) == issuer.refusal("") == "no token was sent"
    assert issuer.refusal("a" * 8193) == "the token is longer than 8 KiB"


def test_a_verified_token_is_remembered_for_a_minute_and_not_beyond_its_end(issuer: Issuer) -> None:
    """What is remembered ends with the token."""
    token = issuer.token(exp=int(NOW) + 10)
    issuer.principal(token)
    issuer.clock.now = NOW + 39
    assert issuer.principal(token).subject == "alice"
    issuer.clock.now = NOW + 40
    assert issuer.refusal(token) == "the token has expired"
    assert not issuer.identity._known


def test_the_memory_of_verified_tokens_is_bounded(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go first."""
    monkeypatch.setattr(identity, "CACHE_ENTRIES", 3)
    for number in range(6):
        issuer.principal(issuer.token(jti=f"j{number}"))
    assert [principal.token_id for _, principal in issuer.identity._known.values()] == ["j3", "j4", "j5"]


def test_minted_tokens_are_good_tokens(tmp_path: Path) -> None:
    """What runagentctl makes, the gateway takes."""
    issuer = Issuer(tmp_path)
    token = signing.mint(
        issuer.key, issuer=HERE, audience=HERE, subject="bob", agents=["my agent/ü", "*"], ttl_seconds=30, now=NOW
    )
    principal = issuer.principal(token)
    assert principal.subject == "bob"
    names = ("my agent/ü", "*", "another")
    assert [principal.grants.may_invoke((name,), "t") for name in names] == [True, True, False]
    everything = signing.mint(issuer.key, issuer=HERE, audience=HERE, subject="b", agents=None, ttl_seconds=1, now=NOW)
    assert issuer.principal(everything).grants.may_invoke(("any",), "tag")


def test_no_token_is_minted_that_nobody_would_read(tmp_path: Path) -> None:
    """`serve` names as many agents as fit, whatever they are called; whoever names more is told so."""
    issuer = Issuer(tmp_path)
    ids = [str(uuid.UUID(int=number)) for number in range(1000)]

    def mint(agents: list[str]) -> str:
        return signing.mint(issuer.key, issuer=HERE, audience=HERE, subject="b", agents=agents, ttl_seconds=9, now=NOW)

    assert issuer.principal(mint(ids[:100])).grants.may_invoke((ids[99],), "t")
    assert signing.that_fit(ids) == ids[:104]
    longest = [f"{'/' * 199}{number}" for number in range(10)]
    assert signing.that_fit(longest) == longest[:9]
    for named in (ids[:104], longest[:9]):
        assert issuer.principal(mint(named)).grants.may_invoke((named[-1],), "t")
    with pytest.raises(ConfigurationError, match="no more than 8192 are read") as caught:
        mint(ids)
    assert "name fewer agents and scopes, or give a role (--role NAME)" in str(caught.value)
