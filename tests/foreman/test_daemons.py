"""How long a daemon that has ended is waited for."""

from __future__ import annotations

from runagentd.foreman.daemons import Daemon


def test_one_that_ends_again_and_again_is_started_ever_later_and_for_ever() -> None:
    """Also after a thousand times, which are some hours."""
    daemon = Daemon("gateway", lambda first: [], {})
    delays = []
    for _ in range(2000):
        daemon.started = float("inf")  # it has only just been
        delays.append(daemon.ended())
    assert delays[:8] == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0]
    assert set(delays[8:]) == {5.0}
