"""Tokens of other issuers: what is believed, what is not, and when it stops."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import hashlib
import hmac
import http.client
import json
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization

from runagentd.cli import token_commands
from runagentd.gateway.configuration import Configuration
from runagentd.gateway.guard import issuers as module
from runagentd.gateway.guard.identity import Credentials, Principal
from runagentd.gateway.guard.tokens import SKEW_SECONDS
from runagentd.wire import issuers, trust
from runagentd.wire.channel import Frame
from runagentd.wire.control import Revoked, TrustTold
from runagentd.wire.issuers import Greeting, KeySet, Refresh, VerifyingKey
from runagentd.wire.settings import Issuer, IssuerGrant, RoleSettings, Settings
from tests.fakes_gateway import Gateway, HttpAnswer, answer, running
from tests.issuer import PrivateKey, claims, new_key, sign

URL = "https://login.example/realm"
INVOKE = "/v1/agents/echo-1/entrypoints/say:invoke"
CORP = Issuer(
    name="corp",
    source="s1",
    issuer=URL,
    audience=("runagentd",),
    algorithms=("RS256", "ES256"),
    types=("at+jwt",),
    subject="sub",
    tenant="",
    lifetime_max=3600,
    grants=(
        IssuerGrant(claim="groups", value="support", scopes=("agents:invoke:echo/*",)),
        IssuerGrant(claim="realm_access.roles", value="boss", scopes=("role:boss",)),
        IssuerGrant(claim="scope", value="echo.call", scopes=("agents:invoke:echo/say",)),
    ),
)
OTHER = dataclasses.replace(CORP, name="other", issuer="https://other.example", types=("jwt",), algorithms=("EdDSA",))
SETTINGS = Settings(issuers=(CORP, OTHER), roles=(RoleSettings(name="boss", allow=("agents:invoke:*/*",), deny=()),))
RSA, EC, ED = new_key("RS256"), new_key("ES256"), new_key("EdDSA")


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    """With two issuers, of which the first has an RSA and an EC key."""
    for one in running(SETTINGS):
        assert heard(one) == Greeting()
        tell(one, keys(r=(RSA, ("RS256",)), e=(EC, ("ES256",))))
        yield one


def der(key: PrivateKey) -> bytes:
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return key.public_key().public_bytes(*form)


def keys(
    name: str = "corp",
    *,
    source: str = "s1",
    fetched: int = 1,
    ends: float = 3600.0,
    **named: tuple[PrivateKey, tuple[str, ...]],
) -> KeySet:
    found = tuple(VerifyingKey(kid=kid, algorithms=names, public=der(key)) for kid, (key, names) in named.items())
    return KeySet(issuer=name, source=source, keys=found, fetched=fetched, until=int(time.time() + ends))


def tell(gateway: Gateway, message: KeySet) -> None:
    """As the egress process does; returns when the gateway holds to it."""
    gateway.egress.send(issuers.pack(message))
    believed = gateway.application._issuers._by_name
    gateway.wait_until(lambda: message.issuer not in believed or believed[message.issuer].told == message)


def heard(gateway: Gateway) -> issuers.FromGateway:
    return issuers.parse_from_gateway(gateway.egress.recv(issuers.MESSAGE_BYTES_MAX))


def token(
    key: Any = RSA, kid: str = "r", algorithm: str = "RS256", *, header: dict[str, Any] | None = None, **changes: Any
) -> str:
    """Any: claims and header fields are JSON."""
    return sign(key, kid, algorithm, claims(URL, **changes), **(header or {}))


def me(gateway: Gateway, shown: str) -> HttpAnswer:
    return gateway.ask("GET", "/v1/me", token=shown)


def refusal(gateway: Gateway, shown: str) -> str:
    got = me(gateway, shown)
    assert got.status == 401, got.body
    assert 'error="invalid_token"' in got.headers["www-authenticate"]
    return str(got.json()["detail"])


def test_a_good_token_is_somebody_under_the_name_of_their_issuer(gateway: Gateway) -> None:
    """With what the operator's mapping grants for its claims, and nothing else."""
    said = me(gateway, token(scope="openid echo.call agents:invoke:*/*", realm_access={"roles": ["staff"]})).json()
    assert said["subject"] == "corp:alice"
    assert said["issuer"] == URL
    assert said["scopes"] == ["agents:invoke:echo/*", "agents:invoke:echo/say"]
    assert me(gateway, token(EC, "e", "ES256", groups=["none"])).json()["scopes"] == []
    boss = me(gateway, token(groups=None, realm_access={"roles": ["boss"]})).json()
    assert boss["scopes"] == ["role:boss"]


