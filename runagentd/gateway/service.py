"""How long functions take: what decides whether a call that would have to wait can still be of use.

Runs as: the gateway. Pure.
Reads from strangers: tags of the agent's configuration; times that its functions took, which are theirs to choose.
"""

from __future__ import annotations

_GAIN = 1 / 8
_DEVIATION_GAIN = 1 / 4


class ServiceTimes:
    """Smoothed times with their deviation, as TCP estimates a round trip (RFC 6298, section 2)."""

    def __init__(self) -> None:
        self._by_tag: dict[str, tuple[float, float]] = {}
        self._mean: float | None = None

    def took(self, tag: str, seconds: float) -> None:
        """A call of this tag has held a place that long."""
        self._mean = seconds if self._mean is None else self._mean + (seconds - self._mean) * _GAIN
        known = self._by_tag.get(tag)
        if known is None:
            self._by_tag[tag] = (seconds, seconds / 2)
        else:
            mean, deviation = known
            self._by_tag[tag] = (
                mean + (seconds - mean) * _GAIN,
                deviation + (abs(seconds - mean) - deviation) * _DEVIATION_GAIN,
            )

    def least(self, tag: str) -> float:
        """What a call of this tag takes at least, as far as can be said: most take longer. 0.0 where nothing is known.

        The mean less twice the deviation: a call is dropped only where its function would almost surely be cut off.
        """
        mean, deviation = self._by_tag.get(tag, (0.0, 0.0))
        return max(0.0, mean - 2 * deviation)

    def wait(self, ahead: int, places: int) -> float:
        """About how long the call behind `ahead` others waits for one of `places`; 0.0 where nothing is known."""
        return (self._mean or 0.0) * (ahead + 1) / places
