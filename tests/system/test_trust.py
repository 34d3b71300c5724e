"""Tokens, API keys and signing keys with the commands that operators use, on a real daemon."""

from __future__ import annotations

import http.client
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.daemon import ROOT, Daemon, serve
from tests.system.folders import agent, policy

SOURCE = """
    def hello() -> str:
        return "hi"

    def count():
        import time
        number = 0
        while True:
            yield number
            number += 1
            time.sleep(0.01)
"""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    place = tmp_path_factory.mktemp("trust")
    ticker = agent(place, "ticker", SOURCE, "count")
    several = policy(place, "several", "[calls]\nconcurrency = 4\n")
    with serve([agent(place, "greeter", SOURCE, "hello"), ticker], policies=[f"ticker={several}"]) as found:
        yield found


def ctl(daemon: Daemon, *arguments: str, status: int = 0, stdin: str | None = None) -> tuple[str, str]:
    """What runagentctl prints, and complains."""
    command = [sys.executable, "-m", "runagentd.cli.runagentctl", *arguments, "--state-dir", str(daemon.state_dir)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False, input=stdin)
    assert done.returncode == status, done.stderr
    return done.stdout.strip(), done.stderr.strip()


def hello(daemon: Daemon, token: str) -> int:
    status, _ = daemon.request("POST", "/v1/agents/greeter/entrypoints/hello:invoke", body={}, token=token)
    return status


def test_an_api_key_from_its_making_to_its_end(daemon: Daemon) -> None:
    """Shown once, listed without its secret, rotated, revoked; each holds when the command returns."""
    key, note = ctl(daemon, "key", "create", "--subject", "shop", "--name", "the shop", "--agent", "greeter")
    identity = key[8:34]
    assert note == f"id {identity}; keep the key now, it is not shown again"
    assert hello(daemon, key) == 200
    listed, _ = ctl(daemon, "key", "list")
    assert identity in listed
    assert "the shop" in listed
    assert key[34:] not in listed
    second, _ = ctl(daemon, "key", "rotate", identity, "--overlap", "0")
    assert [hello(daemon, each) for each in (key, second)] == [401, 200]
    said, _ = ctl(daemon, "key", "revoke", identity)
    assert said == f"revoked: API key {identity}; the gateway holds to it now"
    assert hello(daemon, second) == 401
    assert ctl(daemon, "key", "revoke", identity, status=1)[1].startswith(
        f"runagentctl: API key {identity} was revoked"
    )
    assert ctl(daemon, "key", "revoke", "nonsense", status=1)[1].startswith("runagentctl: no API key has the id 'nons")
    for path in daemon.state_dir.rglob("*"):
        if path.is_file():
            assert second.encode() not in path.read_bytes(), path


def test_a_token_is_inspected_and_revoked(daemon: Daemon) -> None:
    """What it says, whether it is good, and why not."""
    token, _ = ctl(daemon, "token", "create", "--subject", "alice", "--tenant", "acme")
    shown, _ = ctl(daemon, "token", "inspect", "-", stdin=token)
    lines = dict(line.split(None, 1) for line in shown.splitlines())
    assert (lines["sub"], lines["tenant"], lines["alg"], lines["good"]) == ("alice", "acme", "EdDSA", "yes")
    assert hello(daemon, token) == 200
    said, _ = ctl(daemon, "token", "revoke", token)
    assert said == f"revoked: {lines['jti']}; the gateway holds to it now"
    assert hello(daemon, token) == 401
    shown, _ = ctl(daemon, "token", "inspect", token, status=1)
    assert shown.splitlines()[-1] == "good       no: the token, key or certificate was revoked"


