"""The signing key's files, and `runagentctl token create`."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from runagentd import signing
from runagentd.cli import token_commands
from runagentd.errors import ConfigurationError, HostError
from runagentd.gateway.guard.trusted import judge
from runagentd.trust import TrustStore


def test_keys_are_made_once_and_nobody_else_can_read_them(tmp_path: Path) -> None:
    """Whatever the umask is: one that signs, and the next one."""
    keys = tmp_path / "keys"
    before = os.umask(0)
    try:
        first = signing.create_or_open(str(keys))
    finally:
        os.umask(before)
    assert signing.create_or_open(str(keys)).key_id == first.key_id
    with TrustStore(keys) as store:
        rows = store.signing_keys()
    assert [row.state for row in rows] == ["next", "active"]
    assert rows[1].id == first.key_id
    modes = {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in (keys, *keys.iterdir())}
    private = {f"{row.id}.pem": "0o600" for row in rows}
    assert modes == {"keys": "0o700", "trust.db": "0o600", **private}
    assert b"PRIVATE" not in (keys / "trust.db").read_bytes()


def test_two_that_start_at_once_use_the_same_key(tmp_path: Path) -> None:
    """As serve and a command do in a new state directory."""
    with ThreadPoolExecutor(8) as threads:
        keys = list(threads.map(lambda _: signing.create_or_open(str(tmp_path / "keys")).key_id, range(8)))
    assert len(set(keys)) == 1


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """It may have been copied."""
    key = signing.create_or_open(str(tmp_path / "keys"))
    (tmp_path / "keys" / f"{key.key_id}.pem").chmod(0o640)
    with pytest.raises(ConfigurationError) as raised:
        signing.create_or_open(str(tmp_path / "keys"))
    assert "mode 0640 lets others than its owner read the signing key" in str(raised.value)


@pytest.mark.parametrize("kind", ["rsa", "another"])
def test_a_key_that_is_not_the_one_of_its_name_is_refused(tmp_path: Path, kind: str) -> None:
    """EdDSA only, and only the pair that was made."""
    key = signing.create_or_open(str(tmp_path / "keys"))
    other = rsa.generate_private_key(65537, 2048) if kind == "rsa" else Ed25519PrivateKey.generate()
    (tmp_path / "keys" / f"{key.key_id}.pem").write_bytes(
        other.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    with pytest.raises(ConfigurationError) as raised:
        signing.create_or_open(str(tmp_path / "keys"))
    assert str(raised.value).endswith(".pem: this is not the Ed25519 key that its name says")


def test_a_lost_private_key_is_one_sentence(tmp_path: Path) -> None:
    """And never a new key in silence, which would end every token."""
    key = signing.create_or_open(str(tmp_path / "keys"))
    (tmp_path / "keys" / f"{key.key_id}.pem").unlink()
    with pytest.raises(HostError) as raised:
        signing.create_or_open(str(tmp_path / "keys"))
    assert "the private half of a signing key cannot be read: No such file or directory" in str(raised.value)


def test_rotation_signs_with_the_next_key_and_believes_the_one_before_for_a_while(tmp_path: Path) -> None:
    """Seven days and the skew: as long as its last token may live."""
    keys = str(tmp_path / "keys")
    first = signing.create_or_open(keys)
    now = int(time.time())
    with pytest.raises(ConfigurationError) as raised:
        signing.rotate(keys, now=now)
    assert "the next key was published less than 300 s ago" in str(raised.value)
    rows = signing.rotate(keys, now=now + 301)
    second = signing.create_or_open(keys)
    assert [row.state for row in rows] == ["next", "active", "retired"]
    assert [rows[1].id, rows[2].id] == [second.key_id, first.key_id]
    assert rows[2].until == now + 301 + 7 * 86400 + 30
    assert not (tmp_path / "keys" / f"{first.key_id}.pem").exists()
    assert [row.state for row in signing.rotate(keys, now=now + 302, force=True)] == [
        "next", "active", "retired", "retired",
    ]  # fmt: skip


def test_a_dropped_key_is_believed_no_more(tmp_path: Path) -> None:
    """At once, and without a wait for the next one to be known."""
    keys = str(tmp_path / "keys")
    first = signing.create_or_open(keys)
    rows = signing.rotate(keys, now=int(time.time()), drop=True)
    assert [row.state for row in rows] == ["next", "active"]
    assert first.key_id not in [row.id for row in rows]


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("15m", 900), ("1h", 3600), ("7d", 604800), ("1s", 1), ("168h", 604800)]
)
def test_a_lifetime_is_a_number_with_its_unit(text: str, seconds: int) -> None:
    """Up to a week."""
    assert token_commands.ttl_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "0s", "-1s", "1.5h", "1w", "8d", "169h", "1h ", "١h", "99999999999s"])
def test_what_is_no_lifetime_is_refused(text: str) -> None:
    """In words."""
    with pytest.raises(ConfigurationError) as raised:
        token_commands.ttl_seconds(text)
    assert str(raised.value).startswith("--ttl: ")


def test_token_create_prints_the_token_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """So that `TOKEN=$(runagentctl token create …)` works; the gateway takes it."""
    keys = str(tmp_path / "keys")
    status = token_commands.create(subject="alice", agents=["chat"], ttl="15m", keys_dir=keys, state_id="abc")
    printed = capsys.readouterr()
    assert (status, printed.err, printed.out.count("\n")) == (0, "", 1)
    here = "urn:runagentd:abc"
    with TrustStore(tmp_path / "keys") as store:
        told = list(store.changes(-1).messages())
    principal = asyncio.run(judge(printed.out.strip(), told, issuer=here, audience=here, now=time.time()))
    assert principal.subject == "alice"
    assert [principal.grants.may_invoke((agent,), "t") for agent in ("chat", "chats")] == [True, False]


def test_token_create_can_print_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With what the token says."""
    token_commands.create(
        subject="a", agents=None, ttl="1h", keys_dir=str(tmp_path / "keys"), state_id="abc", as_json=True
    )
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"token", "subject", "agents", "scopes", "tenant", "expires"}
    assert (found["subject"], found["agents"], found["scopes"]) == ("a", None, [])


