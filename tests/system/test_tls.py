"""TLS under a real daemon: what speaks to it, what it prints, and another certificate without a restart."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shlex
import signal
import socket
import ssl
import subprocess
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from tests import certificates
from tests.system.daemon import Daemon, serve
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


def test_what_it_prints_works_when_pasted(daemon: Daemon) -> None:
    """With the certificate that it serves with, for it may be known to nobody else."""
    lines = daemon.log.read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("curl "))
    command = " ".join(line.rstrip("\\") for line in lines[start : start + 2])
    assert " --cacert " in command
    python = lines[lines.index("and with Python:") + 1 :]
    snippet = "\n".join(python[: next(n for n, line in enumerate(python) if line.startswith("print(")) + 1])
    done = subprocess.run(["python3", "-c", snippet], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("Hello hello!\n", "")
    assert shlex.split(command)[0] == "curl"


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
