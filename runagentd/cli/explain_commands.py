"""`runagentctl policy explain`: what a policy does on this machine, step by step.

Runs as: anyone who can read the policy.
Reads from strangers: nothing.
"""

from __future__ import annotations

import dataclasses
import json

from runagentd.plan.build import AgentFolders, Identity, build, neutral_mounts, spare_steps
from runagentd.plan.explain import lines
from runagentd.plan.seccomp import filter_for
from runagentd.plan.syscalls import shipped_table
from runagentd.policy.files import find
from runagentd.policy.render import rows
from runagentd.supervise.hostfacts import gather

EXAMPLE = Identity(uid=1879113728, instance="0" * 16)
"""An instance's uid and id are chosen when it starts; these stand for them."""


def explain(spec: str, *, as_json: bool) -> int:
    """Print the effective policy and its plan; the exit status."""
    policy = find(spec)
    facts = gather()
    folders = AgentFolders(environments=(), persistent=(), absent=frozenset())
    plan = build(policy, facts, EXAMPLE, folders, filter_for(policy, shipped_table()))
    if as_json:
        effective = [{"key": key, "value": value, "origin": origin} for key, value, origin, _ in rows(policy)]
        steps = [dataclasses.asdict(step) for step in (*spare_steps(facts, in_advance=True), *plan.steps)]
        print(
            json.dumps(
                {"policy": policy.name, "keys": effective, "steps": steps, "syscalls": plan.filter.describe()}, indent=2
            )
        )
        return 0
    print(f"policy {policy.name}")
    table = [(key, value, origin) for key, value, origin, _ in rows(policy)]
    widths = [max(len(line[column]) for line in table) for column in range(2)]
    for key, value, origin in table:
        print(f"  {key:{widths[0]}}  {value:{widths[1]}}  ({origin})")
    print()
    for line in lines(spare_steps(facts, in_advance=True), neutral_mounts(facts), plan):
        print(line)
    return 0
