"""Invocation history: every call of the last days, refused ones too, each found again by its id.

Runs as: the gateway.
Reads from strangers: nothing; `invocation` has cut what callers chose.

Calls are written in batches, and each is made ready when it ends: what is done for a whole batch at once holds up every
call that is under way. Those of a batch that share agent and principal are one row, a part: a row for each call,
with its entry in an index of random ids, took 10 µs, and 4 to 6 with one that was cut into pieces; a call's share of a
part takes 2 to 3, checkpoints included (measured 2026-11-28). A part's ids are a text to search in, for nobody else's
calls are ever in it; what is to be known of a part without reading it comes before its texts, which lie on overflow
pages.

`synchronous = NORMAL`: after any end of this process all that was written is there; after a crash of the machine the
database is whole, and calls since the last checkpoint may be missing. To wait for the disk at each batch would cost
more than the calls in it do. A disk that fails costs history and never a call.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from runagentd import errors
from runagentd.errors import Refusal
from runagentd.gateway.kept.invocation import GOOD, Contents, Kept, Row, Status, row_of, text
from runagentd.gateway.requests import CallRecord
from runagentd.gateway.timers import Later, Timer
from runagentd.log import Log

NAME = "history.db"
BATCH_CALLS = 250
BATCH_SECONDS = 0.25
BATCH_BYTES = 256 * 1024
"""Of contents: a larger batch would hold the event loop up for milliseconds."""
WAITING_CALLS_MAX = 2000
WAITING_BYTES_MAX = 4 * 1024 * 1024
"""What waits for a disk that fails; beyond it the oldest are lost."""
RETRY_SECONDS = 5.0
PRUNE_SECONDS = 60.0
STEP_SECONDS = 0.01
STEP_BYTES = 256 * 1024
STEP_PARTS = 16
STEP_PAGES = 64
SLICE = 16
"""Parts that are read in one turn of the event loop."""
CHECKPOINT_PAGES = 256
SCOPES_REMEMBERED_MAX = 4096
PLACES = 4096
"""More than there are calls in a part, so that a part and a place in it are one number."""
NEWEST = 2**62
ID_CHARACTERS_MIN = 26
"""An id is a UUID or a ULID."""

_FORM = (
    "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;"
    f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES};"
    # Who has called what, with the sums of all its parts.
    "CREATE TABLE IF NOT EXISTS scopes (id INTEGER PRIMARY KEY, principal TEXT NOT NULL, agent TEXT NOT NULL,"
    " subject TEXT NOT NULL, completed INTEGER NOT NULL, failed INTEGER NOT NULL, micros INTEGER NOT NULL,"
    " bytes INTEGER NOT NULL, UNIQUE (principal, agent));"
    "CREATE INDEX IF NOT EXISTS scopes_agent ON scopes (agent);"
    "CREATE INDEX IF NOT EXISTS scopes_bytes ON scopes (bytes);"
    "CREATE TABLE IF NOT EXISTS parts (seq INTEGER PRIMARY KEY, scope INTEGER NOT NULL, until INTEGER NOT NULL,"
    " completed INTEGER NOT NULL, failed INTEGER NOT NULL, micros INTEGER NOT NULL, bytes INTEGER NOT NULL,"
    " ids TEXT NOT NULL, rows BLOB NOT NULL);"
    "CREATE INDEX IF NOT EXISTS parts_scope ON parts (scope);"
    "CREATE TABLE IF NOT EXISTS contents (part INTEGER NOT NULL, place INTEGER NOT NULL, input BLOB, output BLOB,"
    " PRIMARY KEY (part, place)) WITHOUT ROWID;"
)
_ENCODE = msgspec.json.Encoder().encode
_ROWS = msgspec.json.Decoder(list[Row])

Scope = tuple[str, str]
"""The digest of a principal and the id of an agent; empty where there was none."""


class Totals(msgspec.Struct, frozen=True):
    """Of calls that have ended. `micros` is what the completed ones took."""

    completed: int
    failed: int
    micros: int


class _Ended(msgspec.Struct, frozen=True):
    """One call, ready to be written."""

    scope: Scope
    subject: str
    id: str
    good: bool
    micros: int
    row: bytes
    """a `Row`"""
    contents: Contents | None


class _Part(msgspec.Struct, frozen=True):
    """What is known of a part without reading its calls."""

    seq: int
    scope: int
    until: int
    completed: int
    failed: int
    micros: int
    bytes: int


_PART = "seq, scope, until, completed, failed, micros, bytes"


class History:
    """The calls of the last `keep_seconds`, in about `bytes_max` bytes; none, where one of them is 0.

    Where there are too many, whoever fills most of it loses the oldest first: nobody can push out what others did, and
    least of all who was never let in. `later` is the event loop's `call_later`, `clock` gives seconds since the epoch.
    """

    def __init__(
        self,
        folder: Path,
        log: Log,
        *,
        keep_seconds: int,
        bytes_max: int,
        later: Later,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = folder / NAME
        self._log = log
        self._later = later
        self._clock = clock
        self._keep = keep_seconds
        self._bytes_max = bytes_max
        self._waiting: deque[_Ended] = deque()
        self._waiting_bytes = 0
        self._scopes: dict[Scope, int] = {}
        self._failing = False
        self.lost = 0
        """calls that a failing disk has cost since this process began"""
        self._timer: Timer | None = None
        self._database: sqlite3.Connection | None = None
        self._open()
        self._pruning = later(PRUNE_SECONDS, self._prune)

    @property
    def on(self) -> bool:
        """Whether anything is kept."""
        return bool(self._keep and self._bytes_max)

    def configure(self, *, keep_seconds: int, bytes_max: int) -> None:
        """Other bounds; what is beyond them goes bit by bit, and all at once where nothing is to be kept."""
        self.flush()
        self._keep, self._bytes_max = keep_seconds, bytes_max
        if not self.on or self._database is None:
            self._disconnect()
            self._open()
        self._prune_in(STEP_SECONDS)

    def close(self) -> None:
        """Write what waits, and end."""
        self.flush()
        self._keep = 0
        self._pruning.cancel()
        if self._timer is not None:
            self._timer.cancel()
        self._disconnect()

    # ---- in

    def add(self, record: CallRecord, contents: Contents | None) -> None:
        """One call that has ended."""
        if not self.on:
            return
        row = row_of(record, contents=contents is not None)
        # By position, as on the way of every call.
        self._waiting.append(
            _Ended(
                (record.principal or "", record.agent or ""),
                record.subject or "",
                record.request_id,
                row.outcome == GOOD,
                row.micros,
                _ENCODE(row),
                contents,
            )
        )
        if contents is not None:
            self._waiting_bytes += contents.size
        if self._failing:
            self._lose_the_oldest()
        elif len(self._waiting) >= BATCH_CALLS or self._waiting_bytes >= BATCH_BYTES:
            self.flush()
        elif self._timer is None:
            self._timer = self._later(BATCH_SECONDS, self._due)

    def flush(self) -> None:
        """Write what waits; where that fails, try again in some seconds."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._waiting:
            return
        try:
            if self._database is None:
                self._connect()
            with self._transaction() as database:
                self._write(database)
            crowded = self._crowded(database)
        except sqlite3.Error as error:
            self._failed(error)
            return
        self._waiting.clear()
        self._waiting_bytes = 0
        if self._failing:
            self._failing = False
            self._log.info("the history of calls is written down again", lost=self.lost)
        if crowded:
            self._prune_in(STEP_SECONDS)

    def _due(self) -> None:
        self._timer = None
        self.flush()

    def _write(self, database: sqlite3.Connection) -> None:
        parts, sums, contents = [], [], []
        now = int(self._clock() * 1e6)
        # Asked each time: a gateway whose foreman was killed may still write its last calls beside us.
        seq = int(database.execute("SELECT max(seq) FROM parts").fetchone()[0] or 0)
        for scope, calls in _by_scope(self._waiting).items():
            ids = " ".join([call.id for call in calls])
            rows = b"[%b]" % b",".join([call.row for call in calls])
            took = [call.micros for call in calls if call.good]
            seq += 1
            kept = [
                (seq, place, call.contents.input, call.contents.output())
                for place, call in enumerate(calls)
                if call.contents is not None
            ]
            size = len(ids) + len(rows) + sum(len(given) + len(came or b"") for *_, given, came in kept)
            sum_ = (len(took), len(calls) - len(took), sum(took), size)
            number = self._number(database, scope, calls[0].subject)
            parts.append((seq, number, now, *sum_, ids, rows))
            sums.append((*sum_, number))
            contents += kept
        database.executemany("INSERT INTO parts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", parts)
        database.executemany(
            "UPDATE scopes SET completed = completed + ?, failed = failed + ?, micros = micros + ?, bytes = bytes + ?"
            " WHERE id = ?",
            sums,
        )
        if contents:
            database.executemany("INSERT INTO contents VALUES (?, ?, ?, ?)", contents)

    def _number(self, database: sqlite3.Connection, scope: Scope, subject: str) -> int:
        known = self._scopes.get(scope)
        if known is not None:
            return known
        row = database.execute("SELECT id FROM scopes WHERE principal = ? AND agent = ?", scope).fetchone()
        if row is None:
            made = database.execute("INSERT INTO scopes VALUES (NULL, ?, ?, ?, 0, 0, 0, 0)", (*scope, text(subject)))
            row = (made.lastrowid,)
        if len(self._scopes) >= SCOPES_REMEMBERED_MAX:
            self._scopes.clear()
        number = self._scopes[scope] = int(row[0])
        return number

    # ---- out

    def totals(self, agent: str, principal: str | None) -> Totals:
        """Of one principal's calls of an agent, or of everybody's."""
        query = "SELECT sum(completed), sum(failed), sum(micros) FROM scopes WHERE agent = ?"
        with self._reading() as database:
            if database is None:
                return Totals(0, 0, 0)
            if principal is None:
                row = database.execute(query, (agent,)).fetchone()
            else:
                row = database.execute(f"{query} AND principal = ?", (agent, principal)).fetchone()
        return Totals(*(number or 0 for number in row))

    async def find(self, request_id: str, agents: frozenset[str], principal: str | None) -> Kept | None:
        """The last call of this id, of these agents, of one principal or of anybody."""
        with self._reading() as database:
            if database is None or len(request_id) < ID_CHARACTERS_MIN:
                return None  # a shorter text would be found in most parts, and be no id in any
            for looked_at, (part, agent, subject) in enumerate(self._parts(agents, principal)):
                if looked_at % SLICE == SLICE - 1:
                    await asyncio.sleep(0)
                query = "SELECT instr(ids, ?) FROM parts WHERE seq = ?"
                found = database.execute(query, (request_id, part.seq)).fetchone()
                if found is not None and found[0]:
                    for place, kept in reversed(self._read(database, part, agent, subject)):
                        if kept.id == request_id:
                            return self._with_contents(database, part.seq, place, kept)
        return None

    async def recent(
        self,
        agents: frozenset[str] | None,
        principal: str | None,
        *,
        status: Status | None,
        limit: int,
        since: float = 0.0,
        before: int = NEWEST,
        contents: bool = False,
    ) -> list[tuple[int, Kept]]:
        """Calls of these agents or of all, of one principal or of everybody, the last one first; each with its place.

        None is older than `since`, seconds since the epoch, or at or after the place `before`.
        """
        found: list[tuple[int, Kept]] = []
        oldest = int(since * 1e6)
        with self._reading() as database:
            if database is None:
                return []
            for looked_at, (part, agent, subject) in enumerate(self._parts(agents, principal, before // PLACES + 1)):
                if looked_at % SLICE == SLICE - 1:
                    await asyncio.sleep(0)
                if part.until < oldest:
                    break
                if status is not None and not (part.completed if status is Status.COMPLETED else part.failed):
                    continue
                for place, kept in reversed(self._read(database, part, agent, subject)):
                    where = part.seq * PLACES + place
                    if where >= before or kept.row.at < oldest or status not in (None, kept.status):
                        continue
                    if contents:
                        kept = self._with_contents(database, part.seq, place, kept)
                    found.append((where, kept))
                    if len(found) >= limit:
                        return found
        return found

    def _parts(
        self, agents: frozenset[str] | None, principal: str | None, end: int = NEWEST
    ) -> Iterator[tuple[_Part, str, str]]:
        """Parts, each with its agent and subject; per principal and agent, or of all together, the last one first.

        Read as they are asked for, some at a time: between two of them the database may change.
        """
        database = self._database
        if database is None:
            return
        if principal is not None:
            query = "SELECT id, agent, subject FROM scopes WHERE principal = ?"
            for number, agent, subject in database.execute(query, (principal,)).fetchall():
                if agents is None or agent in agents:
                    for part in _slices(database, "scope = ? AND", (number,), end):
                        yield part, agent, subject
            return
        named: dict[int, tuple[str, str]] = {}
        for part in _slices(database, "", (), end):
            if part.scope not in named:
                query = "SELECT agent, subject FROM scopes WHERE id = ?"
                named[part.scope] = database.execute(query, (part.scope,)).fetchone() or ("", "")
            agent, subject = named[part.scope]
            if agents is None or agent in agents:
                yield part, agent, subject

    def _read(self, database: sqlite3.Connection, part: _Part, agent: str, subject: str) -> list[tuple[int, Kept]]:
        row = database.execute("SELECT ids, rows FROM parts WHERE seq = ?", (part.seq,)).fetchone()
        if row is None:
            return []  # pruned since
        return [
            (place, Kept(request_id, agent, subject, facts))
            for place, (request_id, facts) in enumerate(zip(row[0].split(" "), _ROWS.decode(row[1]), strict=True))
        ]

    def _with_contents(self, database: sqlite3.Connection, part: int, place: int, kept: Kept) -> Kept:
        if not kept.row.contents:
            return kept
        query = "SELECT input, output FROM contents WHERE part = ? AND place = ?"
        row = database.execute(query, (part, place)).fetchone()
        return kept if row is None else msgspec.structs.replace(kept, input=row[0], output=row[1])

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection | None]:
        """All calls that have ended are there to be read; None where nothing is kept. `Refusal` where it cannot be."""
        self.flush()
        if self.on and self._database is None:
            raise _unreadable()
        try:
            yield self._database
        except (sqlite3.Error, msgspec.MsgspecError) as error:
            self._log.error("the history of calls cannot be read", problem=str(error))
            raise _unreadable() from error

    # ---- room

    def _prune_in(self, seconds: float) -> None:
        self._pruning.cancel()
        self._pruning = self._later(seconds, self._prune)

    def _prune(self) -> None:
        """One step, and the next one soon where there is more to do."""
        try:
            again = self._database is not None and self._step(self._database)
        except sqlite3.Error as error:
            self._failed(error)
            again = False
        self._prune_in(STEP_SECONDS if again else PRUNE_SECONDS)

    def _step(self, database: sqlite3.Connection) -> bool:
        """Whether anything had to go."""
        doomed = self._doomed(database)
        if doomed:
            with self._transaction():
                for part in doomed:
                    self._delete(database, part)
            return True
        free, size = _number(database, "freelist_count"), _number(database, "page_count")
        if free and size * _number(database, "page_size") > self._bytes_max:
            # A smaller size was configured: what is free within the file goes back to the disk, bit by bit, too.
            database.execute(f"PRAGMA incremental_vacuum({STEP_PAGES})").fetchall()
            return True
        return False

    def _doomed(self, database: sqlite3.Connection) -> list[_Part]:
        """Some parts that are too old, or else the oldest of whoever fills most, where it is crowded."""
        too_old = int((self._clock() - self._keep) * 1e6)
        query = f"SELECT {_PART} FROM parts ORDER BY seq LIMIT {STEP_PARTS}"
        found = list(itertools.takewhile(lambda part: part.until < too_old, _all(database.execute(query))))
        if not found and self._crowded(database):
            query = (
                f"SELECT {_PART} FROM parts WHERE scope = (SELECT id FROM scopes ORDER BY bytes DESC LIMIT 1)"
                f" ORDER BY seq LIMIT {STEP_PARTS}"
            )
            found = _all(database.execute(query))
        sizes = itertools.accumulate((part.bytes for part in found), initial=0)
        return [part for part, before in zip(found, sizes, strict=False) if before < STEP_BYTES]

    def _delete(self, database: sqlite3.Connection, part: _Part) -> None:
        database.execute("DELETE FROM contents WHERE part = ?", (part.seq,))
        database.execute("DELETE FROM parts WHERE seq = ?", (part.seq,))
        database.execute(
            "UPDATE scopes SET completed = completed - ?, failed = failed - ?, micros = micros - ?, bytes = bytes - ?"
            " WHERE id = ?",
            (part.completed, part.failed, part.micros, part.bytes, part.scope),
        )
        empty = "SELECT principal, agent FROM scopes WHERE id = ? AND completed + failed = 0"
        scope = database.execute(empty, (part.scope,)).fetchone()
        if scope is not None:
            database.execute("DELETE FROM scopes WHERE id = ?", (part.scope,))
            self._scopes.pop(scope, None)

    def _crowded(self, database: sqlite3.Connection) -> bool:
        pages = _number(database, "page_count") - _number(database, "freelist_count")
        return pages * _number(database, "page_size") > self._bytes_max

    # ---- the disk

    def _open(self) -> None:
        try:
            if self.on:
                self._connect()
            else:
                self._remove()
        except (sqlite3.Error, OSError) as error:
            self._failed(error)

    def _connect(self) -> None:
        database = sqlite3.connect(self._path, isolation_level=None)
        try:
            database.executescript(_FORM)
        except sqlite3.Error:
            database.close()
            raise
        self._database = database

    def _disconnect(self) -> None:
        self._scopes.clear()
        if self._database is not None:
            self._database.close()
            self._database = None

    def _remove(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            self._path.with_name(NAME + suffix).unlink(missing_ok=True)

    def _failed(self, error: Exception) -> None:
        """History waits; said once, until it works again."""
        self._scopes.clear()
        if type(error) is sqlite3.DatabaseError:
            # Not a database, or not a whole one (SQLITE_NOTADB, SQLITE_CORRUPT): no later attempt can be better.
            self._log.error("the history of calls is damaged: it begins anew", problem=str(error))
            self._disconnect()
            with contextlib.suppress(OSError):
                self._remove()
        elif not self._failing:
            self._log.error("the history of calls cannot be written down: calls go on", problem=str(error))
        self._failing = True
        self._lose_the_oldest()
        if self._timer is None and self.on:
            self._timer = self._later(RETRY_SECONDS, self._due)

    def _lose_the_oldest(self) -> None:
        while len(self._waiting) > WAITING_CALLS_MAX or self._waiting_bytes > WAITING_BYTES_MAX:
            contents = self._waiting.popleft().contents
            self._waiting_bytes -= contents.size if contents is not None else 0
            self.lost += 1

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing."""
        database = self._database
        if database is None:
            raise sqlite3.OperationalError("the database is not open")
        database.execute("BEGIN IMMEDIATE")
        try:
            yield database
            database.execute("COMMIT")
        except sqlite3.Error:
            with contextlib.suppress(sqlite3.Error):
                database.execute("ROLLBACK")
            raise


def _by_scope(calls: Iterable[_Ended]) -> dict[Scope, list[_Ended]]:
    found: dict[Scope, list[_Ended]] = {}
    for call in calls:
        if call.scope in found:
            found[call.scope].append(call)
        else:
            found[call.scope] = [call]
    return found


def _slices(database: sqlite3.Connection, which: str, values: tuple[int, ...], end: int) -> Iterator[_Part]:
    query = f"SELECT {_PART} FROM parts WHERE {which} seq < ? ORDER BY seq DESC LIMIT {SLICE}"
    while parts := _all(database.execute(query, (*values, end))):
        yield from parts
        end = parts[-1].seq


def _all(cursor: sqlite3.Cursor) -> list[_Part]:
    return [_Part(*row) for row in cursor.fetchall()]


def _number(database: sqlite3.Connection, pragma: str) -> int:
    return int(database.execute(f"PRAGMA {pragma}").fetchone()[0])


def _unreadable() -> Refusal:
    return Refusal(errors.UNAVAILABLE, "the history of calls cannot be read at the moment", retry_after=5)
