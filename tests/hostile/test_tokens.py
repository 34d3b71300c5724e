"""Hostile tokens, shown to every place that takes one: both doors, the field and the query, and a WebSocket's opening.

tests/gateway/test_tokens.py states each check by itself; here is what a stranger sees of them.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from runagentd import apikeys, signing
from runagentd.wire.trust import ApiKey, ApiKeySecret
from tests import fakes_gateway
from tests.fakes_gateway import STATE_ID, Gateway
from tests.hostile.raw import Answer, Client

HERE = signing.audience(STATE_ID)
STRANGER = Ed25519PrivateKey.generate()

NEITHER = "the token is neither a signed JWT nor an API key"
NOT_EDDSA = "the token's algorithm is not EdDSA"
NO_KEY = "the token names a key that is not known here"
NO_HEADER = "the token's header cannot be read, or lacks alg, typ or kid"
NO_CLAIM = "the token lacks a claim, or one has the wrong type"
UNREADABLE = "the token cannot be read"
FORGED = "the token's signature is not valid"
UNKNOWN = "the API key is not known here, or no longer"
TOO_LONG = "the token is longer than 8 KiB"

Make = Callable[[Gateway], str]


def part(value: object) -> str:
    """One part of a token, of JSON or of bytes as they are."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def header(gateway: Gateway, **changes: object) -> dict[str, object]:
    fields: dict[str, object] = {"alg": "EdDSA", "typ": "at+jwt", "kid": gateway.key.key_id}
    return {name: value for name, value in {**fields, **changes}.items() if value is not None}


def claims(**changes: object) -> dict[str, object]:
    now = int(time.time())
    good: dict[str, object] = {
        "iss": HERE, "aud": HERE, "sub": "alice", "client_id": "alice", "iat": now, "exp": now + 60, "jti": "j1",
        "scope": "agents:invoke:*/*",
    }  # fmt: skip
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def signed(gateway: Gateway, head: object, body: object, key: Ed25519PrivateKey | None = None) -> str:
    text = f"{part(head)}.{part(body)}"
    return f"{text}.{part((key or gateway.key.private).sign(text.encode()))}"


def with_claims(**changes: object) -> Make:
    return lambda gateway: signed(gateway, header(gateway), claims(**changes))


def with_ages(**seconds: int) -> Make:
    """Claims that are so many seconds from now."""
    return lambda gateway: signed(
        gateway, header(gateway), claims(**{name: int(time.time()) + value for name, value in seconds.items()})
    )


def with_header(key: Ed25519PrivateKey | None = None, **changes: object) -> Make:
    return lambda gateway: signed(gateway, header(gateway, **changes), claims(), key)


def with_texts(head: Callable[[str], str] = str, body: Callable[[str], str] = str) -> Make:
    """The JSON texts of header and claims, changed as texts."""
    return lambda gateway: signed(
        gateway, head(json.dumps(header(gateway))).encode(), body(json.dumps(claims())).encode()
    )


def unsigned(algorithm: str, signature: str = "") -> Make:
    return lambda gateway: f"{part(header(gateway, alg=algorithm))}.{part(claims())}.{signature}"


def confused(form: Callable[[Gateway], bytes]) -> Make:
    """HS256, with a text of the public key that anybody can read as the secret."""

    def make(gateway: Gateway) -> str:
        text = f"{part(header(gateway, alg='HS256'))}.{part(claims())}"
        return f"{text}.{part(hmac.digest(form(gateway), text.encode(), hashlib.sha256))}"

    return make


def raw_key(gateway: Gateway) -> bytes:
    return gateway.key.private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def pem_key(gateway: Gateway) -> bytes:
    return gateway.key.private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def jwk(key: Ed25519PrivateKey) -> dict[str, str]:
    raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return {"kty": "OKP", "crv": "Ed25519", "x": part(raw)}


def of_a_curve(gateway: Gateway) -> str:
    text = f"{part(header(gateway, alg='ES256'))}.{part(claims())}"
    key = ec.generate_private_key(ec.SECP256R1())
    return f"{text}.{part(key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))}"


def half_signed(gateway: Gateway) -> str:
    text = f"{part(header(gateway))}.{part(claims())}"
    return f"{text}.{part(gateway.key.private.sign(text.encode())[:32])}"


def changed(of: Callable[[str], str]) -> Make:
    return lambda gateway: of(gateway.token())


