"""Records of calls as lines of the log; refusals only so many, since whoever can connect can have them by the thousand.

Runs as: the gateway.
Reads from strangers: nothing; the log escapes what strangers chose.
Measured before there was a bound: one client without a token wrote 745 kB a second, 64 GB on a day.
"""

from __future__ import annotations

import asyncio
import time

from runagentd import errors
from runagentd.gateway.guard.gcra import Buckets, Rate
from runagentd.gateway.requests import CallRecord
from runagentd.log import Level, Log

OF_ONE_PEER = Rate(10, 1, 200)
OF_ALL = Rate(100, 1, 500)
"""Lines about calls that no runner got, in a second, and at once."""
PEERS_MAX = 4096
SUMMARY_SECONDS = 10.0


class CallLog:
    """The one sink of call records: until there is an audit, the log."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._lines = Buckets(PEERS_MAX)
        self._left_out: dict[str, int] = {}
        self._summary: asyncio.TimerHandle | None = None

    def write(self, record: CallRecord) -> None:
        """A line, or one more of those that the next summary counts."""
        if record.outcome == "OK" and self._log.level > Level.DEBUG:
            return
        if record.instance is None and record.outcome != "OK" and not self._has_room(record.peer):
            self._left_out[record.outcome] = self._left_out.get(record.outcome, 0) + 1
            if self._summary is None:
                self._summary = asyncio.get_running_loop().call_later(SUMMARY_SECONDS, self.summarise)
            return
        write = self._log.debug if record.outcome == "OK" else self._log.info
        write(
            "call",
            request=record.request_id,
            trace=record.trace.id,
            door=record.door,
            agent=record.agent,
            tag=record.tag,
            subject=record.subject,
            peer=record.peer,
            outcome=record.outcome,
            cause=record.cause,
            # Else an operator who has set up an issuer wrongly would see that nobody comes in, and not why.
            problem=record.detail if record.outcome == errors.AUTHENTICATION.code else None,
            instance=record.instance,
            seconds=record.seconds,
            queue_seconds=record.queue_seconds,
            result_bytes=record.result_bytes,
            chunks=record.chunks,
        )

    def summarise(self) -> None:
        """Say how many were left out since it was said last."""
        if self._summary is not None:
            self._summary.cancel()
            self._summary = None
        if self._left_out:
            left_out, self._left_out = self._left_out, {}
            self._log.warning("refused calls that were not logged one by one", **left_out)

    def _has_room(self, peer: str) -> bool:
        now = time.monotonic_ns()
        # A peer is an address, so no peer is called like the key for all of them.
        buckets = ((f"peer {peer}", OF_ONE_PEER), ("all", OF_ALL))
        if any(self._lines.wait(key, rate, now) for key, rate in buckets):
            return False
        for key, rate in buckets:
            self._lines.take(key, rate, now)
        return True
