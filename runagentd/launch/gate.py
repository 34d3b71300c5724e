"""The last step of every launch: report, prepare all that is not the agent's, wait to be let in, and be the runner.

Runs as: the instance's uid, after the last step.
Reads from strangers: nothing before the gate opens.
"""

from __future__ import annotations

import gc
import os
import socket
from typing import NoReturn

from runagentd.launch.progress import REFUSED_STATUS, Progress
from runagentd.runner import main as runner
from runagentd.runner.handover import Handover, Limits
from runagentd.wire import launch as wire
from runagentd.wire import record


def pass_gate(progress: Progress) -> NoReturn:
    """Returns to nobody: what comes after the gate is the agent."""
    launch = progress.launch
    progress.report(wire.Stage.GATE)
    gate = socket.socket(fileno=launch.take("socket"))
    # While the supervisor looks: none of it runs a line of the agent's.
    job = record.decode(wire.Job, launch.read("job"), bytes_max=wire.JOB_BYTES_MAX)
    handover = Handover(
        channel_fd=launch.take("channel"),
        supply_fd=launch.take("supply"),
        ready_fd=launch.take("ready"),
        manifest=job.manifest,
        limits=Limits(
            concurrency=job.concurrency,
            result_bytes=job.result_bytes,
            cancel_grace_ms=job.cancel_grace_ms,
            traceback=job.traceback,
            isolated=job.isolated,
        ),
        app_path="/app",
        environment=job.environment,
        scratch=("/tmp", "/dev/shm"),
    )
    prepared = runner.prepare(handover)
    if gate.recv(16) != wire.OPEN:
        os._exit(REFUSED_STATUS)
    gate.close()
    gc.enable()
    runner.run(prepared)
    os._exit(0)
