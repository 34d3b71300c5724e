"""`runagentctl describe AGENT`: all about one agent, on one screen.

Runs as: root.
Reads from strangers: names that an agent's author chose, and what a gateway counts that may be captured; records of a
few strict lines (`wire.record`), and control characters never reach the terminal.
"""

from __future__ import annotations

import dataclasses
import json
import time

from runagentd.cli import table
from runagentd.cli.quantities import NONE, age, count, duration, milliseconds, quantile, size
from runagentd.errors import HostError
from runagentd.foreman import admin_client
from runagentd.log import complain, escape, utc
from runagentd.state import StateDirectory
from runagentd.wire import admin, record, traffic
from runagentd.wire.manifest import MANIFEST_BYTES, Entrypoint, Manifest

_INSTANCES = ("INSTANCE", "STATE", "PID", "UID", "UP", "MEMORY", "CPU", "TASKS", "OPEN", "CALLS")
_ENTRYPOINTS = ("TAG", "FUNCTION", "DEADLINE", "CACHE", "CALLS", "FAILED", "P50", "P99")
_ENDS = ("LAST ENDS", "INSTANCE", "LIVED", "CAUSE", "")


def describe(directory: StateDirectory, agent: str, *, as_json: bool) -> int:
    """Print it; the exit status."""
    reply = admin_client.told(
        admin_client.ask(directory.admin_socket, admin.DescribeAsk(agent=agent)),
        admin.Described,
        admin_client.WHICH_AGENTS,
    )
    try:
        manifest = record.decode(Manifest, reply.manifest, bytes_max=MANIFEST_BYTES)
        told = traffic.parse(reply.traffic) if reply.traffic else None
    except record.RecordError as error:
        raise HostError(f"the answer cannot be read: {error}") from error
    if as_json:
        print(json.dumps(_facts(reply, manifest, told), indent=2))
        return 0
    for line in screen(reply, manifest, told):
        print(line)
    if told is None:
        complain("runagentctl: no gateway answers at the moment: what is called is not known")
    return 0


def _facts(reply: admin.Described, manifest: Manifest, told: traffic.Traffic | None) -> dict[str, object]:
    facts = dataclasses.asdict(dataclasses.replace(reply, manifest=b"", traffic=b""))
    facts["manifest"] = dataclasses.asdict(manifest)
    facts["traffic"] = None if told is None else dataclasses.asdict(told)
    return facts


def screen(reply: admin.Described, manifest: Manifest, told: traffic.Traffic | None) -> list[str]:
    """The lines for a person."""
    calls = next(iter(told.agents), None) if told is not None else None
    bounds = reply.bounds
    rows = {
        "id": escape(reply.agent),
        "about": escape(manifest.description[:100]),
        "version": _version(reply, manifest),
        "policy": f"{escape(reply.policy)}  {reply.policy_digest[:12]}",
        "python": escape(reply.python),
        "sandbox": _sandbox(bounds),
        "calls": _limits(bounds),
        "instances": _scaling(bounds),
        "kept": ", ".join(map(escape, manifest.persistent_folders)),
        "now": _now(reply, calls),
        "so far": _so_far(told, calls),
    }
    lines = [escape(manifest.agent_name), *(f"  {name:<11}{text}" for name, text in rows.items() if text)]
    lines += ["", *table.lines(_INSTANCES, _instances(reply, calls))]
    if reply.total > len(reply.instances):
        lines.append(f"and {reply.total - len(reply.instances)} more")
    lines += ["", *table.lines(_ENTRYPOINTS, _entrypoints(manifest, bounds, told, calls))]
    if reply.ends:
        lines += ["", *table.lines(_ENDS, [_end(row) for row in reversed(reply.ends)])]
    return lines


