"""What was said, in one SQLite file that outlives the process."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

_SCHEMA = """
create table if not exists lines (
    id           integer primary key,
    conversation text not null,
    speaker      text not null,
    text         text not null,
    said_at      real not null
);
create index if not exists lines_by_conversation on lines (conversation, id);
"""


@dataclass(frozen=True)
class Line:
    """One thing that somebody said."""

    speaker: str
    text: str
    said_at: float


class Memory:
    """The conversations of one folder. Use it in a `with` block: leaving it saves, an exception discards."""

    def __init__(self, folder: str) -> None:
        Path(folder).mkdir(exist_ok=True)
        self._database = sqlite3.connect(Path(folder) / "conversations.sqlite")
        self._database.executescript(_SCHEMA)

    def __enter__(self) -> Memory:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self._database.commit()
        self._database.close()

    def add(self, conversation: str, speaker: str, text: str) -> None:
        self._database.execute(
            "insert into lines (conversation, speaker, text, said_at) values (?, ?, ?, ?)",
            (conversation, speaker, text, time.time()),
        )

    def conversation(self, conversation: str) -> list[Line]:
        return self.last(conversation, limit=10_000)

    def last(self, conversation: str, limit: int) -> list[Line]:
        rows = self._database.execute(
            "select speaker, text, said_at from lines where conversation = ? order by id desc limit ?",
            (conversation, max(limit, 0)),
        )
        return [Line(*row) for row in reversed(rows.fetchall())]

    def forget(self, conversation: str) -> int:
        return self._database.execute("delete from lines where conversation = ?", (conversation,)).rowcount
