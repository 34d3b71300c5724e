"""What the operator is shown of agents and their instances: records for the admin socket.

Runs as: the supervisor.
Reads from strangers: nothing; names that agents gave themselves are passed on, and commands escape what they print.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping

from runagentd.policy.digest import policy_digest
from runagentd.supervise.agent import Agent
from runagentd.supervise.figures import FigureTeller
from runagentd.supervise.instance import Instance
from runagentd.supervise.lifecycle import State
from runagentd.supervise.pools import Pools
from runagentd.supervise.runtimes import Runtimes
from runagentd.wire import admin, record


def instances(
    agents: Iterable[Agent], *, skip: int, pools: Pools, runtimes: Runtimes, standbys: int
) -> admin.Instances:
    """As many rows as fit into an answer, after the first `skip`."""
    rows: list[tuple[Agent, Instance | None]] = []
    for agent in agents:
        rows += [(agent, instance) for instance in agent.instances.values()] or [(agent, None)]
    zygotes = [
        admin.DaemonRow(name=f"zygote {runtimes.shown(runtime)}".rstrip(), pid=pool.zygote.pid)
        for runtime, pool in pools
    ]
    return admin.Instances(
        instances=tuple(_row(agent, instance, runtimes) for agent, instance in rows[skip : skip + admin.ROWS_MAX]),
        total=len(rows),
        daemons=(admin.DaemonRow(name="supervisor", pid=os.getpid()), *zygotes),
        spares=pools.ready,
        standbys=standbys,
    )


def overview(agents: Mapping[str, Agent], page: int, teller: FigureTeller, traffic: bytes) -> admin.Overview | None:
    """One page of all agents; None where there is no such page."""
    pages = teller.pages()
    if not 0 <= page < len(pages):
        return None
    found = (agents.get(row.agent) for row in pages[page].agents)
    return admin.Overview(
        pages=len(pages),
        made_ns=teller.made_ns,
        names=tuple(agent.deployment.manifest.agent_name if agent is not None else "" for agent in found),
        figures=pages[page],
        traffic=traffic,
    )


def described(agent: Agent, traffic: bytes, runtimes: Runtimes) -> admin.Described:
    """All about one agent."""
    instances = tuple(agent.instances.values())
    return admin.Described(
        agent=agent.id,
        manifest=record.encode(dataclasses.replace(agent.deployment.manifest, environment=())),
        version=agent.deployment.version,
        policy=agent.policy.name,
        policy_digest=policy_digest(agent.policy),
        bounds=_bounds(agent),
        restarts=agent.restarts,
        retry_after_ms=agent.retry_after_ms,
        instances=tuple(_row(agent, each, runtimes) for each in instances[: admin.INSTANCES_DESCRIBED_MAX]),
        total=len(instances),
        ends=tuple(agent.last_ends),
        traffic=traffic,
        number=agent.version.number,
        warm=agent.former.number if agent.former is not None else 0,
        warm_until_unix_ms=agent.former_until_unix_ms,
        python=runtimes.shown(agent.version.runtime),
    )


def _state(agent: Agent, instance: Instance) -> str:
    """Of one that is ready also whether it is called: of another version it is not."""
    if instance.state is not State.READY or instance.version is agent.version:
        return instance.shown_state
    return "warm" if instance.version is agent.former else "leaving" if instance.version.given_up else "trying"


def _bounds(agent: Agent) -> admin.Bounds:
    policy = agent.policy
    return admin.Bounds(
        memory_max=policy.resources.memory_max,
        pids_max=policy.resources.pids_max,
        cpu_max_thousandths=round(policy.resources.cpu_max * 1000),
        concurrency=policy.calls.concurrency,
        queue=policy.calls.queue,
        deadline=policy.calls.deadline,
        cancel_grace=policy.calls.cancel_grace,
        instances_min=agent.minimum,
        instances_max=agent.maximum,
        instances_most=policy.scaling.instances_max,
        target=policy.scaling.target,
        idle=policy.scaling.idle,
        freeze=policy.scaling.freeze,
        spawn=policy.process.spawn.value,
        isolation=policy.calls.isolation.value,
    )


def _row(agent: Agent, instance: Instance | None, runtimes: Runtimes) -> admin.InstanceRow:
    launched = instance.launched if instance is not None else None
    # What is left of one that has ended is about to be removed.
    group = launched.spare.group if launched is not None and instance is not None and instance.alive else None
    return admin.InstanceRow(
        agent=agent.id,
        agent_name=agent.deployment.manifest.agent_name,
        instance=instance.id if instance is not None else "",
        state=_state(agent, instance) if instance is not None else agent.absence(),
        policy=agent.policy.name,
        pid=launched.runner_pid if launched is not None else 0,
        reaper_pid=launched.spare.reaper_pid if launched is not None else 0,
        uid=instance.uid if instance is not None else 0,
        started_unix_ms=instance.started_unix_ms if instance is not None else 0,
        version=instance.version.deployment.version if instance is not None else agent.deployment.version,
        cpu_microseconds=round(group.cpu_seconds() * 1e6) if group is not None else 0,
        memory_bytes=group.memory_current() if group is not None else 0,
        memory_max=agent.policy.resources.memory_max,
        pids=group.pids_current() if group is not None else 0,
        restarts=agent.restarts,
        last_cause=agent.last_cause,
        spawn_started_ns=instance.spawn_started_ns if instance is not None else 0,
        ready_ns=instance.ready_ns if instance is not None else 0,
        from_spare=instance.from_spare if instance is not None else False,
        stood_by=instance.stood_by if instance is not None else False,
        number=instance.version.number if instance is not None else agent.version.number,
        steps=tuple(
            admin.StepTime(step=step.verb, microseconds=step.nanoseconds // 1000)
            for step in (launched.steps if launched is not None else ())
        ),
        python=runtimes.shown(instance.runtime if instance is not None else agent.version.runtime),
    )