def test_it_calls_what_it_was_granted_and_finds_nothing_else(gateway: Gateway) -> None:
    """As a token of our own."""
    runner = gateway.ready()
    asked = gateway.send("POST", INVOKE, b"{}", token=token())
    runner.result(runner.expect(Frame.CALL).call, "said")
    assert answer(asked).json() == "said"
    assert gateway.ask("POST", INVOKE, b"{}", token=token(groups=[])).status == 404


def test_why_a_token_was_refused_is_in_the_log_and_the_token_is_not(gateway: Gateway) -> None:
    """At the level that an operator has: an issuer that was set up wrongly is found by it."""
    shown = token(aud="somebody-else")
    assert gateway.ask("POST", INVOKE, b"{}", token=shown).status == 401
    gateway.wait_until(lambda: any("AUTHENTICATION_ERROR" in line for line in gateway.log_lines))
    (line,) = [json.loads(text) for text in gateway.log_lines if "AUTHENTICATION_ERROR" in text]
    assert (line["level"], line["problem"]) == ("info", "the token is meant for another installation")
    assert not any(part in text for text in gateway.log_lines for part in shown.split("."))


def now() -> int:
    """When it is asked: a suite takes longer than some of the times below."""
    return int(time.time())


NESTED = sign(RSA, "r", "RS256", claims(URL))


@pytest.mark.parametrize(
    ("shown", "detail"),
    [
        pytest.param(lambda: token(aud="somebody-else"), "meant for another installation", id="audience"),
        pytest.param(lambda: token(aud=["a", "b"]), "meant for another installation", id="audiences"),
        pytest.param(lambda: token(aud=None), "meant for another installation", id="no audience"),
        pytest.param(lambda: token(aud={"runagentd": 1}), "meant for another installation", id="audience is an object"),
        pytest.param(lambda: token(exp=now() - 32, iat=now() - 100), "has expired", id="expired by a second"),
        pytest.param(lambda: token(iat=now() + 400, exp=now() + 500), "not valid yet", id="of the future"),
        pytest.param(lambda: token(nbf=now() + 400), "not valid yet", id="not before"),
        pytest.param(lambda: token(exp=now() + 4000), "lives longer", id="too long a life"),
        pytest.param(lambda: token(exp=None), "'exp' is not a time", id="no end"),
        pytest.param(lambda: token(iat=None), "'iat' is not a time", id="no begin"),
        pytest.param(lambda: token(exp=True), "'exp' is not a time", id="end is true"),
        pytest.param(lambda: token(exp="tomorrow"), "'exp' is not a time", id="end is a word"),
        pytest.param(lambda: token(sub=None), "'sub' is not one text", id="nobody"),
        pytest.param(lambda: token(sub=["alice", "bob"]), "'sub' is not one text", id="two people"),
        pytest.param(lambda: token(sub="a\nb"), "not printable", id="a name with a line break"),
        pytest.param(lambda: token(sub="x" * 300), "too long", id="a long name"),
        pytest.param(lambda: token(header={"typ": "JWT"}), "type is not at+jwt", id="an ID token"),
        pytest.param(lambda: token(header={"crit": ["b64"], "b64": True}), "has 'crit'", id="critical extension"),
        pytest.param(lambda: sign(RSA, "../../keys", "RS256", claims(URL)), "names a key", id="a kid that is a path"),
        pytest.param(lambda: sign(RSA, "", "RS256", claims(URL)), "names a key", id="an empty kid"),
        pytest.param(lambda: sign(ED, "r", "EdDSA", claims(URL)), "algorithm is not", id="an algorithm not allowed"),
        pytest.param(lambda: sign(EC, "r", "ES256", claims(URL)), "not one of its key's", id="another kind of key"),
        pytest.param(lambda: sign(new_key("RS256"), "r", "RS256", claims(URL)), "signature", id="another's signature"),
        pytest.param(lambda: none_token(), "neither a signed JWT nor an API key", id="alg none"),
        pytest.param(lambda: confused(), "algorithm is not", id="HS256 with the public key as secret"),
        pytest.param(lambda: doubled(), "algorithm is not", id="duplicate claims"),
        pytest.param(lambda: jwt.encode({"iss": URL, "jwt": NESTED}, RSA, "RS256", {"kid": "r", "typ": "at+jwt"}),
                     "meant for another", id="a token in a token"),
    ],
)  # fmt: skip
def test_each_way_in_which_a_token_is_not_good(gateway: Gateway, shown: Any, detail: str) -> None:
    """Told with the reason, as for our own; nothing but the token decides."""
    assert detail in refusal(gateway, shown())