def api_key(*, expires: int = 0, known: bool = True, other_secret: bool = False) -> Make:
    def make(gateway: Gateway) -> str:
        identity = apikeys.new_id()
        text = apikeys.create(identity)
        if known:
            gateway.store.add_api_key(
                ApiKey(
                    id=identity, subject="alice", tenant=None, scopes=("agents:invoke:*/*",), created=int(time.time()),
                    expires=expires, addresses=(), secrets=(ApiKeySecret(digest=apikeys.digest(text), until=0),),
                ),
                "test",
            )  # fmt: skip
            gateway.spread()
        return apikeys.create(identity) if other_secret else text

    return make


def revoked_key(gateway: Gateway) -> str:
    text = api_key()(gateway)
    gateway.store.revoke_api_key(apikeys.parse(text) or "")
    gateway.spread()
    return text


DEEP = b"[" * 2000 + b"]" * 2000

HOSTILE: dict[str, tuple[Make, str]] = {
    # ---- algorithms
    "none": (unsigned("none"), NEITHER),
    "none, with a signature": (unsigned("none", "AA"), NOT_EDDSA),
    "None": (unsigned("None", "AA"), NOT_EDDSA),
    "nOnE": (unsigned("nOnE", "AA"), NOT_EDDSA),
    "no algorithm": (with_header(alg=None), NO_HEADER),
    "EdDSA in small letters": (with_header(alg="eddsa"), NOT_EDDSA),
    "Ed448": (with_header(alg="Ed448"), NOT_EDDSA),
    "HS256 with the raw public key": (confused(raw_key), NOT_EDDSA),
    "HS256 with the public key in PEM": (confused(pem_key), NOT_EDDSA),
    "HS256 with an empty secret": (confused(lambda gateway: b""), NOT_EDDSA),
    "ES256": (of_a_curve, NOT_EDDSA),
    "no signature": (lambda gateway: gateway.token().rpartition(".")[0] + ".", NEITHER),
    "half a signature": (half_signed, FORGED),
    "a signature of nothing but zeros": (unsigned("EdDSA", "A" * 86), FORGED),
    "a stranger's signature": (with_header(STRANGER), FORGED),
    # ---- headers that name a key
    "an unknown key": (with_header(kid="another"), NO_KEY),
    "a key at a path": (with_header(kid="../../../../dev/null"), NO_KEY),
    "a key in a database": (with_header(kid="x' UNION SELECT 'k"), NO_KEY),
    "a key with a NUL": (with_header(kid="k\0"), NO_KEY),
    "no key": (with_header(kid=None), NO_HEADER),
    "a key that is a number": (with_header(kid=7), NO_HEADER),
    "a key of 7 kB": (with_header(kid="k" * 5000), NO_KEY),
    "jwk": (with_header(STRANGER, jwk=jwk(STRANGER)), FORGED),
    "jwk and another key's name": (with_header(STRANGER, jwk=jwk(STRANGER), kid="mine"), NO_KEY),
    "jku": (with_header(STRANGER, jku="http://127.0.0.1:1/keys"), FORGED),
    "x5u": (with_header(STRANGER, x5u="http://127.0.0.1:1/chain"), FORGED),
    "x5c": (with_header(STRANGER, x5c=["AAAA"]), FORGED),
    # ---- other headers
    "crit": (with_header(crit=["exp"]), "the token's header has 'crit'"),
    "crit of nothing": (with_header(crit=[]), "the token's header has 'crit'"),
    "crit that is null": (with_texts(head=lambda t: t[:-1] + ',"crit":null}'),
                          "the token's header has 'crit'"),
    "b64": (with_header(b64=False, crit=["b64"]), "the token's header has 'crit'"),
    "JWT for a type": (with_header(typ="JWT"), "the token's type is not at+jwt"),
    "no type": (with_header(typ=None), NO_HEADER),
    "an identity token": (with_header(typ="id+jwt"), "the token's type is not at+jwt"),
    "a header that is a list": (lambda gateway: signed(gateway, [header(gateway)], claims()), NO_HEADER),
    "a header that is nested deep": (lambda gateway: signed(gateway, DEEP, claims()), NO_HEADER),
    "a header that is no UTF-8": (lambda gateway: signed(gateway, b'{"alg":"\xff"}', claims()), NO_HEADER),
    # ---- claims
    "expired by a second": (with_ages(iat=-100, exp=-31), "the token has expired"),
    "a second from the future": (with_ages(iat=33, exp=60), "the token is not valid yet"),
    "not before": (with_ages(nbf=33), "the token is not valid yet"),
    "eight days": (with_ages(exp=8 * 86_400), "the token lives longer than 7 days"),
    "for ever": (with_claims(exp=None), NO_CLAIM),
    "an end that is text": (with_claims(exp="9999999999"), NO_CLAIM),
    "an end that is no whole number": (with_claims(exp=9999999999.5), NO_CLAIM),
    "an end of four hundred digits": (with_claims(exp=10**400), "the token lives longer than 7 days"),
    "an end that is infinite": (with_texts(body=lambda t: t.replace('"exp": ', '"exp": 1e999, "x": ')), NO_CLAIM),
    "another audience": (with_claims(aud="urn:runagentd:there"), "the token is meant for another installation"),
    "two audiences": (with_claims(aud=[HERE, "there"]), "the token is meant for another installation"),
    "no audience": (with_claims(aud=None), NO_CLAIM),
    "another issuer": (with_claims(iss="https://login.example"), "the token's issuer is another one"),
    "a scope that is a list": (with_claims(scope=["agents:invoke:*/*"]), NO_CLAIM),
    "a subject with a line in it": (
        with_claims(sub="alice\nbob"), "the token's claim 'sub' is empty, too long or not printable",
    ),
    "an audience twice, the other one last": (
        with_texts(body=lambda t: t[:-1] + ',"aud":"there"}'), "the token is meant for another installation",
    ),
    "claims that are a list": (lambda gateway: signed(gateway, header(gateway), [claims()]), NO_CLAIM),
    "claims that are no JSON": (lambda gateway: signed(gateway, header(gateway), b"alice"), UNREADABLE),
    "claims that are nested deep": (lambda gateway: signed(gateway, header(gateway), DEEP), NO_CLAIM),
    "claims with half a surrogate pair": (with_claims(sub="\ud800"), UNREADABLE),
    # ---- forms
    "nothing but dots": (lambda gateway: "..", NEITHER),
    "a token in a token": (
        lambda gateway: signed(gateway, header(gateway, cty="JWT"), gateway.token().encode()), UNREADABLE,
    ),
    "an encrypted token": (
        lambda gateway: ".".join([part(header(gateway, alg="dir", enc="A256GCM")), "", "AA", "AA", "AA"]),
        NEITHER,
    ),
    "the JSON form of a token": (
        lambda gateway: json.dumps(
            dict(zip(("protected", "payload", "signature"), gateway.token().split("."), strict=True))
        ).replace(" ", ""),
        NEITHER,
    ),
    "padding": (changed(lambda token: token + "=="), NEITHER),
    "the other base 64": (lambda gateway: signed(gateway, header(gateway), b"\xfb\xff").replace("-", "+"), NEITHER),
    "four parts": (changed(lambda token: token + ".AA"), NEITHER),
    "a space in it": (changed(lambda token: token[:9] + " " + token[9:]), NEITHER),
    "two tokens": (changed(lambda token: f"{token},{token}"), NEITHER),
    "Latin-1": (lambda gateway: "é.é.é", NEITHER),
    "9 kB": (lambda gateway: "a" * 9000, TOO_LONG),
    "9 kB of claims": (with_claims(x="y" * 7000), TOO_LONG),
    # ---- API keys
    "a mistyped key": (
        lambda gateway: apikeys.create(apikeys.new_id())[:-6] + "000000",
        "the API key is mistyped: its checksum does not fit",
    ),
    "an unknown key's id": (api_key(known=False), UNKNOWN),
    "another secret": (api_key(other_secret=True), UNKNOWN),
    "an expired API key": (api_key(expires=1), UNKNOWN),
    "a revoked API key": (revoked_key, UNKNOWN),
}  # fmt: skip

