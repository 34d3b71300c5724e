"""Start a daemon with its descriptors, and restart it when it ends: what systemd does in production.

Runs as: the foreman (root).
Reads from strangers: nothing.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from runagentd import backoff, inherited

_STEADY_SECONDS = 10.0
_DELAY_MAX_SECONDS = 5.0


@dataclass(slots=True)
class Daemon:
    """One daemon under the foreman's care. `command` gives its arguments anew for each start."""

    name: str
    command: Callable[[bool], Sequence[str]]
    """told whether this is the first start"""
    descriptors: dict[str, int]
    before_start: Callable[[], None] | None = None
    """called before each start; may change `descriptors`"""
    pid: int = 0
    starts: int = 0
    failures: int = 0
    started: float = 0.0
    status: int = 0
    """how it ended last: its exit status, or the signal that ended it, negative"""
    restart_at: float = field(default=0.0)

    def start(self) -> None:
        if self.before_start is not None:
            self.before_start()
        self.pid = spawn(self.command(self.starts == 0), self.descriptors)
        self.starts += 1
        self.started = time.monotonic()
        self.restart_at = 0.0

    def ended(self) -> float:
        """Note that it ended; gives the seconds until it is to be started again."""
        self.pid = 0
        steady = time.monotonic() - self.started > _STEADY_SECONDS
        self.failures = 0 if steady else self.failures + 1
        delay = 0.0 if self.failures <= 1 else backoff.doubled(0.1, self.failures - 2, most=_DELAY_MAX_SECONDS)
        self.restart_at = time.monotonic() + delay
        return delay

    def signal(self, number: signal.Signals) -> None:
        if self.pid:
            os.kill(self.pid, number)


def spawn(command: Sequence[str], descriptors: dict[str, int]) -> int:
    """Start `command` with an environment of its descriptors alone (sd_listen_fds(3)); gives its pid.

    fork(2) and not posix_spawn(3): LISTEN_PID must be the child's own pid. The foreman has one thread.
    """
    names = list(descriptors)
    pid = os.fork()
    if pid:
        return pid
    try:
        # Numbers far above first, so that no dup2 below closes one that is still needed.
        high = [os.dup(descriptors[name]) for name in names]
        parked = []
        for descriptor in high:
            while descriptor < 3 + len(names):
                descriptor = os.dup(descriptor)
            parked.append(descriptor)
        for position, descriptor in enumerate(parked):
            os.dup2(descriptor, 3 + position, inheritable=True)
        null = os.open("/dev/null", os.O_RDONLY)
        os.dup2(null, 0, inheritable=True)
        # A terminal's Ctrl+C goes to the foreman alone, which drains; the daemons hear of it from there.
        os.setsid()
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execve(command[0], list(command), inherited.start_environment(names, os.getpid()))
    finally:
        os._exit(127)
