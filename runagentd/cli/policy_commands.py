"""`runagentctl policy check`: whether a policy can be used, what it comes to, or everything that is wrong with it.

Runs as: runagentctl.
Reads from strangers: nothing that is trusted: a file that somebody else could have written is refused.
"""

from __future__ import annotations

import sys
from json import dumps

from runagentd.errors import ConfigurationError
from runagentd.plan.syscalls import shipped_table
from runagentd.policy.digest import policy_digest
from runagentd.policy.files import find
from runagentd.policy.model import Policy
from runagentd.policy.render import rows, summary, wider_than_default


def check(path: str, json: bool) -> int:
    """Print "ok" and the effective policy, or each problem on stderr. The exit status: 0 if it can be used, else 1.

    `path` is a shipped name or a file. With `json`, one object on stdout in both cases.
    """
    try:
        policy = find(path, known_groups=shipped_table().selectable())
    except ConfigurationError as error:
        if json:
            problems = [{"where": each.where, "what": each.what, "hints": list(each.hints)} for each in error.problems]
            _write({"ok": False, "problems": problems})
        else:
            sys.stderr.write(f"{error}\n")
        return 1
    if json:
        _write({"ok": True, "policy": policy.name, "digest": policy_digest(policy), "keys": _keys(policy)})
    else:
        sys.stdout.write(f"ok: {policy.name} (+ marks what is wider than the default)\n{summary(policy)}\n")
    return 0


def _keys(policy: Policy) -> list[dict[str, object]]:
    wider = frozenset(wider_than_default(policy))
    return [
        {"key": row.key, "value": row.value, "origin": row.origin, "wider_than_default": row.key in wider}
        for row in rows(policy)
    ]


def _write(value: dict[str, object]) -> None:
    sys.stdout.write(f"{dumps(value, ensure_ascii=False)}\n")
