"""Getting a key set from a real HTTPS server, and what is refused on the way."""

from __future__ import annotations

import asyncio
import gc
import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from runagentd.egress import fetch as module
from runagentd.egress.fetch import FetchError, fetch
from runagentd.wire.settings import IssuerSource
from tests import certificates
from tests.issuer import Issuer

DISCOVERY = "/realm/.well-known/openid-configuration"


@pytest.fixture
def issuer(tmp_path: Path) -> Iterator[Issuer]:
    one = Issuer(tmp_path / "issuer")
    yield one
    one.close()


def source(issuer: Issuer, *, jwks: str = "", ca: bytes | None = None) -> IssuerSource:
    return IssuerSource(
        name="corp", source="s1", issuer=issuer.url, jwks=jwks, algorithms=("RS256",),
        ca=issuer.ca.read_bytes() if ca is None else ca, refresh=3600, stale=86400,
    )  # fmt: skip


def get(settings: IssuerSource) -> bytes:
    async def main() -> bytes:
        try:
            return await fetch(settings)
        finally:
            # What was closed is gone when the server has heard of it.
            await asyncio.sleep(0.6 if module.SECONDS_MAX < 1 else 0.02)

    try:
        return uvloop.run(main())
    finally:
        # aiohttp leaves the socket of a handshake that failed to the collector: here and now, not in another test.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()


def problem(settings: IssuerSource) -> str:
    with pytest.raises(FetchError) as raised:
        get(settings)
    return str(raised.value)


def test_keys_are_found_by_discovery_or_at_the_address_that_the_operator_wrote(issuer: Issuer) -> None:
    """OpenID Connect Discovery 1.0, section 4, and without it."""
    assert get(source(issuer)) == issuer.jwks()
    assert get(source(issuer, jwks=f"https://127.0.0.1:{issuer.port}/keys")) == issuer.jwks()


def test_a_server_without_a_certificate_that_is_trusted_is_not_believed(issuer: Issuer, tmp_path: Path) -> None:
    """Neither by the system's authorities nor by another one of the operator's."""
    assert "CertificateError" in problem(source(issuer, ca=b"")) or "certificate" in problem(source(issuer, ca=b""))
    (tmp_path / "other").mkdir()
    certificates.write(tmp_path / "other")
    assert "certificate" in problem(source(issuer, ca=(tmp_path / "other" / "certificate.pem").read_bytes())).lower()


def test_no_redirect_is_followed(issuer: Issuer) -> None:
    """Not even to where the keys are."""
    issuer.answers[DISCOVERY] = (302, {"Location": "/keys"}, b"")
    assert problem(source(issuer)) == "the server answered 302, and redirects are not followed"


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"issuer": "https://evil.example", "jwks_uri": "https://127.0.0.1/keys"}, "of another issuer"),
        ({"jwks_uri": "https://127.0.0.1/keys"}, "no JSON object with issuer and jwks_uri"),
        ({"issuer": 7, "jwks_uri": 8}, "no JSON object with issuer and jwks_uri"),
        ([], "no JSON object with issuer and jwks_uri"),
    ],
)
def test_a_discovery_document_of_another_is_refused(issuer: Issuer, document: object, expected: str) -> None:
    """Section 4.3: else one tenant of a server could hand out another's keys."""
    issuer.answers[DISCOVERY] = (200, {}, json.dumps(document).encode())
    assert expected in problem(source(issuer))


def test_a_discovery_document_that_says_something_twice_is_refused(issuer: Issuer) -> None:
    """Else what somebody has looked at on the way need not be where we go."""
    address = f"https://127.0.0.1:{issuer.port}/keys"
    document = f'{{"issuer": "{issuer.url}", "jwks_uri": "https://other.example/keys", "jwks_uri": "{address}"}}'
    issuer.answers[DISCOVERY] = (200, {}, document.encode())
    assert problem(source(issuer)) == "a member of the discovery document is there twice"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("http://127.0.0.1:{port}/keys", "not behind https://"),
        ("file:///etc/passwd", "not behind https://"),
        ("https://169.254.169.254/latest/meta-data", "no public address"),
        ("https://127.0.0.1:1/keys", "no public address"),
        ("https://[::1]/keys", "no public address"),
        ("https://[::ffff:127.0.0.1]/keys", "no public address"),
        ("https://[64:ff9b::7f00:1]/keys", "no public address"),
        ("https://[64:ff9b:1::a00:1]/keys", "no public address"),
        ("https://[::7f00:1]/keys", "no public address"),
        ("https://[2002:7f00:1::]/keys", "no public address"),
        ("https://[::ffff:0:127.0.0.1]/keys", "no public address"),
        ("https://[fec0::1]/keys", "no public address"),
        ("https://[3fff::1]/keys", "no public address"),
        ("https://[5f00::1]/keys", "no public address"),
        ("https://127.1:{port}/keys", "no public address"),
        ("https://2130706433:{port}/keys", "no public address"),
        ("https://0177.0.0.1:{port}/keys", "no public address"),
        ("https://10.1.2.3/keys", "no public address"),
        ("https://localhost:{port}/keys", "no public address"),
        ("https://[fe80::1]/keys", "no public address"),
        ("https://[", "is no address"),
    ],
)
def test_a_document_cannot_send_us_to_what_only_this_machine_can_reach(
    issuer: Issuer, address: str, expected: str
) -> None:
    """A hostile issuer would have us ask the host's own services, or a cloud's metadata. By name or by number."""
    document = {"issuer": issuer.url, "jwks_uri": address.format(port=issuer.port)}
    issuer.answers[DISCOVERY] = (200, {}, json.dumps(document).encode())
    assert expected in problem(source(issuer))


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2001:4860:4860::8888", "64:ff9b::808:808", "2002:808:808::1", "::ffff:8.8.8.8"]
)
def test_a_public_address_is_one_in_each_of_its_forms(address: str) -> None:
    """A host with IPv6 only reaches others by NAT64 (RFC 6147)."""
    assert module._is_public(address)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ((200, {}, b" " * 300_000), "larger than 262144 bytes"),
        ((200, {"Content-Encoding": "gzip"}, b"\x1f\x8b"), "compressed"),
        ((500, {}, b"{}"), "answered 500"),
        ((404, {}, b"{}"), "answered 404"),
        ((200, {"Content-Length": "100"}, b"{}"), "ClientPayloadError"),
    ],
)
def test_answers_that_are_none(issuer: Issuer, answer: tuple[int, dict[str, str], bytes], expected: str) -> None:
    """Too large, packed, failed, cut."""
    issuer.answers["/keys"] = answer
    if expected == "ClientPayloadError":
        issuer.answers["/keys"] = (answer[0], {**answer[1], "Connection": "close"}, answer[2])
    assert expected in problem(source(issuer))


def test_a_server_that_takes_its_time_is_not_waited_for(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten seconds for all of it, in a test a fifth of one."""
    monkeypatch.setattr(module, "SECONDS_MAX", 0.2)
    issuer.delay = 0.4
    assert problem(source(issuer)) == "there was no whole answer within 0 s"


def test_nobody_there_is_an_error_like_any_other(issuer: Issuer) -> None:
    """A name that does not exist, a port on which nobody listens."""
    assert "ClientConnectorError" in problem(source(issuer, jwks="https://127.0.0.1:1/keys"))
    assert problem(source(issuer, jwks="https://nobody.invalid/keys"))