def none_token() -> str:
    return jwt.encode(claims(URL), "", "none", {"kid": "r", "typ": "at+jwt"})


def confused() -> str:
    """CVE-2015-9235: who takes the algorithm from the token checks this with the public key as an HMAC's secret."""
    parts = [{"alg": "HS256", "typ": "at+jwt", "kid": "r"}, claims(URL)]
    text = ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts)
    mac = hmac.digest(der(RSA), text.encode(), hashlib.sha256)
    return f"{text}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def doubled() -> str:
    """Two subjects, and a signature that is good for both: whom it is about depends on the parser."""
    said = json.dumps(claims(URL))[:-1] + ', "sub": "root"}'
    return jwt.PyJWS().encode(said.encode(), RSA, "RS256", {"kid": "r", "typ": "at+jwt"})


def test_no_issuer_can_speak_for_another_or_with_anothers_key(gateway: Gateway) -> None:
    """A kid is one issuer's; a subject is its issuer's, and none is ours."""
    tell(gateway, keys("other", r=(ED, ("EdDSA",))))
    theirs = sign(ED, "r", "EdDSA", claims("https://other.example"), typ="JWT")
    assert me(gateway, theirs).json()["subject"] == "other:alice"
    assert "algorithm" in refusal(gateway, sign(ED, "r", "EdDSA", claims(URL)))
    posing = sign(ED, "r", "EdDSA", claims("https://other.example", sub="corp:alice"), typ="JWT")
    assert me(gateway, posing).json()["subject"] == "other:corp:alice"
    ours = gateway.token().split(".")
    assert refusal(gateway, f"{ours[0]}.{ours[1]}.{theirs.split('.')[2]}") == "the token's signature is not valid"


def test_a_key_that_is_not_known_is_asked_for_once_and_used_as_soon_as_it_is_there(gateway: Gateway) -> None:
    """Many callers, one question; a made-up kid half a minute later costs nobody anything."""
    fresh = new_key("ES256")
    shown = sign(fresh, "new", "ES256", claims(URL))
    waiting = [gateway.send("GET", "/v1/me", token=sign(fresh, "new", "ES256", claims(URL))) for _ in range(5)]
    assert heard(gateway) == Refresh(issuer="corp")
    tell(gateway, keys(r=(RSA, ("RS256",)), new=(fresh, ("ES256",))))
    assert [answer(each).status for each in waiting] == [200] * 5
    assert me(gateway, shown).status == 200
    began = time.monotonic()
    assert "names a key" in refusal(gateway, sign(fresh, "made-up", "ES256", claims(URL)))
    assert time.monotonic() - began < 1.0
    gateway.egress.setblocking(False)
    with pytest.raises(BlockingIOError):
        heard(gateway)


