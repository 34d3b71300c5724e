"""`runagentctl token create|inspect|revoke`.

Runs as: an operator who can read the state directory (root).
Reads from strangers: tokens to look at, which anybody may have written; what they say is printed escaped.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from runagentd import apikeys, log, signing
from runagentd.cli import arguments, spread
from runagentd.errors import ConfigurationError, Problem, Refusal
from runagentd.state import StateDirectory
from runagentd.trust import SKEW_SECONDS, TOKEN_SECONDS_MAX, TrustStore
from runagentd.wire.trust import signed_digest

_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
TOKEN_CHARACTERS_MAX = 64 * 1024
_FAR = 2**33
"""Seconds since the epoch: what ends later than the year 2242 was not meant so, and no gateway believes it."""
_JTI_CHARACTERS = 64
"""Longer than any `jti` of ours, shorter than the first part of a token."""


def ttl_seconds(text: str) -> int:
    """`30s`, `15m`, `1h` or `7d` in seconds; ConfigurationError for another form, or for more than a week."""
    seconds = arguments.duration(text, "--ttl")
    if seconds > signing.LIFETIME_SECONDS_MAX:
        raise ConfigurationError(Problem("--ttl", f'"{text}" is longer than a token may live', ('at most "7d"',)))
    return seconds


def create(
    *,
    subject: str,
    agents: Sequence[str] | None,
    ttl: str,
    keys_dir: str,
    state_id: str,
    grants: Sequence[str] = (),
    tenant: str | None = None,
    as_json: bool = False,
) -> int:
    """Print a token that lets `subject` call `agents` (None: all) for `ttl`; the exit status.

    `grants` are scopes and `role:NAME`; where there are some and no agents, they are all that the token allows.
    """
    if grants and agents is None:
        agents = []
    try:
        arguments.check_scopes(grants)
        seconds = ttl_seconds(ttl)
        key = signing.create_or_open(keys_dir)
        with TrustStore(Path(keys_dir)) as store:
            issue_after = store.issue_after(subject)
        token = signing.mint(
            key,
            issuer=signing.issuer(state_id),
            audience=signing.audience(state_id),
            subject=subject,
            agents=agents,
            ttl_seconds=seconds,
            scopes=grants,
            tenant=tenant,
            issue_after=issue_after,
        )
    except ConfigurationError as error:
        log.complain(str(error))
        return 2
    if as_json:
        print(
            json.dumps(
                {
                    "token": token,
                    "subject": subject,
                    "agents": agents,
                    "scopes": list(grants),
                    "tenant": tenant,
                    "expires": log.utc(time.time() + seconds),
                }
            )
        )
    else:
        print(token)
    return 0


def inspect(directory: StateDirectory, token: str, *, as_json: bool) -> int:
    """Print what a token (`-`: standard input) or API key says, and whether it is good; 0 where it is, else 1."""
    # Only here: what judges a token is the gateway's own code, which takes a while to import.
    from runagentd.gateway.guard.trusted import judge

    token = _read(token)
    with TrustStore(directory.keys) as store:
        changes = store.changes(-1)
    problem = None
    try:
        asyncio.run(
            judge(token, changes.messages(), issuer=directory.issuer, audience=directory.audience, now=time.time())
        )
    except Refusal as refusal:
        problem = refusal.message
    identity = apikeys.parse(token)
    said: dict[str, object] = {"api_key": identity} if identity is not None else _claims(token)
    if as_json:
        print(json.dumps({"good": problem is None, "problem": problem, **said}))
    else:
        for name, value in said.items():
            print(f"{name:<10} {_shown(name, value)}")
        print(f"{'good':<10} {'yes' if problem is None else f'no: {problem}'}")
    return 0 if problem is None else 1


def _read(token: str) -> str:
    return sys.stdin.read(TOKEN_CHARACTERS_MAX).strip() if token == "-" else token


def _claims(token: str) -> dict[str, object]:
    """Header and claims of a JWT as they stand there, believed or not; empty for what is none."""
    if not _COMPACT.fullmatch(token):
        return {}
    said: dict[str, object] = {}
    for part in token.split(".")[:2]:
        try:
            found = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        except (ValueError, RecursionError):
            return {}
        if isinstance(found, dict):
            said.update(found)
    return said


def _shown(name: str, value: object) -> str:
    text = log.escape(value if isinstance(value, str) else json.dumps(value))[:1000]
    if name in ("iat", "exp", "nbf") and isinstance(value, int) and 0 <= value < 2**33:
        return f"{text} ({log.utc(value)})"
    return text


def revoke(
    directory: StateDirectory, token: str | None, *, subject: str | None, before: str | None, as_json: bool
) -> int:
    """Revoke one token, or what was issued to a subject or to all until a time; the exit status."""
    if (token is None) == (subject is None and before is None):
        raise ConfigurationError(
            Problem("token revoke", "name one token, or --subject, or --before", ("'--before now' ends all of them",))
        )
    with TrustStore(directory.keys) as store:
        if token is not None:
            identity, until = _identity(_read(token), directory.issuer)
            store.revoke_id(identity, until=until)
            done: str = f"revoked: {log.escape(identity)}"
            facts: dict[str, object] = {"revoked": identity}
        else:
            up_to = int(time.time()) if before is None else arguments.moment(before, "--before")
            if subject is not None:
                store.revoke_subject(arguments.text(subject, "--subject"), before=up_to)
                done = f"revoked: all that was issued to {log.escape(subject)} until {log.utc(up_to)}"
            else:
                store.revoke_all(before=up_to)
                done = f"revoked: all that was issued until {log.utc(up_to)}, to anybody"
            facts = {"revoked": {"subject": subject, "before": log.utc(up_to)}}
    return spread.report(directory, done, facts, as_json=as_json)


def _identity(token: str, issuer: str) -> tuple[str, int]:
    """What of it is remembered, and until when (0: for ever): the `jti` of a token, an id as it stands."""
    if token.startswith(apikeys.PREFIX):
        raise ConfigurationError(
            Problem("token revoke", "this is an API key, and no token", ("see 'runagentctl key revoke'",))
        )
    until = int(time.time()) + TOKEN_SECONDS_MAX + SKEW_SECONDS
    if _COMPACT.fullmatch(token):
        said = _claims(token)
        identity, expires = said.get("jti"), said.get("exp")
        if said.get("iss") != issuer:
            if not isinstance(identity, str):
                identity = signed_digest(token)
            # What another issuer makes may live longer than ours, and must not be good again before its end.
            if isinstance(expires, int | float) and until < expires < _FAR:
                until = int(expires) + 1 + SKEW_SECONDS
        if not isinstance(identity, str):
            raise ConfigurationError(Problem("token revoke", "this token has no id ('jti')", ("see --subject",)))
        return arguments.text(identity, "token revoke"), until
    if token.startswith("eyJ") and len(token) > _JTI_CHARACTERS:
        # Taken for an id it would be "revoked", and the token that it is a part of would go on.
        hints = ("paste all of it, or its jti as 'runagentctl token inspect' shows it",)
        raise ConfigurationError(Problem("token revoke", "this is a part of a token", hints))
    # The digest of a certificate, which may be good for years.
    return arguments.text(token, "token revoke"), 0 if _FINGERPRINT.fullmatch(token) else until
