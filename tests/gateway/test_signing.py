"""The signing key's files, and `runagentctl token create`."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import stat
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from runagentd import signing
from runagentd.cli import token_commands
from runagentd.errors import ConfigurationError
from runagentd.gateway import tokens
from runagentd.gateway.identity import Credentials, Identity


def test_the_key_is_made_once_and_nobody_else_can_read_it(tmp_path: Path) -> None:
    """Whatever the umask is."""
    keys = tmp_path / "keys"
    before = os.umask(0)
    try:
        first = signing.create_or_open(str(keys))
    finally:
        os.umask(before)
    assert signing.create_or_open(str(keys)).key_id == first.key_id
    modes = {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in (keys, *keys.iterdir())}
    assert modes == {"keys": "0o700", "signing-key.pem": "0o600", "public.json": "0o644"}
    assert list(tokens.parse_keys((keys / "public.json").read_bytes())) == [first.key_id]
    assert b"PRIVATE" not in (keys / "public.json").read_bytes()


def test_the_public_file_is_made_again_where_it_is_missing(tmp_path: Path) -> None:
    """A first start may have been killed between the two files."""
    key = signing.create_or_open(str(tmp_path / "keys"))
    (tmp_path / "keys" / "public.json").unlink()
    signing.create_or_open(str(tmp_path / "keys"))
    assert list(tokens.parse_keys((tmp_path / "keys" / "public.json").read_bytes())) == [key.key_id]


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """It may have been copied."""
    signing.create_or_open(str(tmp_path / "keys"))
    (tmp_path / "keys" / "signing-key.pem").chmod(0o640)
    with pytest.raises(ConfigurationError) as raised:
        signing.create_or_open(str(tmp_path / "keys"))
    assert "mode 0640 lets others than its owner read the signing key" in str(raised.value)


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    """EdDSA only."""
    signing.create_or_open(str(tmp_path / "keys"))
    other = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "keys" / "signing-key.pem").write_bytes(other)
    with pytest.raises(ConfigurationError) as raised:
        signing.create_or_open(str(tmp_path / "keys"))
    assert str(raised.value).endswith("signing-key.pem: this is not an Ed25519 key")


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
    public = tokens.parse_keys((tmp_path / "keys" / "public.json").read_bytes())
    here = "urn:runagentd:abc"
    identity = Identity((tokens.Verifier(public, issuer=here, audience=here),), roles={}, clock=time.time)
    principal = asyncio.run(identity.principal(Credentials(printed.out.strip())))
    assert principal.subject == "alice"
    assert [principal.grants.may_invoke((agent,), "t") for agent in ("chat", "chats")] == [True, False]


def test_token_create_can_print_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With what the token says."""
    token_commands.create(
        subject="a", agents=None, ttl="1h", keys_dir=str(tmp_path / "keys"), state_id="abc", as_json=True
    )
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"token", "subject", "agents", "scopes", "expires"}
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
