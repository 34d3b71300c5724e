"""The runner: greet the gateway, import the agent, report, and serve its calls until the process is ended.

Runs as: the instance's own uid, in the complete sandbox, seccomp included.
Reads from strangers: yes, everything in this process is at the mercy of the agent's code once that was imported.
Importing this package has no effect: the zygote does it once, for all instances.
"""

from __future__ import annotations

import os
import select
import signal
from dataclasses import dataclass
from typing import NoReturn, Protocol

from runagentd import kernel
from runagentd.runner import entrypoints, failure, isolated, report, surroundings
from runagentd.runner.calls import flush_output
from runagentd.runner.connection import Connection, Supply
from runagentd.runner.entrypoints import Loaded, Target
from runagentd.runner.handover import Handover
from runagentd.runner.inline import InlineServer
from runagentd.runner.isolated import IsolatingServer
from runagentd.runner.threaded import ThreadedServer
from runagentd.wire import record
from runagentd.wire.manifest import MANIFEST_BYTES, Manifest

_NOBODY_WAITS_MS = 100
_poll = select.poll  # gevent takes it away from the module


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A runner that has only the agent's own left to do."""

    handover: Handover
    manifest: Manifest
    current: list[Connection]
    """the one channel of now"""
    supply: Supply


def prepare(handover: Handover) -> Prepared:
    """Everything that is not the agent's; called after the last step, while the supervisor looks from outside."""
    try:
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
        return Prepared(handover=handover, manifest=manifest, current=current, supply=supply)
    except BaseException as error:  # noqa: BLE001  (nothing may unwind into the launcher's frames)
        failure.end_process(error)


def run(prepared: Prepared) -> NoReturn:
    """Called where the gate has opened; never returns."""
    try:
        _run(prepared)
    except BaseException as error:  # noqa: BLE001  (nothing may unwind into the launcher's frames)
        failure.end_process(error)
    os._exit(0)


def _run(prepared: Prepared) -> None:
    handover, manifest, current = prepared.handover, prepared.manifest, prepared.current
    connection = current[0]
    surroundings.complete(manifest, handover.app_path, handover.environment)
    loaded = entrypoints.load(manifest, handover.app_path)
    if handover.limits.isolated and not loaded.problems:
        loaded.problems += isolated.problems(handover.scratch, manifest.entrypoints[0].file)
    flush_output()
    greeting = report.failed(loaded.problems) if loaded.problems else report.describe(loaded)
    connection.send(greeting)
    if not loaded.problems:
        os.write(handover.ready_fd, b"R")
        os.close(handover.ready_fd)
    _serve(handover, loaded, current, prepared.supply, greeting)


class Server(Protocol):
    """What serves calls, in one of three ways."""

    def serve(self, connection: Connection) -> None:
        """Until the channel ends; its calls have stopped then."""


def _server(targets: dict[str, Target], handover: Handover) -> Server:
    limits = handover.limits
    if limits.isolated and targets:
        return IsolatingServer(targets, limits, handover.scratch)
    return (InlineServer if limits.concurrency == 1 else ThreadedServer)(targets, limits)


def _settle(connection: Connection) -> None:
    """Give back what the agent's import has left (its files were compiled), where nobody waits for that.

    For half a millisecond a third of a MB of the chat example. What was started for a call has one at once, and its
    heap is of use to it.
    """
    poll = _poll()
    poll.register(connection.descriptor, select.POLLIN)
    if not poll.poll(_NOBODY_WAITS_MS):
        kernel.give_memory_back()


def _serve(handover: Handover, loaded: Loaded, current: list[Connection], supply: Supply, greeting: bytes) -> None:
    """One channel after the other; an agent that failed to load tells each new gateway so."""
    targets = {} if loaded.problems else {target.entrypoint.tag: target for target in loaded.targets}
    server = _server(targets, handover)
    _settle(current[0])
    while True:
        server.serve(current[0])
        current[0].close()
        connection = supply.next()
        while connection is None:
            signal.pause()  # the supervisor is gone: the lifeline ends this process in a moment
        current[0] = connection
        connection.send(report.HELLO)
        connection.send(greeting)
