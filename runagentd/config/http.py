"""`[http]`: who stands before the daemon, and which pages may call it.

Runs as: the foreman and runagentctl. Pure.
Reads from strangers: nothing; the file is the operator's.

    [http]
    trusted_proxies = ["10.0.0.0/8"]
    forwarded = "x-forwarded-for"
    cors_origins = ["https://app.example"]
"""

from __future__ import annotations

import ipaddress
import re

from runagentd import schema
from runagentd.config.table import Table
from runagentd.wire.settings import Http

ORIGIN = re.compile(r"https?://(?:[a-z0-9.-]{1,253}|\[[0-9a-f:.]{2,45}\])(?::[0-9]{1,5})?")
FORMS = ("x-forwarded-for", "forwarded")

SCHEMA = schema.table(
    "Who stands before the daemon, and which pages may call it.",
    {
        "trusted_proxies": schema.array(
            "Networks whose connections may say in a field who the client is.",
            {"type": "string"},
            default=[],
            examples=[["10.0.0.0/8"]],
        ),
        "forwarded": schema.text("The field that trusted proxies say it in.", enum=list(FORMS), default=FORMS[0]),
        "cors_origins": schema.array(
            "Origins of pages that may call, exactly as a browser writes them.",
            {"type": "string", "pattern": schema.whole(ORIGIN)},
            default=[],
            examples=[["https://app.example"]],
        ),
    },
)


def read(table: Table) -> Http:
    """All of it; the defaults trust nobody."""
    proxies = table.texts("trusted_proxies")
    for text in proxies:
        try:
            ipaddress.ip_network(text)
        except ValueError as error:
            table.problem("trusted_proxies", f"{text!r} is no network: {error}", "such as 10.0.0.0/8 or 2001:db8::/32")
    form = table.text("forwarded", FORMS[0])
    if form not in FORMS:
        table.problem("forwarded", f"must be one of {', '.join(FORMS)}, not {form!r}")
    origins = table.texts("cors_origins")
    for origin in origins:
        if not ORIGIN.fullmatch(origin):
            table.problem(
                "cors_origins",
                f"{origin!r} is not an origin",
                "write scheme, host and port as a browser does, in lower case: https://app.example or http://localhost:3000",
            )
    table.finish()
    return Http(trusted_proxies=proxies, forwarded=form, cors_origins=origins)
