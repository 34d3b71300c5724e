"""Daily quotas that survive a restart: counted in memory, reserved on the disk in blocks.

Runs as: the gateway.
Reads from strangers: nothing; its database is its own.
A block is on the disk before the first call of it is let through, so after any end of this process, or of the machine,
never more calls get through on a day than the quota says: what was left of the block is lost, 5 % of the quota at most.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from runagentd.log import Log

NAME = "quota.db"
BLOCKS = 20
DAY_SECONDS = 86_400
KEYS_MAX = 100_000


class Quotas:
    """Counts for each key and day (UTC). Without a database nothing that has a quota is let through."""

    def __init__(self, folder: Path, log: Log) -> None:
        self._log = log
        self._day = 0
        self._used: dict[str, int] = {}
        self._reserved: dict[str, int] = {}
        try:
            self._database: sqlite3.Connection | None = sqlite3.connect(folder / NAME, isolation_level=None)
            self._database.executescript(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
                "CREATE TABLE IF NOT EXISTS reserved"
                " (key TEXT NOT NULL, day INTEGER NOT NULL, calls INTEGER NOT NULL, PRIMARY KEY (key, day));"
            )
        except sqlite3.Error as error:
            self._failed(error)

    def close(self) -> None:
        if self._database is not None:
            self._database.close()

    def left(self, key: str, daily: int, now: float) -> int:
        """How many calls this key still has today."""
        self._turn(int(now) // DAY_SECONDS)
        if self._database is None:
            return 0
        used = self._used.get(key)
        if used is None:
            if len(self._used) >= KEYS_MAX:
                return 0
            used = self._used[key] = self._reserved[key] = self._stored(key)
        return max(0, daily - used)

    def take(self, key: str, daily: int, now: float) -> bool:
        """One call less; False where there is none left, or it cannot be written down."""
        if self.left(key, daily, now) < 1:
            return False
        used = self._used[key] + 1
        if used > self._reserved[key] and not self._reserve(key, min(daily, used - 1 + max(1, daily // BLOCKS))):
            return False
        self._used[key] = used
        return True

    def _turn(self, day: int) -> None:
        if day == self._day:
            return
        self._day = day
        self._used, self._reserved = {}, {}
        if self._database is not None:
            try:
                self._database.execute("DELETE FROM reserved WHERE day != ?", (day,))
            except sqlite3.Error as error:
                self._failed(error)

    def _stored(self, key: str) -> int:
        if self._database is None:
            return 0
        row = self._database.execute(
            "SELECT calls FROM reserved WHERE key = ? AND day = ?", (key, self._day)
        ).fetchone()
        return 0 if row is None else int(row[0])

    def _reserve(self, key: str, calls: int) -> bool:
        if self._database is None:
            return False
        try:
            self._database.execute("INSERT OR REPLACE INTO reserved VALUES (?, ?, ?)", (key, self._day, calls))
        except sqlite3.Error as error:
            # A full disk passes; the next call tries again.
            self._log.error("a daily quota cannot be written down: calls under it are refused", problem=str(error))
            return False
        self._reserved[key] = calls
        return True

    def _failed(self, error: sqlite3.Error) -> None:
        self._database = None
        self._log.error("the database of daily quotas cannot be used: calls under one are refused", problem=str(error))