def test_a_revocation_has_cut_open_streams_when_the_command_returns(daemon: Daemon) -> None:
    """And a bystander's goes on."""
    tokens = [ctl(daemon, "token", "create", "--subject", name)[0] for name in ("frank", "grace")]
    parts = urllib.parse.urlsplit(daemon.url)
    connections, streams = [], []
    for token in tokens:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
        fields = {"Authorization": f"Bearer {token}", "Accept": "text/event-stream"}
        connection.request("POST", "/v1/agents/ticker/entrypoints/count:invoke", "{}", fields)
        connections.append(connection)
        streams.append(connection.getresponse())
        streams[-1].read(10)
    ctl(daemon, "token", "revoke", "--subject", "frank")
    text = b""
    with pytest.raises(http.client.IncompleteRead):
        while piece := streams[0].read(4096):
            text += piece
    streams[1].read(4096)
    for stream in streams:
        stream.close()
    for connection in connections:
        connection.close()


def test_after_a_subject_was_revoked_a_new_token_is_good_at_once(daemon: Daemon) -> None:
    """Also in the same second."""
    old, _ = ctl(daemon, "token", "create", "--subject", "carol")
    ctl(daemon, "token", "revoke", "--subject", "carol")
    new, _ = ctl(daemon, "token", "create", "--subject", "carol")
    assert [hello(daemon, each) for each in (old, new, daemon.token)] == [401, 200, 200]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["token", "revoke"], "token revoke: name one token, or --subject, or --before"),
        (["token", "revoke", "x", "--subject", "y"], "token revoke: name one token, or --subject, or --before"),
        (["token", "revoke", "--before", "soon"], '--before: "soon" is not a time'),
        (["token", "revoke", "eyJ" + "a" * 90], "token revoke: this is a part of a token"),
        (["key", "create", "--subject", "a", "--name", "b", "--expires", "1y"], '--expires: "1y" is not a duration'),
        (["key", "create", "--subject", "a", "--name", "b", "--address", "x"], '--address: "x" is no network'),
        (["signing-key", "rotate"], "signing-key rotate: the next key was published less than 300 s ago"),
    ],
)
def test_wrong_use_is_one_sentence(daemon: Daemon, arguments: list[str], problem: str) -> None:
    """And a hint; nothing is changed."""
    before = hello(daemon, daemon.token)
    assert problem in ctl(daemon, *arguments, status=1)[1]
    assert hello(daemon, daemon.token) == before == 200


def test_signing_keys_rotate_without_a_gap_and_a_dropped_one_ends_its_tokens(daemon: Daemon) -> None:
    """The serving daemon takes both over."""
    old, _ = ctl(daemon, "token", "create", "--subject", "dave")
    assert ctl(daemon, "signing-key", "rotate", "--force")[0].endswith("rotated; the gateway holds to it now")
    new, _ = ctl(daemon, "token", "create", "--subject", "dave")
    assert [hello(daemon, each) for each in (old, new)] == [200, 200]
    states = [line.split()[1] for line in ctl(daemon, "signing-key", "list")[0].splitlines()[1:]]
    assert states == ["next", "active", "retired"]
    ctl(daemon, "signing-key", "rotate", "--drop")
    assert [hello(daemon, each) for each in (old, new)] == [200, 401]
    published = daemon.request("GET", "/.well-known/jwks.json")[1]["keys"]
    assert len(published) == 3


def test_what_was_revoked_holds_in_the_next_daemon_too(tmp_path: Path) -> None:
    """Also what was revoked while none ran."""
    folder = agent(tmp_path, "greeter", SOURCE, "hello")
    with serve([folder], state_dir=tmp_path / "state") as daemon:
        first, second = (ctl(daemon, "token", "create", "--subject", "eve")[0] for _ in range(2))
        ctl(daemon, "token", "revoke", first)
    said, _ = ctl(daemon, "token", "revoke", second)
    assert said.endswith("; no daemon runs with this state directory: it holds from the next start")
    with serve([folder], state_dir=tmp_path / "state") as daemon:
        third, _ = ctl(daemon, "token", "create", "--subject", "eve")
        assert [hello(daemon, each) for each in (first, second, third)] == [401, 401, 200]
