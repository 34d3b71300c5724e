"""Proxies, pages of other origins, and the fields that every answer has."""

from __future__ import annotations

import contextlib
import ipaddress
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from runagentd.gateway.guard.proxies import Proxies
from runagentd.wire.settings import Http, Settings
from tests.fakes_gateway import Gateway

NEAR = Http(trusted_proxies=("10.0.0.0/8", "fd00::/8"))
INVOKE = "/v1/agents/echo/entrypoints/say:invoke"
STANDARD = Http(trusted_proxies=("10.0.0.0/8", "fd00::/8"), forwarded="forwarded")


@pytest.mark.parametrize(
    ("settings", "peer", "field", "client"),
    [
        (NEAR, "192.0.2.1", "198.51.100.7", "192.0.2.1"),  # not a proxy of ours: what it says is its own
        (NEAR, "10.1.1.1", None, "10.1.1.1"),
        (NEAR, "10.1.1.1", "198.51.100.7", "198.51.100.7"),
        (NEAR, "10.1.1.1", "1.2.3.4, 198.51.100.7", "198.51.100.7"),  # the first is what the client wrote
        (NEAR, "10.1.1.1", "198.51.100.7, 10.2.2.2", "198.51.100.7"),  # two proxies of ours
        (NEAR, "10.1.1.1", "10.3.3.3, 10.2.2.2", "10.3.3.3"),
        (NEAR, "10.1.1.1", "198.51.100.7:4711", "198.51.100.7"),
        (NEAR, "10.1.1.1", "[2001:db8::1]:4711", "2001:db8::1"),
        (NEAR, "10.1.1.1", "2001:db8::1", "2001:db8::1"),
        (NEAR, "10.1.1.1", "nonsense, 10.2.2.2", "10.2.2.2"),
        (NEAR, "10.1.1.1", "unknown", "10.1.1.1"),
        (NEAR, "10.1.1.1", ",", "10.1.1.1"),
        (NEAR, "10.1.1.1", "1.2.3.4" + " " * 5000, "10.1.1.1"),
        (NEAR, "::ffff:10.1.1.1", "198.51.100.7", "198.51.100.7"),
        (STANDARD, "10.1.1.1", "for=198.51.100.7", "198.51.100.7"),
        (STANDARD, "fd00::1", 'for="[2001:db8::1]:443";proto=https;by=10.0.0.1', "2001:db8::1"),
        (STANDARD, "10.1.1.1", 'for=1.2.3.4, For = "198.51.100.7" ; proto=http', "10.1.1.1"),
        (STANDARD, "10.1.1.1", "for=1.2.3.4, FOR=198.51.100.7;proto=http", "198.51.100.7"),
        (STANDARD, "10.1.1.1", "proto=http;for=198.51.100.7", "198.51.100.7"),
        (STANDARD, "10.1.1.1", "for=_hidden", "10.1.1.1"),
        (STANDARD, "10.1.1.1", "xfor=1.2.3.4", "10.1.1.1"),
        (STANDARD, "10.1.1.1", 'for="1.2.3.4', "10.1.1.1"),
    ],
)
def test_the_client_is_whom_the_last_proxy_of_ours_has_seen(
    settings: Http, peer: str, field: str | None, client: str
) -> None:
    """Anything that cannot be understood is as if it was not there."""
    assert Proxies(settings).client(peer, {settings.forwarded: field}.get) == client


@given(st.sampled_from([NEAR, STANDARD]), st.text(max_size=200))
def test_any_field_gives_an_address(settings: Http, field: str) -> None:
    """Of the proxy, or one that can be read."""
    ipaddress.ip_address(Proxies(settings).client("10.1.1.1", {settings.forwarded: field}.get))


@contextlib.contextmanager
def served(*origins: str) -> Iterator[Gateway]:
    settings = Settings(http=Http(cors_origins=origins))
    with tempfile.TemporaryDirectory(prefix="gw") as folder, Gateway(Path(folder), settings=settings) as gateway:
        yield gateway


def test_every_answer_says_what_browsers_must_not_do_with_it() -> None:
    """Also a refusal; nothing about other origins where none is configured."""
    with served() as gateway:
        for got in (
            gateway.ask("GET", "/v1/agents"),
            gateway.ask("GET", "/v1/agents", token="bad", Origin="https://app.example"),
            gateway.ask("POST", "/v1/agents/none/entrypoints/x:invoke", b"{}", Origin="https://app.example"),
        ):
            assert got.headers["x-content-type-options"] == "nosniff"
            assert got.headers["referrer-policy"] == "no-referrer"
            assert got.headers["cross-origin-resource-policy"] == "same-origin"
            assert got.headers["cache-control"] == "no-store"
            assert not [name for name in got.headers if name.startswith("access-control")]
        preflight = gateway.ask(
            "OPTIONS", "/v1/agents", token=None, Origin="https://app.example", Access_Control_Request_Method="GET"
        )
        assert preflight.status == 405


def test_a_listed_origin_may_read_answers_and_is_told_so_before_it_shows_a_token() -> None:
    """Exactly that one: not another scheme, port, subdomain, or what merely begins with it."""
    with served("https://app.example") as gateway:
        preflight = gateway.ask(
            "OPTIONS", INVOKE, token=None, Origin="https://app.example", Access_Control_Request_Method="POST"
        )
        assert (preflight.status, preflight.body) == (204, b"")
        assert preflight.headers["access-control-allow-origin"] == "https://app.example"
        assert "Authorization" in preflight.headers["access-control-allow-headers"]
        assert "access-control-allow-credentials" not in preflight.headers
        for method, path, body in (("GET", "/v1/agents", None), ("POST", "/v1/agents/x/entrypoints/y:invoke", b"{}")):
            got = gateway.ask(method, path, body, Origin="https://app.example")
            assert (got.headers["access-control-allow-origin"], got.headers["vary"]) == (
                "https://app.example",
                "Origin",
            )
        for origin in ("http://app.example", "https://app.example:444", "https://app.example.evil", "null", "*"):
            got = gateway.ask("GET", "/v1/agents", Origin=origin)
            assert "access-control-allow-origin" not in got.headers
            assert got.headers["vary"] == "Origin"


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("https://app.example", 404),
        ("http://127.0.0.1:PORT", 404),
        ("http://127.0.0.1:1", 403),
        ("https://127.0.0.1:PORT", 403),
        ("https://evil.example", 403),
        ("null", 403),
        ("", 403),
        (None, 404),
    ],
)
def test_a_page_of_another_origin_cannot_open_a_websocket(origin: str | None, status: int) -> None:
    """Even with a token, which a page may have been given in a link."""
    with served("https://app.example") as gateway:
        url = f"ws://127.0.0.1:{gateway.port}/api/v1/agents/none/run-stream?token={gateway.token()}"
        fields = {} if origin is None else {"Origin": origin.replace("PORT", str(gateway.port))}
        with pytest.raises(InvalidStatus) as raised, connect(url, compression=None, additional_headers=fields):
            pass
        assert raised.value.response.status_code == status
