"""Carry out steps in their order, remember how long each took, and report to the supervisor.

Runs as: the launcher: root in a fresh process, then the instance's uid.
Reads from strangers: nothing; steps and descriptors come from the supervisor.
Fails closed: a step that is refused is reported by name and errno, and the process ends before any agent code.
"""

from __future__ import annotations

import array
import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from runagentd.launch import steps
from runagentd.wire import launch as wire
from runagentd.wire import record

REFUSED_STATUS = 70

Own = Callable[..., None]


class Progress:
    """One process's part of a launch. `own` are verbs that are not of `steps`: they may end this process or report."""

    def __init__(self, launch: steps.Launch, done: Sequence[wire.StepReport] = ()) -> None:
        self.launch = launch
        self.done = list(done)
        self.own: Mapping[str, Own] = {}

    def carry_out(self, todo: Iterable[Sequence[str]]) -> None:
        """All of `todo`; does not return where one is refused."""
        verb = ""
        try:
            for verb, *arguments in todo:
                before = time.monotonic_ns()
                own = self.own.get(verb)
                if own is not None:
                    own(*arguments)
                else:
                    steps.STEPS[verb](self.launch, *arguments)
                self.done.append(wire.StepReport(verb=verb, nanoseconds=time.monotonic_ns() - before))
        except Exception as error:  # noqa: BLE001  (whatever goes wrong ends the launch, with its reason)
            number = getattr(error, "errno", None) or 0
            text = f"{type(error).__name__}: {error}"[:500]
            self.report(wire.Stage.REFUSED, verb=verb, errno=number, message=text)
            os._exit(REFUSED_STATUS)

    def report(self, stage: wire.Stage, *, verb: str = "", errno: int = 0, message: str = "") -> None:
        """Tell the supervisor how far it came, with what steps have made for it."""
        report = wire.LaunchReport(stage=stage, steps=tuple(self.done), verb=verb, errno=errno, message=message)
        returned, self.launch.returned = self.launch.returned, []
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", returned))] if returned else []
        with socket.socket(fileno=os.dup(self.launch.descriptors["socket"])) as connection:
            connection.sendmsg([record.encode(report)], rights)
        for descriptor in returned:
            os.close(descriptor)
        if stage is wire.Stage.SPARE:
            self.done.clear()
