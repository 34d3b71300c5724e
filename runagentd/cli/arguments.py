"""What operators write on a command line, checked: durations, moments, scopes, roles.

Runs as: whoever runs a command. Pure but for the clock.
Reads from strangers: nothing.
"""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import Sequence

from runagentd import log
from runagentd.config import roles
from runagentd.errors import ConfigurationError, Problem

_DURATION = re.compile(r"([1-9][0-9]{0,9})(s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_UNIX = re.compile(r"[0-9]{1,11}")
SCOPES_CHARACTERS_MAX = 2048


def duration(text: str, option: str) -> int:
    """`30s`, `15m`, `1h` or `7d` in seconds; ConfigurationError for another form."""
    match = _DURATION.fullmatch(text)
    if match is None:
        shown = log.escape(text[:40])
        raise ConfigurationError(
            Problem(option, f'"{shown}" is not a duration', ('write a number with s, m, h or d: "15m"',))
        )
    return int(match[1]) * _SECONDS[match[2]]


def moment(text: str, option: str) -> int:
    """`now`, seconds since the epoch or RFC 3339, as seconds since the epoch; ConfigurationError for another form."""
    if text == "now":
        return int(time.time())
    if _UNIX.fullmatch(text):
        return int(text)
    try:
        found = datetime.datetime.fromisoformat(text)
        return int((found if found.tzinfo is not None else found.replace(tzinfo=datetime.UTC)).timestamp())
    except (ValueError, OverflowError):
        shown = log.escape(text[:40])
        raise ConfigurationError(
            Problem(option, f'"{shown}" is not a time', ('write "now" or, in UTC, "2026-11-24T12:00:00Z"',))
        ) from None


def text(value: str, option: str) -> str:
    """A name that people read: 1 to 255 printable characters."""
    if not 1 <= len(value) <= 255 or not value.isprintable():
        raise ConfigurationError(Problem(option, "write 1 to 255 printable characters"))
    return value


def check_scopes(scopes: Sequence[str]) -> None:
    """Scopes and `role:NAME`; ConfigurationError for what is neither, or too much."""
    for scope in scopes:
        if scope.startswith("role:"):
            name = scope.removeprefix("role:")
            if not roles.NAME.fullmatch(name):
                raise ConfigurationError(Problem("--role", f'"{log.escape(name[:70])}" is not the name of a role'))
        elif not roles.SCOPE.fullmatch(scope):
            shown = log.escape(scope[:100])
            raise ConfigurationError(Problem("--scope", f'"{shown}" is not a scope', (roles.SCOPE_HINT,)))
    if len(" ".join(scopes)) > SCOPES_CHARACTERS_MAX:
        raise ConfigurationError(
            Problem(
                "--scope", f"all scopes together are longer than {SCOPES_CHARACTERS_MAX} characters", ("make a role",)
            )
        )