GOOD: dict[str, Make] = {
    "as it is minted": lambda gateway: gateway.token(),
    "expired by less than clocks may differ": with_ages(iat=-100, exp=-20),
    "the other spelling of its type": with_header(typ="application/AT+JWT"),
    "an audience that is a list of one": with_claims(aud=[HERE]),
    "a jku that nobody looks at": with_header(jku="http://127.0.0.1:1/keys"),
    "a subject twice": with_texts(body=lambda text: text[:-1] + ',"sub":"alice"}'),
    "an API key": api_key(),
}


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    for running in fakes_gateway.running():
        running.supervisor.serve(tags=("say_stream",))
        yield running


def native(gateway: Gateway, token: str) -> Answer:
    return asked(gateway, "GET /v1/agents", token)


def ask_runagent(gateway: Gateway, token: str) -> Answer:
    return asked(gateway, "GET /api/v1/agents/echo/architecture", token)


def by_query(gateway: Gateway, token: str) -> Answer:
    return asked(gateway, f"GET /api/v1/agents/echo/architecture?token={urllib.parse.quote(token, safe='')}", None)


def by_websocket(gateway: Gateway, token: str) -> Answer:
    return asked(gateway, "GET /api/v1/agents/echo/run-stream", token, WEBSOCKET)


WEBSOCKET = (
    "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
)  # fmt: skip


