"""TLS under a real daemon: what speaks to it, what it prints, and another certificate without a restart."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from tests import certificates
from tests.system.daemon import ROOT, Daemon, serve
from tests.system.folders import agent

pytestmark = [pytest.mark.root, pytest.mark.slow]

SOURCE = """
    def greet(name: str) -> str:
        return f"Hello {name}!"
"""
PATH = "/v1/agents/greeter/entrypoints/greet:invoke"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    certificates.write(tmp_path, serial=1)
    config = tmp_path / "runagentd.toml"
    config.write_text('[tls]\ncertificate = "certificate.pem"\nkey = "key.pem"\n')
    with serve([agent(tmp_path, "greeter", SOURCE, "greet")], options=["--config", str(config)]) as running:
        yield running


@contextlib.contextmanager
def connect(daemon: Daemon, context: ssl.SSLContext) -> Iterator[http.client.HTTPSConnection]:
    parts = urllib.parse.urlsplit(daemon.url)
    connection = http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=20, context=context)
    with contextlib.closing(connection):
        connection.connect()
        yield connection


def call(connection: http.client.HTTPConnection, token: str) -> tuple[int, object]:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    connection.request("POST", PATH, json.dumps({"name": "Ada"}), headers)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def serial(connection: http.client.HTTPSConnection) -> int:
    der = connection.sock.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number


def unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def test_calls_go_over_tls_and_over_nothing_else(daemon: Daemon, tmp_path: Path) -> None:
    """A verified connection, TLS 1.3; plain HTTP and a client of TLS 1.1 get no answer."""
    trusting = ssl.create_default_context(cafile=str(tmp_path / "certificate.pem"))
    with connect(daemon, trusting) as connection:
        assert connection.sock.version() == "TLSv1.3"
        assert [call(connection, daemon.token) for _ in range(3)] == [(200, "Hello Ada!")] * 3
    parts = urllib.parse.urlsplit(daemon.url)
    assert parts.scheme == "https"
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=20) as plain:
        plain.sendall(b"GET /livez HTTP/1.1\r\nHost: here\r\n\r\n")
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            answer = plain.recv(4096)
        assert not answer.startswith(b"HTTP")
    old = unverified()
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)), connect(daemon, old):
        pass


@pytest.mark.parametrize(
    ("hosts", "certificate", "key"),
    [
        ((), "certificate.pem", "key.pem"),
        (("agents.example.org",), "certificate.pem", "key.pem"),
        ((), "signed.pem", "signed.pem"),
    ],
    ids=["address", "name", "signed by an authority"],
)
def test_what_it_prints_works_when_pasted(tmp_path: Path, hosts: tuple[str, ...], certificate: str, key: str) -> None:
    """With the certificate that it serves with, for it may be known to nobody else; also where it names a host only."""
    certificates.write(tmp_path, hosts=hosts)
    certificates.write_server(tmp_path, "signed", authority=tmp_path)
    (tmp_path / "signed.pem").chmod(0o600)
    config = tmp_path / "runagentd.toml"
    config.write_text(f'[tls]\ncertificate = "{certificate}"\nkey = "{key}"\n')
    with serve([agent(tmp_path, "greeter", SOURCE, "greet")], options=["--config", str(config)]) as daemon:
        lines = daemon.log.read_text().splitlines()
        start = next(number for number, line in enumerate(lines) if line.startswith("curl "))
        python = lines[lines.index("and with Python:") + 1 :]
        snippet = python[: next(n for n, line in enumerate(python) if line.startswith("print(")) + 1]
        commands = [["python3", "-c", "\n".join(snippet)]]
        assert ("--resolve agents.example.org:" in lines[start]) == bool(hosts)
        if shutil.which("curl"):
            commands.append(["sh", "-c", "\n".join(lines[start : start + 2])])
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            assert (done.stdout.strip().strip('"'), done.stderr) == ("Hello hello!", "")


def test_another_certificate_is_served_after_a_hangup_without_a_restart(daemon: Daemon, tmp_path: Path) -> None:
    """Connections that there are go on; a key that does not fit changes nothing."""
    with connect(daemon, unverified()) as before:
        assert serial(before) == 1
        certificates.write(tmp_path, serial=2)
        os.kill(daemon.process.pid, signal.SIGHUP)
        daemon.wait_for_log("new connections get the certificate")
        with connect(daemon, unverified()) as after:
            assert serial(after) == 2
            assert [call(one, daemon.token) for one in (before, after)] == [(200, "Hello Ada!")] * 2

    (tmp_path / "key.pem").write_text("nothing")
    os.kill(daemon.process.pid, signal.SIGHUP)
    daemon.wait_for_log("the configuration was not taken over")
    with connect(daemon, unverified()) as last:
        assert serial(last) == 2


READERS = pytest.mark.parametrize("readers", ["", "[gateway]\nworkers = 2\n"], ids=["alone", "workers"])
"""Whether the gateway speaks TLS itself, or has others do that."""

MUTUAL = """
    [tls]
    certificate = "certificate.pem"
    key = "key.pem"
    client_ca = "authority/certificate.pem"
    client_certificates = "optional"

    [[tls.clients]]
    san = "URI:spiffe://example.org/shop"
    subject = "shop"
    scopes = ["agents:invoke:greeter/*"]

    [[tls.clients]]
    sha256 = "FINGERPRINT"
    subject = "reader"
    roles = ["reader"]

    [roles.reader]
    allow = ["agents:read"]
