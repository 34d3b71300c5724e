"""The generic cell rate algorithm (ITU-T I.371): a token bucket whose whole state is one number for each key.

Runs as: the gateway. Pure; the caller says what time it is, in nanoseconds, so that all arithmetic is exact.
Reads from strangers: keys, which are only compared.

The number is the theoretical arrival time: when the bucket will be full again. A key whose time is over is as good as
forgotten, so keys are forgotten then and never before: a flood of new keys cannot empty a bucket that was used up.
Where there is no room for another key, all new ones share one bucket.
"""

from __future__ import annotations

from dataclasses import dataclass, field

SECOND = 1_000_000_000


@dataclass(frozen=True)
class Rate:
    """`count` in `seconds`, of which `burst` may come at once."""

    count: int
    seconds: int
    burst: int
    interval: int = field(init=False, compare=False)
    """nanoseconds between two, rounded up: never more than `count` in `seconds`"""
    slack: int = field(init=False, compare=False)
    """how far ahead of now a bucket may be full and still have one left"""
    window_seconds: int = field(init=False, compare=False)
    """how long an empty bucket takes to be full"""

    def __post_init__(self) -> None:
        interval = -(-self.seconds * SECOND // self.count)
        for name, value in (
            ("interval", interval),
            ("slack", (self.burst - 1) * interval),
            ("window_seconds", -(-interval * self.burst // SECOND)),
        ):
            object.__setattr__(self, name, value)


class Buckets:
    """One bucket for each key."""

    def __init__(self, keys_max: int) -> None:
        self._keys_max = keys_max
        self._full_at: dict[str, int] = {}
        self._shared = 0

    def __len__(self) -> int:
        return len(self._full_at)

    def wait(self, key: str, rate: Rate, now: int) -> int:
        """Nanoseconds until one may be taken; 0 for now."""
        ahead = self._of(key) - now
        return ahead - rate.slack if ahead > rate.slack else 0

    def take(self, key: str, rate: Rate, now: int) -> None:
        """One less; whether there is one was asked before."""
        full_at = self._of(key)
        full_at = (full_at if full_at > now else now) + rate.interval
        if key not in self._full_at and len(self._full_at) >= self._keys_max and not self._forget(now):
            self._shared = full_at
            return
        # At the end again, so that those that were not used for longest come first.
        self._full_at.pop(key, None)
        self._full_at[key] = full_at

    def left(self, key: str, rate: Rate, now: int) -> tuple[int, int]:
        """(how many may be taken at once, seconds until the bucket is full)."""
        missing = self._of(key) - now
        if missing <= 0:
            return rate.burst, 0
        return (rate.slack + rate.interval - missing) // rate.interval, -(-missing // SECOND)

    def _of(self, key: str) -> int:
        full_at = self._full_at.get(key)
        if full_at is None:
            return self._shared if len(self._full_at) >= self._keys_max else 0
        return full_at

    def _forget(self, now: int) -> bool:
        """Whether there is room now. Looks at some keys only: a call must not pay for all of them."""
        for key in [key for key, _ in zip(self._full_at, range(_LOOKS), strict=False)]:
            full_at = self._full_at.pop(key)
            if full_at > now:
                self._full_at[key] = full_at
        return len(self._full_at) < self._keys_max


_LOOKS = 16
