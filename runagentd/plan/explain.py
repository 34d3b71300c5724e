"""A plan in words: each step, and the policy key that asked for it. The same text is the golden test of each policy.

Runs as: runagentctl. Pure.
Reads from strangers: nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from runagentd.plan.model import Mount, SandboxPlan, Step

_WIDTH = 66


def lines(spare: Iterable[Step], spare_mounts: Iterable[Mount], plan: SandboxPlan) -> Iterator[str]:
    """The whole plan, in the order in which it is carried out."""
    yield "before an agent is chosen (every spare):"
    yield from _numbered(spare)
    yield ""
    yield "when it becomes an agent's:"
    limits = plan.limits
    yield from _row("cgroup memory", f"{limits.memory_max} bytes, no swap", "resources.memory_max")
    yield from _row("cgroup pids", f"{limits.pids_max} tasks", "resources.pids_max")
    yield from _row(
        "cgroup cpu", f"{limits.cpu_max:g} cores, weight {limits.cpu_weight}", "resources.cpu_max, resources.cpu_weight"
    )
    yield from _numbered(plan.steps)
    yield ""
    yield "mounts, made outside and sent in; first those of a spare:"
    for mounts in (spare_mounts, plan.mounts):
        for number, mount in enumerate(mounts):
            yield f"  {number:2} {mount.target}: {_mount(mount)}"
    yield ""
    yield "system calls:"
    for line in plan.filter.describe():
        yield f"  {line}"
    yield ""
    yield "looked at from outside before any agent code runs:"
    for key, value in plan.expected.status:
        yield f"  {key}: {value or '(none)'}"
    yield "  dumpable: no"
    for name, value in plan.expected.limits:
        yield f"  {name}: {value}"
    if plan.expected.command:
        yield f"  arguments: {' '.join(plan.expected.command)}"
        yield "  address layout: not the zygote's"
    for point, options in plan.expected.mounts:
        yield f"  {point}: {options}"


def _numbered(steps: Iterable[Step]) -> Iterator[str]:
    for number, step in enumerate(steps, 1):
        yield from _row(f"{number:3}", step.describe(), step.origin)


def _row(label: str, text: str, origin: str) -> Iterator[str]:
    line = f"  {label} {text}"
    yield f"{line:{_WIDTH}}  [{origin}]"


def _mount(mount: Mount) -> str:
    words = [str(mount.kind), "read-only" if mount.read_only else "writable", "no programs" if mount.noexec else ""]
    if mount.size:
        words.append(f"{mount.size} bytes, {mount.inodes} inodes in memory")
    return ", ".join(word for word in words if word)
