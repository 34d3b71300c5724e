"""`[roles.NAME]`: named sets of scopes.

Runs as: the foreman and runagentctl. Pure.
Reads from strangers: nothing; the file is the operator's.

    [roles.support]
    allow = ["agents:invoke:support-*/*"]
    deny  = ["agents:invoke:support-billing/refund"]
"""

from __future__ import annotations

import re

from runagentd import schema
from runagentd.config.table import Table
from runagentd.wire.settings import RoleSettings

NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
SCOPE = re.compile(
    r"agents:invoke:[^/ *]*\*?/[^/ *]*\*?"
    r"|agents:read|agents:deploy|policies:write|keys:admin|audit:read|metrics:read"
)
SCOPE_HINT = (
    "write 'agents:invoke:AGENT/TAG' (a '*' may end AGENT and TAG; names are percent-encoded), or one of agents:read, "
    "audit:read, metrics:read"
)

_SCOPE = {"type": "string", "pattern": schema.whole(SCOPE)}
_EXAMPLES = [["agents:invoke:support-*/*"]]

SCHEMA = schema.named(
    "Named sets of scopes.",
    schema.table(
        "What a token with this role allows.",
        {
            "allow": schema.array("What its holder may do.", _SCOPE, default=[], examples=_EXAMPLES),
            "deny": schema.array(
                "What its holder may not do, whatever else allows it.", _SCOPE, default=[], examples=_EXAMPLES
            ),
        },
    ),
    propertyNames={"pattern": schema.whole(NAME)},
)

GRANTED = {
    "roles": schema.array(
        "Roles that this gives.", {"type": "string", "pattern": schema.whole(NAME)}, default=[], examples=[["support"]]
    ),
    "scopes": schema.array("Scopes that this gives.", _SCOPE, default=[], examples=[["agents:invoke:chat/*"]]),
}
"""The keys that `granted` reads."""


def read(table: Table) -> tuple[RoleSettings, ...]:
    """Every role; scopes that would allow nothing are problems here, where a person can still mend them."""
    roles = []
    for name, role in table.named_tables().items():
        if not NAME.fullmatch(name):
            table.problem(name, "a role's name has 1 to 64 letters, digits, '.', '_' or '-'")
        found = RoleSettings(name=name, allow=role.texts("allow"), deny=role.texts("deny"))
        for key, scopes in (("allow", found.allow), ("deny", found.deny)):
            for scope in scopes:
                if not SCOPE.fullmatch(scope):
                    role.problem(key, f"{scope!r} is not a scope", SCOPE_HINT)
        role.finish()
        roles.append(found)
    return tuple(roles)


def granted(table: Table) -> tuple[str, ...]:
    """What `scopes` and `roles` of a table give to somebody, roles as `role:NAME`."""
    names, scopes = table.texts("roles"), table.texts("scopes")
    for name in names:
        if not NAME.fullmatch(name):
            table.problem("roles", f"{name!r} is not the name of a role")
    for scope in scopes:
        if not SCOPE.fullmatch(scope):
            table.problem("scopes", f"{scope!r} is not a scope", SCOPE_HINT)
    return (*scopes, *(f"role:{name}" for name in names))
