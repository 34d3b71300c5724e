"""A fresh interpreter in a jail that is all but complete: carry out the steps that an exec would have undone.

Runs as: the instance's uid, exec'd by a spare with an empty environment; one thread, all signals blocked.
Reads from strangers: nothing; what it reads comes from the supervisor and from the spare that it was.
Its code, this module included, is a sealed zip on a descriptor, which is closed before any step: an agent can neither
change it nor find it. What was exec'd has an address layout and a hash seed of its own, and is dumpable again
(prctl(2), PR_SET_DUMPABLE); Landlock and the filter come after it, or they would have to allow execveat(2).
"""

from __future__ import annotations

import gc
import os
import sys
import time
import zipimport
from typing import NoReturn

from runagentd import kernel
from runagentd.launch import steps
from runagentd.launch.gate import pass_gate
from runagentd.launch.progress import REFUSED_STATUS, Progress
from runagentd.wire import launch as wire
from runagentd.wire import record


class FreshProgress(Progress):
    """The progress of a process that was exec'd."""

    def __init__(self, launch: steps.Launch, done: tuple[wire.StepReport, ...]) -> None:
        super().__init__(launch, done)
        self.own = {"gate": self._pass_gate}

    def _pass_gate(self) -> NoReturn:
        pass_gate(self)


def main() -> NoReturn:
    """Go on where the spare became this process."""
    try:
        gc.disable()
        kernel.set_process_name("runner")
        launch = steps.Launch(descriptors={name: number for number, name in {**steps.NUMBERED, **steps.FRESH}.items()})
        for number in launch.descriptors.values():
            os.set_inheritable(number, False)
        _forget_code(launch.take("code"))
        *before, began = record.decode(wire.LaunchReport, launch.read("done"), bytes_max=wire.REPORT_BYTES_MAX).steps
        took = wire.StepReport(verb=began.verb, nanoseconds=time.monotonic_ns() - began.nanoseconds)
        gc.freeze()
        FreshProgress(launch, (*before, took)).carry_out(steps.parse(launch.read("then")))
    finally:
        os._exit(REFUSED_STATUS)


def _forget_code(descriptor: int) -> None:
    """All that is needed was imported; nothing of where it came from is left to be found."""
    os.close(descriptor)
    sys.path.remove(wire.CODE_PATH)
    sys.path_importer_cache.pop(wire.CODE_PATH, None)
    cache = getattr(zipimport, "_zip_directory_cache", {})
    cache.clear()
