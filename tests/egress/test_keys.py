"""A key set of an issuer's: what of it is used, and why the rest is not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from runagentd.egress.keys import KeysError, keys_of
from runagentd.wire.issuers import ALGORITHMS
from tests.issuer import jwk, new_key

RSA, ES256, ES384, ED = (new_key(name) for name in ("RS256", "ES256", "ES384", "EdDSA"))
GOOD = jwk(ES256, "good")
SMALL = jwk(rsa.generate_private_key(public_exponent=65537, key_size=1024), "k")


def taken(*members: Any, allowed: tuple[str, ...] = ALGORITHMS) -> tuple[list[tuple[str, tuple[str, ...]]], str]:
    """Kid and algorithms of what is used, and the problems in one text."""
    found, problems = keys_of(json.dumps({"keys": list(members)}).encode(), allowed)
    return [(key.kid, key.algorithms) for key in found], "; ".join(problems)


def test_each_kind_of_key_with_what_it_can_be_used_for() -> None:
    """An issuer that says nothing of algorithms leaves it to the operator's list."""
    allowed = ("RS256", "PS256", "ES256", "ES384", "EdDSA")
    found, problems = taken(jwk(RSA, "r"), jwk(ES256, "e"), jwk(ES384, "f"), jwk(ED, "d"), allowed=allowed)
    assert found == [("r", ("PS256", "RS256")), ("e", ("ES256",)), ("f", ("ES384",)), ("d", ("EdDSA",))]
    assert problems == ""


def test_the_algorithm_that_a_key_names_is_the_only_one_it_is_used_with() -> None:
    """RFC 8725, section 3.1: a key is for one algorithm."""
    assert taken(jwk(RSA, "r", alg="PS384"))[0] == [("r", ("PS384",))]


@pytest.mark.parametrize(
    ("member", "problem"),
    [
        pytest.param({"kty": "oct", "kid": "k", "k": "c2VjcmV0"}, "it is symmetric", id="symmetric"),
        pytest.param({**jwk(RSA, "k"), "d": "AQAB"}, "it is private", id="private RSA"),
        pytest.param({**jwk(ED, "k"), "d": "AQAB"}, "it is private", id="private Ed25519"),
        pytest.param({**jwk(RSA, "k"), "k": "AQAB"}, "it is private", id="RSA with the member of a symmetric key"),
        pytest.param({**jwk(RSA, "k"), "kid": None}, "it has no kid", id="no kid"),
        pytest.param(jwk(RSA, ""), "it has no kid", id="empty kid"),
        pytest.param(jwk(RSA, "a\nb"), "it has no kid", id="kid with a line break"),
        pytest.param(jwk(RSA, "x" * 256), "it has no kid", id="long kid"),
        pytest.param({**jwk(RSA, "k"), "kid": 7}, "this is no JWK", id="kid that is a number"),
        pytest.param(jwk(RSA, "k", use="enc"), "it is not for signatures", id="for encryption"),
        pytest.param(jwk(RSA, "k", key_ops=["sign"]), "it is not for signatures", id="for signing only"),
        pytest.param(jwk(RSA, "k", alg="HS256"), "its algorithm 'HS256'", id="RSA for HS256"),
        pytest.param(jwk(RSA, "k", alg="none"), "its algorithm 'none'", id="RSA for none"),
        pytest.param(jwk(RSA, "k", alg="ES256"), "its algorithm 'ES256'", id="RSA for ES256"),
        pytest.param(SMALL, "it has 1024 bits", id="small RSA"),
        pytest.param({**jwk(RSA, "k"), "n": "A" * 12000}, "it has 0 bits", id="modulus of zeros"),
        pytest.param({**jwk(RSA, "k"), "n": "_" * 12000}, "it has 72000 bits", id="huge RSA"),
        pytest.param({**jwk(RSA, "k"), "e": "AQ"}, "its exponent", id="exponent 1"),
        pytest.param({**jwk(RSA, "k"), "e": "Aw"}, "its exponent", id="exponent 3"),
        pytest.param({**jwk(RSA, "k"), "e": "AQAA"}, "its exponent", id="even exponent"),
        pytest.param({**jwk(RSA, "k"), "n": "not base64!"}, "not in base64url", id="modulus that is no base64"),
        pytest.param({"kty": "RSA", "kid": "k"}, "a number of it is missing", id="RSA without numbers"),
        pytest.param({**jwk(ES256, "k"), "y": jwk(ES256, "k")["x"]}, "its numbers are no key", id="not on the curve"),
        pytest.param({**jwk(ES256, "k"), "crv": "P-521"}, "its curve 'P-521'", id="another curve"),
        pytest.param({**jwk(ES256, "k"), "crv": "secp256k1"}, "its curve 'secp256k1'", id="a curve of coins"),
        pytest.param({**jwk(ED, "k"), "x": "AA"}, "its numbers are no key", id="short Ed25519"),
        pytest.param({**jwk(ED, "k"), "crv": "X25519"}, "its curve 'X25519'", id="a key for agreement"),
        pytest.param({"kty": "AKP", "kid": "k"}, "its kind 'AKP'", id="a kind of the future"),
        pytest.param("text", "this is no JWK", id="text"),
        pytest.param(None, "this is no JWK", id="null"),
        pytest.param([], "this is no JWK", id="array"),
    ],
)
def test_what_is_wrong_with_one_key_costs_that_key(member: Any, problem: str) -> None:
    """The good one beside it is used, and the reason can be read in the log."""
    found, problems = taken(member, GOOD)
    assert found == [("good", ("ES256",))]
    assert problems.startswith("key 0: ")
    assert problem in problems


