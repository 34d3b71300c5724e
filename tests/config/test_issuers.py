"""`[issuers]`: every mistake is told before anything starts, with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from runagentd.config import load
from runagentd.errors import ConfigurationError
from runagentd.wire.settings import Issuer, IssuerGrant, IssuerSource
from tests import certificates

SHORT = b"""
[issuers.corp]
issuer = "https://login.example.com/realms/corp"
audience = ["runagentd"]
"""


def problems(text: bytes, folder: Path = Path("/nowhere")) -> str:
    with pytest.raises(ConfigurationError) as raised:
        load.parse(text, "runagentd.toml", folder)
    return str(raised.value)


ORIGIN = "33328edf85468b6b"
"""of what SHORT says of where the keys are"""


def test_the_shortest_form_has_the_strict_defaults() -> None:
    """Discovery, signatures with a public key, access tokens, a day; and it grants nothing."""
    found = load.parse(SHORT, "runagentd.toml", Path("/nowhere"))
    assert found.settings.issuers == (
        Issuer(
            name="corp",
            source=ORIGIN,
            issuer="https://login.example.com/realms/corp",
            audience=("runagentd",),
            algorithms=("RS256", "ES256", "EdDSA"),
            types=("at+jwt",),
            subject="sub",
            tenant="",
            lifetime_max=86400,
            grants=(),
        ),
    )
    assert found.egress.issuers == (
        IssuerSource(
            name="corp",
            source=ORIGIN,
            issuer="https://login.example.com/realms/corp",
            jwks="",
            algorithms=("RS256", "ES256", "EdDSA"),
            ca=b"",
            refresh=3600,
            stale=86400,
        ),
    )


def test_everything_can_be_said(tmp_path: Path) -> None:
    """And each daemon is told its own part."""
    certificates.write(tmp_path)
    text = (
        SHORT
        + b"""
jwks = "https://keys.example.com/jwks?x=1"
algorithms = ["PS256"]
types = ["application/AT+JWT", "JWT"]
subject = "email"
tenant = "org"
lifetime_max = "10m"
refresh = "5m"
stale = "2d"
ca = "certificate.pem"

[[issuers.corp.grants]]
scopes = ["agents:read"]

[[issuers.corp.grants]]
claim = "realm_access.roles"
value = "support"
roles = ["support"]
"""
    )
    found = load.parse(text, "runagentd.toml", tmp_path)
    issuer, source = found.settings.issuers[0], found.egress.issuers[0]
    assert (issuer.types, issuer.subject, issuer.tenant, issuer.lifetime_max) == (
        ("at+jwt", "jwt"),
        "email",
        "org",
        600,
    )
    assert issuer.source == source.source != ORIGIN
    assert issuer.grants == (
        IssuerGrant(claim="", value="", scopes=("agents:read",)),
        IssuerGrant(claim="realm_access.roles", value="support", scopes=("role:support",)),
    )
    assert (source.jwks, source.algorithms) == ("https://keys.example.com/jwks?x=1", ("PS256",))
    assert (source.refresh, source.stale, source.ca) == (300, 172800, (tmp_path / "certificate.pem").read_bytes())


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (
            b'issuer = "http://login.example.com"',
            "issuers.corp.issuer: 'http://login.example.com' is no address with https",
        ),
        (b'issuer = "https://user@login.example.com"', "is no address with https://, without user, query and fragment"),
        (b'issuer = "https://login.example.com?x"', "is no address with https://, without user, query and fragment"),
        (b'issuer = ""', "issuers.corp.issuer: must be the issuer's address"),
        (b"audience = []", "issuers.corp.audience: must name who we are to this issuer"),
        (b'algorithms = ["HS256"]', "issuers.corp.algorithms: 'HS256' is none of RS256, RS384"),
        (b'algorithms = ["none"]', "issuers.corp.algorithms: 'none' is none of"),
        (b"algorithms = []", "issuers.corp.algorithms: must name at least one"),
        (b"types = []", "issuers.corp.types: must name the `typ` of tokens"),
        (b'jwks = "file:///etc/keys"', "issuers.corp.jwks: 'file:///etc/keys' is no address"),
        (b'lifetime_max = "60"', "issuers.corp.lifetime_max: must be a time up to a year"),
        (b'refresh = "30s"', "issuers.corp.refresh: must be a minute at least"),
        (b'stale = "1m"', "issuers.corp.stale: must not be shorter than refresh"),
        (b'ca = "none.pem"', "issuers.corp.ca: /nowhere/none.pem: no such file or directory"),
        (b'audiences = ["x"]', "issuers.corp.audiences: there is no such key"),
        (b'[[issuers.corp.grants]]\nclaim = "groups"\nroles = ["a"]', "grants[0].value: must say which value"),
        (b'[[issuers.corp.grants]]\nvalue = "groups"\nroles = ["a"]', "grants[0].claim: must name the claim"),
        (b'[[issuers.corp.grants]]\nclaim = "a"\nvalue = "b"', "grants[0].roles: must name roles"),
        (b'[[issuers.corp.grants]]\nscopes = ["all"]', "grants[0].scopes: 'all' is not a scope"),
    ],
)
def test_each_mistake_is_told(more: bytes, expected: str) -> None:
    """With the path of its key."""
    key = more.split(b" ")[0]
    lines = [line for line in SHORT.splitlines() if not line.startswith(key + b" ")]
    assert expected in problems(b"\n".join([*lines, more]))


def test_one_issuer_has_one_name() -> None:
    """Which mapping would hold for its tokens?"""
    twice = SHORT + SHORT.replace(b"corp]", b"two]")
    assert problems(twice) == (
        "runagentd.toml: issuers.two: is the same issuer as corp: https://login.example.com/realms/corp"
    )
