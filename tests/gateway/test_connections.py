"""How many connections there may be, over all and of one address, before anything of them is read."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from runagentd.config import load
from runagentd.gateway import listener, tls
from runagentd.gateway.configuration import Configuration
from tests import certificates
from tests.fakes_gateway import TIMEOUT, Gateway, HttpAnswer

WORKERS = pytest.mark.parametrize("workers", [1, 2], ids=["alone", "workers"])


@contextlib.contextmanager
def started(
    text: str = "", *, most: int = 4096, tls: ssl.SSLContext | None = None, workers: int = 1
) -> Iterator[Gateway]:
    """A gateway with these settings (TOML)."""
    settings = load.parse(text.encode(), "runagentd.toml", Path("/")).settings
    with tempfile.TemporaryDirectory(prefix="gw") as folder:
        with Gateway(Path(folder), settings=settings, connections_max=most, tls=tls, workers=workers) as gateway:
            yield gateway


@contextlib.contextmanager
def connected(gateway: Gateway, number: int = 1, *, source: str = "127.0.0.1") -> Iterator[list[socket.socket]]:
    """So many connections that the gateway has taken and on which nothing is said."""
    before = gateway.inside(lambda: gateway.listener.connections)
    with contextlib.ExitStack() as stack:
        opened = [
            stack.enter_context(socket.create_connection(("127.0.0.1", gateway.port), TIMEOUT, (source, 0)))
            for _ in range(number)
        ]
        gateway.wait_until(lambda: gateway.listener.connections == before + number)
        yield opened


def refusal(gateway: Gateway, *, source: str = "127.0.0.1") -> HttpAnswer:
    """What a client is told that only connects."""
    with socket.create_connection(("127.0.0.1", gateway.port), TIMEOUT, (source, 0)) as raw:
        response = http.client.HTTPResponse(raw)
        response.begin()
        body = response.read()
        assert raw.recv(1) == b""
        return HttpAnswer(response.status, {name.lower(): value for name, value in response.getheaders()}, body)


def context(folder: Path) -> ssl.SSLContext:
    """As the gateway makes it of its descriptors."""
    certificates.write(folder)
    files = {name: os.open(folder / f"{name}.pem", os.O_RDONLY) for name in ("certificate", "key")}
    made = tls.context(files)
    for descriptor in files.values():
        os.close(descriptor)
    assert made is not None
    return made


@WORKERS
def test_one_connection_more_than_there_may_be_is_refused_and_the_next_is_not(workers: int) -> None:
    """503 and when to come again; nothing of it is read. Those that there are go on."""
    with started(most=3, workers=workers) as gateway:
        with connected(gateway, 3) as [first, *_]:
            told = refusal(gateway)
            assert (told.status, told.headers["retry-after"], told.headers["connection"]) == (503, "1", "close")
            assert told.json()["code"] == "OVERLOADED"
            first.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            assert first.recv(4096).startswith(b"HTTP/1.1 200 ")
            first.close()
            gateway.wait_until(lambda: gateway.listener.connections == 2)
            assert gateway.ask("GET", "/livez").status == 200
        gateway.wait_until(lambda: gateway.listener.connections == 0)


@WORKERS
def test_a_refused_client_that_has_sent_its_request_already_can_read_why(workers: int) -> None:
    """Closing with bytes unread would be a reset, which overtakes the answer."""
    with started(most=1, workers=workers) as gateway, connected(gateway):
        for _ in range(20):
            assert gateway.ask("GET", "/livez").status == 503


@WORKERS
def test_handshakes_that_do_not_end_are_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """A client that connects and says nothing takes a place, and only for as long as a handshake may take."""
    monkeypatch.setattr(listener, "HANDSHAKE_SECONDS", 0.3)
    trusting = ssl.create_default_context()
    with started(most=2, tls=context(tmp_path), workers=workers) as gateway:
        trusting.load_verify_locations(tmp_path / "certificate.pem")
        with connected(gateway, 2):
            with socket.create_connection(("127.0.0.1", gateway.port), TIMEOUT) as third:
                assert third.recv(1) == b""
            gateway.wait_until(lambda: gateway.listener.connections == 0)
            with socket.create_connection(("127.0.0.1", gateway.port), TIMEOUT) as raw:
                with trusting.wrap_socket(raw, server_hostname="127.0.0.1") as good:
                    good.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
                    assert good.recv(4096).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n", b"\0" * 600])
@WORKERS
def test_a_handshake_that_fails_gives_its_place_back(tmp_path: Path, sent: bytes, workers: int) -> None:
    """However it fails: with a client that leaves, with half a record, with what is no TLS."""
    with started(tls=context(tmp_path), workers=workers) as gateway:
        with socket.create_connection(("127.0.0.1", gateway.port), TIMEOUT) as raw:
            raw.sendall(sent)
        gateway.wait_until(lambda: gateway.server.requests_count == 0 and gateway.listener.connections == 0)
        assert [line for line in gateway.log_lines if '"level":"error"' in line] == []


PER_ADDRESS = "[limits]\nloopback = true\n[limits.address]\nconnections = 2\n"


@WORKERS
def test_an_address_has_so_many_connections_and_others_have_theirs(workers: int) -> None:
    """429, and which limit it was; a connection that ends makes room for another."""
    with started(PER_ADDRESS, workers=workers) as gateway:
        with connected(gateway, 2) as [first, _]:
            told = refusal(gateway)
            assert (told.status, told.headers["retry-after"]) == (429, "1")
            assert (told.json()["code"], told.json()["limit"]) == ("RATE_LIMIT_ERROR", "address-connections")
            with connected(gateway, 2, source="127.0.0.2"):
                assert refusal(gateway, source="127.0.0.2").status == 429
            first.close()
            gateway.wait_until(lambda: gateway.listener.connections == 1)
            with connected(gateway, 1):
                assert refusal(gateway).status == 429
        gateway.wait_until(lambda: gateway.listener.connections == 0)
        assert gateway.inside(lambda: dict(gateway.application._limits._places)) == {}


@WORKERS
def test_handshakes_count_for_their_address(tmp_path: Path, workers: int) -> None:
    """Otherwise one client could take all places before it has shown anything."""
    with started(PER_ADDRESS, tls=context(tmp_path), workers=workers) as gateway, connected(gateway, 2):
        with socket.create_connection(("127.0.0.1", gateway.port), TIMEOUT) as third:
            assert third.recv(1) == b""


@pytest.mark.parametrize(
    "text",
    [
        PER_ADDRESS.replace("loopback = true", "loopback = false"),
        PER_ADDRESS + '[http]\ntrusted_proxies = ["127.0.0.0/8"]\n',
        "",
    ],
    ids=["this machine", "a trusted proxy", "no limit"],
)
@WORKERS
def test_who_is_not_limited_by_address(text: str, workers: int) -> None:
    """Behind a proxy everybody has its address."""
    with started(text, workers=workers) as gateway, connected(gateway, 5):
        assert gateway.ask("GET", "/livez").status == 200


@WORKERS
def test_a_changed_limit_holds_for_the_next_connection(workers: int) -> None:
    """SIGHUP ends none that there are."""
    with started(PER_ADDRESS, workers=workers) as gateway, connected(gateway, 2):
        changed = load.parse(PER_ADDRESS.replace("2", "4").encode(), "x", Path("/")).settings
        gateway.inside(lambda: gateway.application.configure(Configuration(changed, {})))
        with connected(gateway, 2):
            assert refusal(gateway).status == 429


def test_without_descriptors_it_waits_and_goes_on(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """accept(2): EMFILE. A listening socket that stays readable must not turn the loop without end."""
    monkeypatch.setattr(listener, "PAUSE_SECONDS", 0.05)
    failing = [True]
    assert isinstance(gateway.listener, listener.Listener)
    real = gateway.listener._socket

    class Exhausted:
        def accept(self) -> tuple[socket.socket, tuple[str, int]]:
            if failing:
                failing.pop()
                raise OSError(24, "Too many open files")
            return real.accept()

        def __getattr__(self, name: str) -> object:
            return getattr(real, name)

    monkeypatch.setattr(gateway.listener, "_socket", Exhausted())
    assert gateway.ask("GET", "/livez").status == 200
    assert failing == []
