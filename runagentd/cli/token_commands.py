"""`runagentctl token create`: a token alone on standard output, so that a script can take it.

Runs as: an operator who can read the signing key (root).
Reads from strangers: nothing.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence

from runagentd import log, signing
from runagentd.config import roles
from runagentd.errors import ConfigurationError, Problem

_TTL = re.compile(r"([1-9][0-9]{0,9})(s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def ttl_seconds(text: str) -> int:
    """`30s`, `15m`, `1h` or `7d` in seconds; ConfigurationError for another form, or for more than a week."""
    match = _TTL.fullmatch(text)
    if match is None:
        raise ConfigurationError(
            Problem(
                "--ttl", f'"{log.escape(text[:40])}" is not a duration', ('write a number with s, m, h or d: "15m"',)
            )
        )
    seconds = int(match[1]) * _SECONDS[match[2]]
    if seconds > signing.LIFETIME_SECONDS_MAX:
        raise ConfigurationError(Problem("--ttl", f'"{text}" is longer than a token may live', ('at most "7d"',)))
    return seconds


def _check(grants: Sequence[str]) -> None:
    for grant in grants:
        if grant.startswith("role:"):
            if not roles.NAME.fullmatch(grant.removeprefix("role:")):
                name = log.escape(grant.removeprefix("role:")[:70])
                raise ConfigurationError(Problem("--role", f'"{name}" is not the name of a role'))
        elif not roles.SCOPE.fullmatch(grant):
            shown = log.escape(grant[:100])
            raise ConfigurationError(Problem("--scope", f'"{shown}" is not a scope', (roles.SCOPE_HINT,)))


def create(
    *,
    subject: str,
    agents: Sequence[str] | None,
    ttl: str,
    keys_dir: str,
    state_id: str,
    grants: Sequence[str] = (),
    as_json: bool = False,
) -> int:
    """Print a token that lets `subject` call `agents` (None: all) for `ttl`; the exit status.

    `grants` are scopes and `role:NAME`; where there are some and no agents, they are all that the token allows.
    """
    if grants and agents is None:
        agents = []
    try:
        _check(grants)
        seconds = ttl_seconds(ttl)
        token = signing.mint(
            signing.create_or_open(keys_dir),
            issuer=signing.issuer(state_id),
            audience=signing.audience(state_id),
            subject=subject,
            agents=agents,
            ttl_seconds=seconds,
            scopes=grants,
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
                    "expires": log.utc(time.time() + seconds),
                }
            )
        )
    else:
        print(token)
    return 0