def _version(reply: admin.Described, manifest: Manifest) -> str:
    number = f"v{reply.number} " if reply.number else ""
    own = f", the author's {escape(manifest.version)}" if manifest.version else ""
    text = f"{number}{escape(reply.version)}{own} ({escape(manifest.framework)})"
    left = (reply.warm_until_unix_ms - time.time_ns() // 1_000_000) / 1000
    return text + (f"; v{reply.warm} is kept warm for {age(max(0.0, left))}" if reply.warm else "")


def _sandbox(bounds: admin.Bounds) -> str:
    processors = f"{bounds.cpu_max_thousandths / 1000:g} CPU"
    return (
        f"{size(bounds.memory_max)}, {processors}, {bounds.pids_max} tasks; "
        f"made by {bounds.spawn}, calls apart by {bounds.isolation}"
    )


def _limits(bounds: admin.Bounds) -> str:
    return (
        f"{bounds.concurrency} at a time in an instance, {bounds.queue} may wait, "
        f"deadline {milliseconds(bounds.deadline)}, {milliseconds(bounds.cancel_grace)} to stop"
    )


def _scaling(bounds: admin.Bounds) -> str:
    text = f"from {bounds.instances_min} to {bounds.instances_max}"
    if bounds.instances_max != bounds.instances_most:
        text += f" (its policy allows {bounds.instances_most})"
    if bounds.instances_min != bounds.instances_max:
        text += f", another beyond {count(bounds.target, 'call')} each, one fewer after {milliseconds(bounds.idle)}"
    return text + (f", frozen after {milliseconds(bounds.freeze)} where the host can" if bounds.freeze else "")


def _now(reply: admin.Described, calls: traffic.AgentTraffic | None) -> str:
    parts = []
    if calls is not None:
        parts.append(f"{escape(calls.state)}, {count(calls.open, 'call')} under way, {calls.waiting} waiting")
        if reply.bounds.isolation == "principal":
            parts.append(f"{count(calls.bound, 'instance')} with a caller")
    if reply.retry_after_ms:
        parts.append(f"the next start is in {duration(reply.retry_after_ms / 1000)}")
    parts.append(count(reply.restarts, "restart"))
    return ", ".join(parts)


def _so_far(told: traffic.Traffic | None, calls: traffic.AgentTraffic | None) -> str:
    if told is None or calls is None:
        return ""
    span = age((told.made_ns - told.since_ns) / 1e9)
    failures = ", ".join(f"{row.count} {escape(row.name)}" for row in calls.outcomes if row.name != "OK")
    return f"{count(calls.calls, 'call')} in {span}" + (f", of those {failures}" if failures else "")


def _instances(reply: admin.Described, calls: traffic.AgentTraffic | None) -> list[tuple[str, ...]]:
    found = {row.instance: row for row in calls.instances} if calls is not None else {}
    now_ms = time.time_ns() // 1_000_000
    rows: list[tuple[str, ...]] = []
    for row in reply.instances:
        told = found.get(row.instance)
        bound = ", has a caller" if told is not None and told.bound else ""
        old = "" if row.version == reply.version else f", version {escape(row.version[:12])}"
        rows.append(
            (
                row.instance,
                row.state + bound + old,
                str(row.pid),
                str(row.uid),
                age((now_ms - row.started_unix_ms) / 1000) if row.started_unix_ms else NONE,
                size(row.memory_bytes),
                duration(row.cpu_microseconds / 1e6),
                str(row.pids),
                NONE if told is None else str(told.open),
                NONE if told is None else str(told.calls),
            )
        )
    return rows or [(NONE,) * len(_INSTANCES)]


def _entrypoints(
    manifest: Manifest, bounds: admin.Bounds, told: traffic.Traffic | None, calls: traffic.AgentTraffic | None
) -> list[tuple[str, ...]]:
    found = {row.tag: row for row in calls.tags} if calls is not None else {}
    rows: list[tuple[str, ...]] = []
    for entrypoint in manifest.entrypoints:
        row = found.get(entrypoint.tag)
        deadline = bounds.deadline if entrypoint.timeout_ms is None else min(bounds.deadline, entrypoint.timeout_ms)
        counted = (NONE,) * 4
        if row is not None and told is not None:
            p50, p99 = (
                duration(quantile(share, row.times.buckets, told.bounds_microseconds, most=deadline / 1000))
                for share in (0.5, 0.99)
            )
            counted = (str(row.calls), str(row.failed), p50, p99)
        function = f"{escape(entrypoint.file)}:{escape(entrypoint.module)}"
        rows.append((escape(entrypoint.tag), function, milliseconds(deadline), _cache(entrypoint), *counted))
    return rows


def _cache(entrypoint: Entrypoint) -> str:
    cache = entrypoint.cache
    return NONE if cache is None else f"{milliseconds(1000 * cache.ttl)}, {cache.scope.value}"


def _end(row: admin.EndRow) -> tuple[str, ...]:
    lived = duration(row.lived_ms / 1000) if row.lived_ms else NONE
    return utc(row.unix_ms / 1000), row.instance, lived, row.cause, escape(row.detail)