def test_when_a_key_leaves_the_set_its_tokens_and_their_streams_end(gateway: Gateway) -> None:
    """At once, also what was found good a moment before."""
    runner = gateway.ready("say", streams=True)
    shown = token(EC, "e", "ES256")
    stream = gateway.send("POST", INVOKE, b"{}", token=shown, Accept="text/event-stream")
    call = runner.expect(Frame.CALL)
    runner.chunk(call.call, 1)
    tell(gateway, keys(r=(RSA, ("RS256",))))
    assert runner.until(Frame.CANCEL).call == call.call
    assert b'"code":"AUTHENTICATION_ERROR"' in answer_until_cut(stream)
    assert "names a key" in refusal(gateway, shown)
    assert me(gateway, token()).status == 200


def test_another_key_under_the_same_name_ends_the_streams_of_the_one_before(gateway: Gateway) -> None:
    """Else an issuer that replaces a key that leaked would have to change its name as well."""
    runner = gateway.ready("say", streams=True)
    shown = token(EC, "e", "ES256")
    stream = gateway.send("POST", INVOKE, b"{}", token=shown, Accept="text/event-stream")
    call = runner.expect(Frame.CALL)
    runner.chunk(call.call, 1)
    other = new_key("ES256")
    tell(gateway, keys(r=(RSA, ("RS256",)), e=(other, ("ES256",))))
    assert runner.until(Frame.CANCEL).call == call.call
    assert b'"code":"AUTHENTICATION_ERROR"' in answer_until_cut(stream)
    assert "signature is not valid" in refusal(gateway, shown)
    assert me(gateway, token(other, "e", "ES256")).status == 200


def test_an_egress_process_that_could_fetch_nothing_yet_takes_no_keys_away(gateway: Gateway) -> None:
    """As after its end, while the issuer is down: what was fetched before holds as long as it would have."""
    shown = token()
    assert me(gateway, shown).status == 200
    nothing = KeySet(issuer="corp", source="s1", keys=(), fetched=0, until=0)
    gateway.egress.send(issuers.pack(nothing))
    tell(gateway, keys("other", o=(ED, ("EdDSA",))))  # by then the one before it was read
    assert me(gateway, shown).status == 200
    assert me(gateway, token(sub="bob")).status == 200


def answer_until_cut(connection: Any) -> bytes:
    response = connection.getresponse()
    try:
        return bytes(response.read())
    except http.client.IncompleteRead as error:
        return error.partial
    finally:
        connection.close()


def test_keys_that_nobody_could_fetch_for_too_long_are_given_up(gateway: Gateway) -> None:
    """Until then an issuer that is down costs nothing."""
    shown = token()
    assert me(gateway, shown).status == 200
    tell(gateway, keys(r=(RSA, ("RS256",)), ends=1.0))
    assert me(gateway, shown).status == 200
    gateway.wait_until(lambda: any("too old to be believed" in line for line in gateway.log_lines))
    assert "names a key" in refusal(gateway, shown)


