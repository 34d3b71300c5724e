"""`[limits]`: how often and how much, for addresses, principals, tenants, agents and tags.

Runs as: the foreman and runagentctl. Pure.
Reads from strangers: nothing; the file is the operator's.

    [limits.principal]
    rate = "100/s"
    burst = 200
    concurrency = 16
    daily = 100000

    [limits.principal.for."batch-job"]
    rate = "10/s"

    [limits.address]
    connections = 64
"""

from __future__ import annotations

import re

from runagentd.config.table import Table
from runagentd.wire.settings import FAILED_LOGIN, Limit, Limits

KINDS = ("address", "failed_login", "principal", "tenant", "agent", "tag")
_WITHOUT_CALLS = ("address", "failed_login")
_RATE = re.compile(r"([1-9][0-9]{0,8})/(s|m|h)")
_SECONDS = {"s": 1, "m": 60, "h": 3600}
_MOST = 10**9


def read(table: Table) -> Limits:
    """All of them; those that are not there do not limit, but for failed logins."""
    found: list[Limit] = []
    loopback = table.flag("loopback", False)
    for kind in KINDS:
        if table.has(kind):
            part = table.table(kind)
            found.append(_limit(part, kind, ""))
            if kind not in _WITHOUT_CALLS:
                for name, exception in part.table("for").named_tables().items():
                    found.append(_limit(exception, kind, name))
                    exception.finish()
            part.finish()
        elif kind == "failed_login":
            found.append(FAILED_LOGIN)
    table.finish()
    return Limits(limits=tuple(found), loopback=loopback)


def _limit(table: Table, kind: str, name: str) -> Limit:
    count, seconds = table.converted("rate", _rate, (0, 1))
    burst = table.number("burst", count, least=1 if count else 0, most=_MOST)
    if burst and not count:
        table.problem("burst", "says nothing without a rate", 'write a rate, too: rate = "10/s"')
    concurrency = daily = 0
    if kind == "address":
        concurrency = table.number("connections", 0, most=_MOST)
    if kind not in _WITHOUT_CALLS:
        concurrency = table.number("concurrency", 0, most=_MOST)
        daily = table.number("daily", 0, most=_MOST)
    return Limit(kind=kind, name=name, count=count, seconds=seconds, burst=burst, concurrency=concurrency, daily=daily)


def _rate(text: str) -> tuple[int, int]:
    match = _RATE.fullmatch(text)
    if match is None:
        raise ValueError(
            f'must be a number per second, minute or hour, such as "100/s", "600/m" or "50/h", not {text!r}'
        )
    return int(match[1]), _SECONDS[match[2]]