def test_two_keys_of_one_name_are_none() -> None:
    """Nobody can say which of them a token means."""
    found, problems = taken(jwk(RSA, "twice"), jwk(ED, "twice"), GOOD)
    assert found == [("good", ("ES256",))]
    assert problems == "two keys have the kid 'twice'"


def members(key: dict[str, Any], more: str) -> str:
    """A JWK with one more member, written after the others."""
    return f"{json.dumps(key)[:-1]}, {more}}}"


@pytest.mark.parametrize(
    "more", ['"kid": "k"', '"kid": "other"', r'"\u006bid": "other"', '"use": "enc"', '"d": 1, "d": 1', '"crv": "P-384"']
)
def test_a_key_that_says_something_twice_is_none(more: str) -> None:
    """Which one counts depends on who reads (RFC 7517, section 4): also where both say the same."""
    data = f'{{"keys": [{members(jwk(ES256, "k"), more)}, {json.dumps(GOOD)}]}}'
    found, problems = keys_of(data.encode(), ALGORITHMS)
    assert [key.kid for key in found] == ["good"]
    assert problems == ("key 0: a member of it is there twice",)


def test_a_set_that_holds_two_lists_of_keys_holds_none() -> None:
    """Who checks an issuer's answer before us may have looked at the other."""
    both = f'{{"keys": [{json.dumps(GOOD)}], "keys": [{json.dumps(jwk(ED, "k"))}]}}'
    with pytest.raises(KeysError, match="is there twice"):
        keys_of(both.encode(), ALGORITHMS)


def test_numbers_without_end_cost_no_more_than_their_key() -> None:
    """A reader that makes integers of them refuses the whole set."""
    endless = members(jwk(ES256, "k"), f'"z": {"9" * 5000}')
    found, _ = keys_of(f'{{"keys": [{endless}, {json.dumps(GOOD)}]}}'.encode(), ALGORITHMS)
    assert "good" in [key.kid for key in found]


@pytest.mark.parametrize(
    "data",
    [
        b"", b"null", b"[]", b"{}", b'{"keys":{}}', b'{"keys":[]}', b'{"keys":', b"\xff\xfe", b'{"keys":"' + b"[" * 99,
        b"[" * 100_000, b'{"keys":' + b"[" * 100_000, b'{"keys":[' + b'{"kty":"RSA"},' * 300 + b"{}]}",
        b'{"keys":[]}' + b" " * 300_000,
    ],
    ids=range(13),
)  # fmt: skip
def test_what_gives_no_key_is_one_error(data: bytes) -> None:
    """A captive portal's page, an empty set, depth without end, more than anybody needs."""
    with pytest.raises(KeysError):
        keys_of(data, ALGORITHMS)


def test_no_more_keys_are_taken_than_a_message_holds() -> None:
    """The first ones, and it is said."""
    found, problems = taken(*(jwk(ED, f"k{number}") for number in range(40)))
    assert [kid for kid, _ in found] == [f"k{number}" for number in range(32)]
    assert problems == "40 keys can be used, and only the first 32 are"


NAMES = st.sampled_from(["keys", "kty", "kid", "n", "e", "x", "y", "crv", "alg", "use"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=6),
)


@given(st.binary(max_size=400) | JSON.map(lambda value: json.dumps({"keys": [value]}).encode()))
def test_any_bytes_give_keys_or_the_one_error(data: bytes) -> None:
    """Never another exception."""
    try:
        keys_of(data, ALGORITHMS)
    except KeysError:
        pass