def test_a_token_with_roles_or_scopes_allows_these_and_no_agent_that_is_not_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Or a role that was to narrow a token would come on top of everything."""
    for agents, scope in ((None, "agents:read role:clerk"), (["chat"], "agents:invoke:chat/* agents:read role:clerk")):
        status = token_commands.create(
            subject="a",
            agents=agents,
            ttl="1h",
            keys_dir=str(tmp_path / "keys"),
            state_id="abc",
            grants=["agents:read", "role:clerk"],
        )
        payload = capsys.readouterr().out.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        assert (status, claims["scope"]) == (0, scope)


@pytest.mark.parametrize(
    ("grant", "problem"),
    [
        ("role:a b", '--role: "a b" is not the name of a role'),
        ("agents:invoke:chat", '--scope: "agents:invoke:chat" is not a scope'),
        ("agents:invoke:*t/x", '--scope: "agents:invoke:*t/x" is not a scope'),
    ],
)
def test_a_scope_that_would_allow_nothing_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], grant: str, problem: str
) -> None:
    """A token that looks good and opens no door helps nobody."""
    keys = str(tmp_path / "keys")
    status = token_commands.create(subject="a", agents=None, ttl="1h", keys_dir=keys, state_id="abc", grants=[grant])
    printed = capsys.readouterr()
    assert (status, printed.out, printed.err.splitlines()[0]) == (2, "", problem)


@pytest.mark.parametrize(
    ("subject", "agents", "problem"),
    [
        ("", ["x"], "--subject: a subject has 1 to 255 printable characters"),
        ("a\nb", ["x"], "--subject: a subject has 1 to 255 printable characters"),
        ("a", [], "--agent: name at least one agent"),
    ],
)
def test_token_create_refuses_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], subject: str, agents: list[str], problem: str
) -> None:
    """On standard error, with nothing on standard output."""
    keys = str(tmp_path / "keys")
    assert token_commands.create(subject=subject, agents=agents, ttl="1h", keys_dir=keys, state_id="abc") == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", f"{problem}\n")
