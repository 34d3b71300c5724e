"""The runner: greet the gateway, import the agent, report, and serve its calls until the process is ended.

Runs as: the instance's own uid, in the complete sandbox, seccomp included.
Reads from strangers: yes, everything in this process is at the mercy of the agent's code once that was imported.
Importing this package has no effect: the zygote does it once, for all instances.
"""

from __future__ import annotations

import os
import signal
from typing import NoReturn

from runagentd.runner import entrypoints, failure, report, surroundings
from runagentd.runner.calls import flush_output
from runagentd.runner.connection import Connection, Supply
from runagentd.runner.entrypoints import Loaded
from runagentd.runner.handover import Handover
from runagentd.runner.inline import InlineServer
from runagentd.runner.threaded import ThreadedServer
from runagentd.wire import record
from runagentd.wire.manifest import MANIFEST_BYTES, Manifest


def run(handover: Handover) -> NoReturn:
    """Called in the forked process after the last step of the sandbox; never returns."""
    try:
        _run(handover)
    except BaseException as error:  # noqa: BLE001  (nothing may unwind into the launcher's frames)
        failure.end_process(error)
    os._exit(0)


def _run(handover: Handover) -> None:
    connection, supply = Connection(handover.channel_fd), Supply(handover.supply_fd)
    os.set_inheritable(handover.ready_fd, False)
    connection.send(report.HELLO)
    manifest = record.decode(Manifest, handover.manifest, bytes_max=MANIFEST_BYTES)
    current = [connection]

    def abandon() -> None:
        """A child of the agent's must not hold or use the instance's channel."""
        current[0].close()
        supply.close()

    os.register_at_fork(after_in_child=abandon)
    surroundings.prepare(manifest, handover.app_path)
    loaded = entrypoints.load(manifest, handover.app_path)
    flush_output()
    greeting = report.failed(loaded.problems) if loaded.problems else report.describe(loaded)
    connection.send(greeting)
    if not loaded.problems:
        os.write(handover.ready_fd, b"R")
        os.close(handover.ready_fd)
    _serve(handover, loaded, current, supply, greeting)


def _serve(handover: Handover, loaded: Loaded, current: list[Connection], supply: Supply, greeting: bytes) -> None:
    """One channel after the other; an agent that failed to load tells each new gateway so."""
    targets = {} if loaded.problems else {target.entrypoint.tag: target for target in loaded.targets}
    server = (InlineServer if handover.limits.concurrency == 1 else ThreadedServer)(targets, handover.limits)
    while True:
        server.serve(current[0])
        current[0].close()
        connection = supply.next()
        while connection is None:
            signal.pause()  # the supervisor is gone: the lifeline ends this process in a moment
        current[0] = connection
        connection.send(report.HELLO)
        connection.send(greeting)