def asked(gateway: Gateway, line: str, token: str | None, more: tuple[str, ...] = ()) -> Answer:
    fields = ["Host: x", *([f"Authorization: Bearer {token}"] if token is not None else []), *more]
    with Client(gateway.port) as client:
        client.send("\r\n".join([f"{line} HTTP/1.1", *fields, "", ""]).encode())
        answer = client.answer()
    assert answer is not None
    return answer


def without_what_is_new_each_time(answer: Answer) -> tuple[int, Mapping[str, str], Mapping[str, Any]]:
    """Also without the sentence that says what is wrong. Any: JSON."""
    body: dict[str, Any] = json.loads(answer.body)
    for name in ("detail", "message", "request_id", "instance", "timestamp"):
        body.pop(name, None)
    if isinstance(body.get("error"), dict):
        body["error"].pop("message")
    fields = {
        name: value
        for name, value in answer.fields.items()
        if name not in ("date", "x-request-id", "traceresponse", "content-length")
    }
    return answer.status, fields, body


PLACES = {"native": native, "runagent": ask_runagent, "query": by_query, "websocket": by_websocket}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize(("make", "detail"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_token_is_refused_everywhere(
    gateway: Gateway, make: Make, detail: str, place: Callable[[Gateway, str], Answer]
) -> None:
    """The sentence says what is wrong, where that tells nothing; all else is the same whatever is wrong."""
    answer = place(gateway, make(gateway))
    assert answer.status == 401
    assert json.loads(answer.body)["detail"] == detail
    assert without_what_is_new_each_time(answer) == without_what_is_new_each_time(place(gateway, "x"))


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("make", GOOD.values(), ids=GOOD)
def test_a_good_token_is_taken_everywhere(
    gateway: Gateway, make: Make, place: Callable[[Gateway, str], Answer]
) -> None:
    """So that the rows above fail for what they name."""
    assert place(gateway, make(gateway)).status in (200, 101)


@pytest.mark.parametrize(
    ("size", "status"), [(15_000, 401), (17_000, 400), (1024 * 1024, 400)], ids=["15 kB", "17 kB", "1 MiB"]
)
def test_a_token_of_any_size_costs_no_more_than_a_head(gateway: Gateway, size: int, status: int) -> None:
    """What is larger than a line may be is not read to its end."""
    for place in (native, by_query):
        assert place(gateway, "a" * size).status == status


@pytest.mark.parametrize(
    ("field", "status"),
    [
        ("Bearer", 401), ("Bearer ", 401), ("Basic YTpi", 401), ("Bearer: x", 401), ("DPoP {}", 401), ("{}", 401),
        ("bearer {}", 200), ("BEARER  {} ", 200),
    ],
)  # fmt: skip
def test_the_scheme_is_bearer_in_any_case_and_nothing_else(gateway: Gateway, field: str, status: int) -> None:
    """RFC 9110, section 11.1; a good token in another scheme is none."""
    with Client(gateway.port) as client:
        line = f"Authorization: {field.format(gateway.token())}"
        client.send(f"GET /v1/agents HTTP/1.1\r\nHost: x\r\n{line}\r\n\r\n".encode())
        answer = client.answer()
    assert answer is not None
    assert answer.status == status


def test_a_field_wins_over_the_query_and_two_in_the_query_are_none(gateway: Gateway) -> None:
    """A stranger who adds a token to somebody's link changes nothing."""
    good = gateway.token()
    line = "GET /api/v1/agents/echo/architecture?token="
    assert asked(gateway, f"{line}{good}", "x").status == 401
    assert asked(gateway, f"{line}x", good).status == 200
    assert asked(gateway, f"{line}{good}&token={good}", None).status == 401


def test_no_token_is_in_the_log(gateway: Gateway) -> None:
    """After all of the above: neither a token nor a part of one that says something."""
    text = "".join(gateway.log_lines)
    assert "eyJ" not in text
    assert apikeys.PREFIX not in text
    assert '"level":"error"' not in text