def test_before_any_key_is_known_a_token_is_neither_good_nor_bad(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 with Retry-After: a client that is told 401 throws its token away."""
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.05)
    got = me(gateway, sign(ED, "k", "EdDSA", claims("https://other.example"), typ="JWT"))
    assert (got.status, got.json()["code"], got.headers["retry-after"]) == (503, "UNAVAILABLE", "5")
    assert got.json()["detail"] == "the keys of the token's issuer are not known yet"
    tell(gateway, keys("other", fetched=0))
    assert me(gateway, sign(ED, "k", "EdDSA", claims("https://other.example"), typ="JWT")).status == 503


def test_what_is_revoked_here_is_revoked_whoever_issued_it(gateway: Gateway) -> None:
    """By its id, by its subject under the issuer's name, and by time."""
    one, two = token(jti="of-one"), token(sub="bob")
    assert (me(gateway, one).status, me(gateway, two).status) == (200, 200)
    gateway.supervisor.tell_trust([Revoked(token_ids=("of-one",), subjects=(), before=0), TrustTold(epoch=1)])
    assert refusal(gateway, one) == "the token, key or certificate was revoked"
    assert me(gateway, two).status == 200
    until = int(time.time()) + 1
    gone = trust.SubjectRevoked(subject="corp:bob", before=until)
    gateway.supervisor.tell_trust([Revoked(token_ids=(), subjects=(gone,), before=0), TrustTold(epoch=2)])
    assert refusal(gateway, two) == "the token, key or certificate was revoked"
    assert me(gateway, token(sub="carol")).status == 200


@pytest.mark.parametrize("whose", ["subject", "anybody"])
def test_a_clock_that_is_ahead_keeps_no_token_from_a_revocation(gateway: Gateway, whose: str) -> None:
    """Half a minute, as tokens may be dated ahead: what was issued before it ends with it, and a little more."""
    now = int(time.time())
    ahead, later = token(sub="bob", iat=now + 25), token(sub="bob", iat=now + 20, jti="x")
    assert me(gateway, ahead).status == 200
    gone = (trust.SubjectRevoked(subject="corp:bob", before=now),) if whose == "subject" else ()
    before = 0 if gone else now
    gateway.supervisor.tell_trust([Revoked(token_ids=(), subjects=gone, before=before), TrustTold(epoch=1)])
    for each in (ahead, later):
        assert refusal(gateway, each) == "the token, key or certificate was revoked"
    gone = (trust.SubjectRevoked(subject="corp:carol", before=now - 31),)
    gateway.supervisor.tell_trust([Revoked(token_ids=(), subjects=gone, before=0), TrustTold(epoch=2)])
    assert me(gateway, token(sub="carol", iat=now)).status == (200 if whose == "subject" else 401)


def test_both_forms_of_a_signature_are_one_token(gateway: Gateway) -> None:
    """Of an ECDSA signature (r, s) everybody can make (r, n - s): a token without jti is known by what was signed."""
    shown = sign(EC, "e", "ES256", {name: value for name, value in claims(URL).items() if name != "jti"})
    signed, _, signature = shown.rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256
    second = raw[:32] + (order - int.from_bytes(raw[32:], "big")).to_bytes(32, "big")
    other = f"{signed}.{base64.urlsafe_b64encode(second).rstrip(b'=').decode()}"
    assert (me(gateway, shown).status, me(gateway, other).status) == (200, 200)
    # As `runagentctl token revoke` remembers it for who shows it one of them.
    (identity, _), (same, _) = (token_commands._identity(each, "https://ours.example") for each in (shown, other))
    assert identity == same == hashlib.sha256(signed.encode()).hexdigest()
    gateway.supervisor.tell_trust([Revoked(token_ids=(identity,), subjects=(), before=0), TrustTold(epoch=1)])
    for each in (shown, other):
        assert refusal(gateway, each) == "the token, key or certificate was revoked"


@pytest.mark.parametrize("named", [True, False])
def test_a_token_that_was_revoked_is_not_good_again_before_its_end(named: bool) -> None:
    """An issuer's tokens may live for a year where the operator lets them, and ours for a week."""
    end = now() + 300 * 86400
    _, until = token_commands._identity(token(exp=end, jti="j" if named else None), "https://ours.example")
    assert end + SKEW_SECONDS <= until <= end + SKEW_SECONDS + 1
    for strange in (2**60, -1, True, "tomorrow", None):
        _, until = token_commands._identity(token(exp=strange), "https://ours.example")
        assert now() + 7 * 86400 < until < now() + 8 * 86400


def test_a_tenant_is_one_of_its_issuers(gateway: Gateway) -> None:
    """Two issuers may have an acme each, and so may we: they share no limits."""
    settings = Settings(issuers=(dataclasses.replace(CORP, tenant="org"),), roles=SETTINGS.roles)
    gateway.inside(lambda: gateway.application.configure(Configuration(settings, {})))
    shown = token(org="acme")
    principal = gateway.inside(lambda: asyncio.ensure_future(_principal(gateway, shown)))
    gateway.wait_until(principal.done)
    assert principal.result().tenant == "corp:acme"


async def _principal(gateway: Gateway, shown: str) -> Principal:
    return await gateway.application.identity.principal(Credentials(shown))


def test_what_an_egress_process_says_of_nobody_or_wrongly_changes_nothing(gateway: Gateway) -> None:
    """A captured one can name keys for the issuers that are configured, and do nothing else."""
    tell(gateway, keys("nobody", r=(ED, ("EdDSA",))))
    broken = KeySet(
        issuer="corp",
        source="s1",
        keys=(
            VerifyingKey(kid="x", algorithms=("RS256",), public=b"no key"),
            VerifyingKey(kid="y", algorithms=("HS256", "ES256"), public=der(RSA)),
        ),
        fetched=1,
        until=int(time.time()) + 60,
    )
    for data in (b"", b"\x00", b"\x01" + b"\xff" * 100, b"x" * 60_000):
        if data:
            gateway.egress.send(data)
    tell(gateway, broken)
    assert "names a key" in refusal(gateway, sign(RSA, "x", "RS256", claims(URL)))
    assert "not one of its key's" in refusal(gateway, sign(RSA, "y", "RS256", claims(URL)))
    assert gateway.ask("GET", "/v1/me").status == 200


def test_a_million_bytes_are_no_token(gateway: Gateway) -> None:
    """Refused by its length, before anything of it is looked at."""
    got = gateway.ask("GET", f"/api/v1/agents/echo-1/architecture?token={token()}{'A' * 9000}", token=None)
    assert got.status in (400, 401)


def test_another_configuration_ends_what_it_does_not_name(gateway: Gateway) -> None:
    """An issuer that is taken out is no more believed; one that stays keeps its keys."""
    shown = token()
    assert me(gateway, shown).status == 200
    narrow = dataclasses.replace(CORP, algorithms=("ES256",))
    gateway.inside(lambda: gateway.application.configure(Configuration(Settings(issuers=(narrow,)), {})))
    assert "algorithm is not ES256" in refusal(gateway, token())
    assert me(gateway, token(EC, "e", "ES256")).status == 200
    elsewhere = dataclasses.replace(CORP, source="s2")
    gateway.inside(lambda: gateway.application.configure(Configuration(Settings(issuers=(elsewhere,)), {})))
    gateway.egress.send(issuers.pack(keys(e=(EC, ("ES256",)))))  # of where they came from before
    assert me(gateway, token(EC, "e", "ES256")).status == 503
    tell(gateway, keys(source="s2", e=(EC, ("ES256",))))
    assert me(gateway, token(EC, "e", "ES256")).status == 200
    gateway.inside(lambda: gateway.application.configure(Configuration(Settings(), {})))
    assert refusal(gateway, shown)


def test_keys_that_came_before_their_issuer_was_configured_are_asked_for_again(gateway: Gateway) -> None:
    """At SIGHUP the egress process may be the first to know; else the first caller would wait for nothing."""
    elsewhere = dataclasses.replace(CORP, source="s2")
    gateway.egress.send(issuers.pack(keys(source="s2", e=(EC, ("ES256",)))))
    tell(gateway, keys("other", o=(ED, ("EdDSA",))))  # by then the one before it was read
    gateway.inside(lambda: gateway.application.configure(Configuration(Settings(issuers=(elsewhere, OTHER)), {})))
    gateway.egress.settimeout(5)
    assert heard(gateway) == Greeting()
    tell(gateway, keys(source="s2", e=(EC, ("ES256",))))
    assert me(gateway, token(EC, "e", "ES256")).status == 200
    gateway.inside(lambda: gateway.application.configure(Configuration(Settings(issuers=(elsewhere,)), {})))
    assert me(gateway, token(EC, "e", "ES256")).status == 200
    gateway.egress.setblocking(False)
    with pytest.raises(BlockingIOError):
        heard(gateway)
