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

from runagentd import schema
from runagentd.config.table import Table
from runagentd.wire.settings import FAILED_LOGIN, Limit, Limits

KINDS = ("address", "failed_login", "principal", "tenant", "agent", "tag")
_WITHOUT_CALLS = ("address", "failed_login")
_RATE = re.compile(r"([1-9][0-9]{0,8})/(s|m|h)")
_SECONDS = {"s": 1, "m": 60, "h": 3600}
_MOST = 10**9

_OF = {
    "address": "Requests of an address (an IPv6 one with its /64), before anything of them is looked at.",
    "failed_login": 'Credentials of an address that were not good. Default: rate = "5/s", burst = 20.',
    "principal": "Calls of whoever shows a token, an API key or a certificate.",
    "tenant": "Calls of all that show the same tenant.",
    "agent": "All calls of an agent.",
    "tag": "All calls of an entrypoint.",
}


def _kind_schema(kind: str) -> schema.Schema:
    keys = {
        "rate": schema.text(
            "How often: a number per second, minute or hour.", pattern=schema.whole(_RATE), examples=["100/s"]
        ),
        "burst": schema.number("How many at once, if nothing came for a while. Default: the rate's number.", 0, _MOST),
    }
    if kind == "address":
        keys["connections"] = schema.number("How many connections at one time; 0 is no limit.", 0, _MOST, default=0)
    if kind not in _WITHOUT_CALLS:
        keys["concurrency"] = schema.number("How many calls at one time; 0 is no limit.", 0, _MOST, default=0)
        keys["daily"] = schema.number("How many calls on a day (UTC); 0 is no limit.", 0, _MOST, default=0)
    # A burst says nothing without a rate.
    burst: schema.Schema = {
        "anyOf": [
            {"required": ["rate"], "properties": {"burst": {"minimum": 1}}},
            {"not": {"required": ["rate"]}, "properties": {"burst": {"maximum": 0}}},
        ]
    }
    exceptions = {}
    if kind not in _WITHOUT_CALLS:
        whose = "AGENT/TAG" if kind == "tag" else kind
        exceptions["for"] = schema.named(
            f"Instead, for this one: {whose}.", schema.table("All of its limits.", keys, **burst)
        )
    return schema.table(_OF[kind], keys | exceptions, **burst)


SCHEMA = schema.table(
    "How often and how much; what is not written here is not limited, but for failed logins.",
    {
        **{kind: _kind_schema(kind) for kind in KINDS},
        "loopback": schema.flag("Whether addresses of this machine are limited, too.", default=False),
    },
)


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
