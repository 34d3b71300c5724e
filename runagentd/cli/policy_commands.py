"""`runagentctl policy check` and `policy diff`: what a policy comes to or all that is wrong with it; how two differ.

Runs as: runagentctl.
Reads from strangers: nothing that is trusted: a file that somebody else could have written is refused.
"""

from __future__ import annotations

import sys
from json import dumps

from runagentd.errors import ConfigurationError
from runagentd.plan.syscalls import shipped_table
from runagentd.policy.compare import Difference, differences, widening
from runagentd.policy.digest import policy_digest
from runagentd.policy.files import find
from runagentd.policy.model import Policy
from runagentd.policy.order import Comparison
from runagentd.policy.render import rows, summary, wider_than_default


def check(path: str, json: bool) -> int:
    """Print "ok" and the effective policy, or each problem on stderr. The exit status: 0 if it can be used, else 1.

    `path` is a shipped name or a file. With `json`, one object on stdout in both cases.
    """
    try:
        policy = find(path, known_groups=shipped_table().selectable())
    except ConfigurationError as error:
        _write_problems(error, json)
        return 1
    if json:
        _write({"ok": True, "policy": policy.name, "digest": policy_digest(policy), "keys": _keys(policy)})
    else:
        sys.stdout.write(f"ok: {policy.name} (+ marks what is wider than the default)\n{summary(policy)}\n")
    return 0


def diff(a: str, b: str, json: bool) -> int:
    """Print where `b` differs from `a`, both shipped names or files. The exit status is for scripts that gate a change.

    0 where `b` allows nothing that `a` does not, 1 where it does, 2 where either cannot be used (as diff(1) has it).
    With `json`, one object on stdout in all cases.
    """
    try:
        groups = shipped_table().selectable()
        first, second = find(a, known_groups=groups), find(b, known_groups=groups)
    except ConfigurationError as error:
        _write_problems(error, json)
        return 2
    found, wider = differences(first, second), widening(first, second)
    if json:
        _write(
            {
                "ok": True,
                "a": first.name,
                "b": second.name,
                "wider": bool(wider),
                "keys": _changes(found, first, second),
            }
        )
    else:
        sys.stdout.write(
            "".join(f"{line}\n" for line in (*_columns(found, first, second), _verdict(first, second, wider)))
        )
    return 1 if wider else 0


_WORDS = {
    Comparison.EQUAL: "same",
    Comparison.NARROWER: "narrower",
    Comparison.WIDER: "wider",
    Comparison.INCOMPARABLE: "other",
}


def _columns(found: tuple[Difference, ...], first: Policy, second: Policy) -> list[str]:
    origins = dict(first.origins), dict(second.origins)
    table = [
        (_WORDS[each.relation], each.key, f"{each.a} ({origins[0][each.key]})", f"{each.b} ({origins[1][each.key]})")
        for each in found
    ]
    widths = [max((len(row[column]) for row in table), default=0) for column in range(3)]
    return [
        f"{relation:<{widths[0]}}  {key:<{widths[1]}}  {old:<{widths[2]}}  ->  {new}"
        for relation, key, old, new in table
    ]


def _verdict(first: Policy, second: Policy, wider: tuple[Difference, ...]) -> str:
    if not wider:
        return f"{second.name} allows nothing that {first.name} does not"
    keys = f"{len(wider)} key{'s' if len(wider) != 1 else ''}"
    others = sum(each.relation is Comparison.INCOMPARABLE for each in wider)
    counted = f" ({others} of them other: neither contains the other)" if others else ""
    return f"{second.name} is wider than {first.name} in {keys}{counted}"


def _changes(found: tuple[Difference, ...], first: Policy, second: Policy) -> list[dict[str, object]]:
    origins = dict(first.origins), dict(second.origins)
    return [
        {
            "key": each.key,
            "relation": _WORDS[each.relation],
            "a": {"value": each.a, "origin": origins[0][each.key]},
            "b": {"value": each.b, "origin": origins[1][each.key]},
        }
        for each in found
    ]


def _keys(policy: Policy) -> list[dict[str, object]]:
    wider = frozenset(wider_than_default(policy))
    return [
        {"key": row.key, "value": row.value, "origin": row.origin, "wider_than_default": row.key in wider}
        for row in rows(policy)
    ]


def _write_problems(error: ConfigurationError, json: bool) -> None:
    if json:
        problems = [{"where": each.where, "what": each.what, "hints": list(each.hints)} for each in error.problems]
        _write({"ok": False, "problems": problems})
    else:
        sys.stderr.write(f"{error}\n")


def _write(value: dict[str, object]) -> None:
    sys.stdout.write(f"{dumps(value, ensure_ascii=False)}\n")