"""


def showing(path: Path) -> ssl.SSLContext:
    context = unverified()
    context.load_cert_chain(path)
    return context


def me(connection: http.client.HTTPConnection, token: str | None = None) -> tuple[int, str]:
    connection.request("GET", "/v1/me", headers={} if token is None else {"Authorization": f"Bearer {token}"})
    answer = connection.getresponse()
    body = json.loads(answer.read())
    return answer.status, str(body["subject"] if answer.status == 200 else body["detail"])


def call_without_a_token(connection: http.client.HTTPConnection) -> int:
    connection.request("POST", PATH, json.dumps({"name": "Ada"}), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    answer.read()
    return answer.status


@READERS
def test_a_certificate_is_who_the_operator_says_it_is(tmp_path: Path, readers: str) -> None:
    """By a name in it or by its digest; nobody's where neither is known; a token goes before it; it can be revoked."""
    certificates.write(tmp_path, serial=1)
    (tmp_path / "authority").mkdir()
    (tmp_path / "elsewhere").mkdir()
    for folder in ("authority", "elsewhere"):
        certificates.write(tmp_path / folder)
    names = {"shop": "authority", "reader": "authority", "nobody": "authority", "foreign": "elsewhere"}
    digests = {
        name: certificates.write_client(
            tmp_path, name, f"spiffe://example.org/{'shop' if name == 'foreign' else name}", authority=tmp_path / folder
        )
        for name, folder in names.items()
    }
    config = tmp_path / "runagentd.toml"
    config.write_text(readers + MUTUAL.replace("FINGERPRINT", digests["reader"].upper()))
    with serve([agent(tmp_path, "greeter", SOURCE, "greet")], options=["--config", str(config)]) as daemon:
        with connect(daemon, unverified()) as connection:
            assert me(connection) == (401, "no token was sent")
            assert me(connection, daemon.token) == (200, "serve")
        with connect(daemon, showing(tmp_path / "shop.pem")) as connection:
            assert me(connection) == (200, "shop")
            assert me(connection, daemon.token) == (200, "serve")
            assert me(connection, "bad")[0] == 401
            assert [call_without_a_token(connection) for _ in range(2)] == [200, 200]
        with connect(daemon, showing(tmp_path / "reader.pem")) as connection:
            assert me(connection) == (200, "reader")
            assert call_without_a_token(connection) == 403
        with connect(daemon, showing(tmp_path / "nobody.pem")) as connection:
            assert me(connection) == (401, "the client certificate is nobody's here")
        with (
            pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)),
            connect(daemon, showing(tmp_path / "foreign.pem")) as connection,
        ):
            me(connection)

        with connect(daemon, showing(tmp_path / "shop.pem")) as connection:
            assert me(connection)[0] == 200
            command = [sys.executable, "-m", "runagentd.cli.runagentctl", "token", "revoke", digests["shop"]]
            subprocess.run([*command, "--state-dir", str(daemon.state_dir)], cwd=ROOT, check=True, timeout=60)
            assert me(connection) == (401, "the token, key or certificate was revoked")

        config.write_text(readers + MUTUAL.replace("FINGERPRINT", digests["nobody"]).replace("optional", "required"))
        os.kill(daemon.process.pid, signal.SIGHUP)
        daemon.wait_for_log("the settings have changed")
        with connect(daemon, showing(tmp_path / "nobody.pem")) as connection:
            assert me(connection) == (200, "reader")


@READERS
def test_where_certificates_are_required_nobody_gets_in_without_one(tmp_path: Path, readers: str) -> None:
    """Not even with a token."""
    certificates.write(tmp_path, serial=1)
    (tmp_path / "authority").mkdir()
    certificates.write(tmp_path / "authority")
    certificates.write_client(tmp_path, "shop", "spiffe://example.org/shop", authority=tmp_path / "authority")
    config = tmp_path / "runagentd.toml"
    config.write_text(readers + MUTUAL.replace("FINGERPRINT", "0" * 64).replace("optional", "required"))
    with serve([agent(tmp_path, "greeter", SOURCE, "greet")], options=["--config", str(config)]) as daemon:
        with (
            pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)),
            connect(daemon, unverified()) as connection,
        ):
            me(connection, daemon.token)
        with connect(daemon, showing(tmp_path / "shop.pem")) as connection:
            assert me(connection) == (200, "shop")
