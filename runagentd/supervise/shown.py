"""What the operator is shown of agents and their instances: records for the admin socket.

Runs as: the supervisor.
Reads from strangers: nothing; names that agents gave themselves are passed on, and commands escape what they print.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from runagentd.supervise.agent import Agent
from runagentd.supervise.instance import Instance
from runagentd.wire import admin


def instances(agents: Iterable[Agent], *, skip: int, zygote: int, spares: int) -> admin.Instances:
    """As many rows as fit into an answer, after the first `skip`."""
    rows: list[tuple[Agent, Instance | None]] = []
    for agent in agents:
        rows += [(agent, instance) for instance in agent.instances.values()] or [(agent, None)]
    return admin.Instances(
        instances=tuple(_row(agent, instance) for agent, instance in rows[skip : skip + admin.ROWS_MAX]),
        total=len(rows),
        daemons=(admin.DaemonRow(name="supervisor", pid=os.getpid()), admin.DaemonRow(name="zygote", pid=zygote)),
        spares=spares,
    )


def _row(agent: Agent, instance: Instance | None) -> admin.InstanceRow:
    launched = instance.launched if instance is not None else None
    # What is left of one that has ended is about to be removed.
    group = launched.spare.group if launched is not None and instance is not None and instance.alive else None
    return admin.InstanceRow(
        agent=agent.id,
        agent_name=agent.deployment.manifest.agent_name,
        instance=instance.id if instance is not None else "",
        state=instance.shown_state if instance is not None else agent.absence(),
        policy=agent.policy.name,
        pid=launched.runner_pid if launched is not None else 0,
        reaper_pid=launched.spare.reaper_pid if launched is not None else 0,
        uid=instance.uid if instance is not None else 0,
        started_unix_ms=instance.started_unix_ms if instance is not None else 0,
        memory_bytes=group.memory_current() if group is not None else 0,
        memory_max=agent.policy.resources.memory_max,
        pids=group.pids_current() if group is not None else 0,
        restarts=agent.restarts,
        last_cause=agent.last_cause,
        spawn_started_ns=instance.spawn_started_ns if instance is not None else 0,
        ready_ns=instance.ready_ns if instance is not None else 0,
        from_spare=instance.from_spare if instance is not None else False,
        steps=tuple(
            admin.StepTime(step=step.verb, microseconds=step.nanoseconds // 1000)
            for step in (launched.steps if launched is not None else ())
        ),
    )
