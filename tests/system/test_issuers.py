"""Tokens of a real issuer at a real daemon: its keys come by TLS, change, and stay away; the daemon goes on."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runagentd import kernel
from tests.issuer import Issuer
from tests.system import traces
from tests.system.daemon import Daemon, serve
from tests.system.folders import agent

pytestmark = [pytest.mark.root, pytest.mark.slow]

WORK = """
    import time

    def greet(name: str) -> str:
        return f"hello {name}"

    def count_stream(to: int):
        for number in range(to):
            yield number
            time.sleep(0.02)
"""
CALL = "/v1/agents/plain/entrypoints/greet:invoke"


@pytest.fixture
def issuer(tmp_path: Path) -> Iterator[Issuer]:
    one = Issuer(tmp_path / "issuer")
    yield one
    with contextlib.suppress(OSError):
        one.close()


def configuration(issuer: Issuer) -> str:
    return f"""
[issuers.corp]
issuer = "{issuer.url}"
audience = ["runagentd"]
ca = "{issuer.ca}"

[[issuers.corp.grants]]
claim = "groups"
value = "support"
scopes = ["agents:invoke:plain/*"]
"""


@pytest.fixture
def served(issuer: Issuer, tmp_path: Path) -> Iterator[tuple[Daemon, Path]]:
    file = tmp_path / "runagentd.toml"
    file.write_text(configuration(issuer))
    with serve([agent(tmp_path, "plain", WORK, "greet", "count_stream")], options=["--config", str(file)]) as daemon:
        yield daemon, file


def call(daemon: Daemon, token: str) -> int:
    return daemon.request("POST", CALL, body={"name": "x"}, token=token)[0]


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 15
    while not holds():
        assert time.monotonic() < end, "it did not become so in time"
        time.sleep(0.05)


def test_from_the_first_token_to_the_end_of_the_issuer(served: tuple[Daemon, Path], issuer: Issuer) -> None:
    """A call, another key, the old one gone, an outage, and out of the configuration with its open streams."""
    daemon, file = served
    first = issuer.token()
    assert call(daemon, first) == 200
    assert call(daemon, issuer.token(groups=["staff"])) == 404
    assert call(daemon, issuer.token(aud="other")) == 401
    issuer.rotate("k2")
    _fetched_again(daemon, file, issuer)
    second = issuer.token()
    assert call(daemon, second) == 200
    assert call(daemon, first) == 200, "the key before is still in the set"
    # The key before leaves the set, with a stream of its open: a fetch ends both.
    ends = threading.Event()
    threading.Thread(target=_stream, args=(daemon, first, ends)).start()
    time.sleep(0.5)
    assert not ends.is_set()
    del issuer.keys["k1"]
    _fetched_again(daemon, file, issuer)
    assert ends.wait(10), "the stream goes on"
    assert call(daemon, first) == 401
    assert call(daemon, second) == 200
    # Nobody answers any more: what was fetched holds.
    issuer.close()
    os.kill(daemon.gateway_pid(), signal.SIGKILL)
    wait_until(lambda: _there(daemon, second))
    # Out of the configuration.
    file.write_text("")
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_for_log("the settings have changed")
    wait_until(lambda: call(daemon, second) == 401)
    assert first not in daemon.log.read_text()
    assert second not in daemon.log.read_text()


def _fetched_again(daemon: Daemon, file: Path, issuer: Issuer) -> None:
    """Keys are fetched at once where the settings of their issuer are other ones."""
    before = issuer.fetches
    file.write_text(configuration(issuer).replace("audience", f'refresh = "{60 + before}m"\naudience'))
    daemon.process.send_signal(signal.SIGHUP)
    wait_until(lambda: issuer.fetches > before)
    time.sleep(0.2)


def _there(daemon: Daemon, token: str) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException):
        return call(daemon, token) == 200
    return False


def _stream(daemon: Daemon, token: str, ends: threading.Event) -> None:
    parts = urllib.parse.urlsplit(daemon.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Accept": "text/event-stream"}
    path = "/v1/agents/plain/entrypoints/count_stream:invoke"
    connection.request("POST", path, json.dumps({"to": 1000}), headers)
    with contextlib.suppress(http.client.IncompleteRead, OSError):
        connection.getresponse().read()
    connection.close()
    ends.set()


def test_a_new_key_works_with_the_first_token_that_it_signed(served: tuple[Daemon, Path], issuer: Issuer) -> None:
    """Half a minute after the last fetch, a kid that is not known makes the daemon ask; nobody has to wait or retry."""
    daemon, _ = served
    assert call(daemon, issuer.token()) == 200
    fetched = issuer.fetches
    time.sleep(31)
    issuer.rotate("k9")
    assert call(daemon, issuer.token()) == 200
    assert issuer.fetches == fetched + 1


def test_the_process_that_connects_has_nothing_else(served: tuple[Daemon, Path], issuer: Issuer) -> None:
    """Its own uid, no capability, a filter; and kill -9 of it costs nobody a call."""
    daemon, _ = served
    token = issuer.token()
    assert call(daemon, token) == 200
    pid = daemon.egress_pid()
    status = kernel.status_fields(pid)
    assert (status["CapEff"], status["CapBnd"]) == ("0000000000000000", "0000000000000000")
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    uids = {kernel.status_fields(each)["Uid"] for each in (pid, daemon.gateway_pid())}
    assert len(uids) == 2
    assert all("0" not in each.split() for each in uids)
    before = issuer.fetches
    os.kill(pid, signal.SIGKILL)
    assert call(daemon, token) == 200
    wait_until(lambda: daemon.egress_pid() not in (0, pid))
    wait_until(lambda: issuer.fetches > before)
    assert call(daemon, token) == 200


def test_without_an_issuer_nothing_connects_and_one_can_be_added(tmp_path: Path, issuer: Issuer) -> None:
    """No egress process until SIGHUP names an issuer; at the end nothing of it is left."""
    file = tmp_path / "runagentd.toml"
    file.write_text("")
    with serve([agent(tmp_path, "plain", WORK, "greet")], options=["--config", str(file)]) as daemon:
        assert daemon.egress_pid() == 0
        token = issuer.token()
        assert call(daemon, token) == 401
        file.write_text(configuration(issuer))
        daemon.process.send_signal(signal.SIGHUP)
        wait_until(lambda: call(daemon, token) == 200)
        family = traces.family(daemon.process.pid, traces.identity(daemon.state_dir))
        assert daemon.egress_pid() in {process.pid for process in family}
        assert daemon.stop() == 0
        assert traces.left(daemon.state_dir, family) == {}
