"""The JSON Schema of runagentd.toml: docs/schemas/runagentd.schema.json. Each reader has its own part beside its code.

Runs as: runagentctl.
Reads from strangers: nothing.
It is about form: files that are named and what keys say together are looked at when the file is read.
"""

from __future__ import annotations

from runagentd.config import cache, gateway, history, http, issuers, limits, packages, roles, runtimes, telemetry, tls
from runagentd.schema import document, table


def schema() -> str:
    """The text of the file."""
    tables = {
        "tls": tls.SCHEMA,
        "issuers": issuers.SCHEMA,
        "history": history.SCHEMA,
        "roles": roles.SCHEMA,
        "limits": limits.SCHEMA,
        "http": http.SCHEMA,
        "gateway": gateway.SCHEMA,
        "cache": cache.SCHEMA,
        "telemetry": telemetry.SCHEMA,
        "packages": packages.SCHEMA,
        "runtimes": runtimes.SCHEMA,
    }
    return document("config", "runagentd.toml", table("What holds for the whole daemon.", tables))
