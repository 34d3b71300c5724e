"""Idempotency-Key: a call that was made twice runs once, also where this process is killed in between.

Runs as: the gateway.
Reads from strangers: yes, keys, which are only compared.
Follows draft-ietf-httpapi-idempotency-key-header-07. A key belongs to a caller and a path. It is on the disk before the
runner has the call (`synchronous = FULL`), and what came of the call is beside it afterwards; a key that was running
when this process ended stands for a call of which nobody knows what came of it, and never runs again.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from runagentd import errors
from runagentd.errors import ErrorKind, Refusal
from runagentd.gateway.calls import Call, Mode
from runagentd.gateway.values import Value
from runagentd.log import Log
from runagentd.wire.channel import ValueType

NAME = "idempotency.db"
KEEP_SECONDS = 24 * 3600
OUTCOME_BYTES_MAX = 1024 * 1024
KEYS_MAX = 100_000
KEYS_OF_ONE_MAX = 20_000
BYTES_MAX = 256 * 1024 * 1024
PRUNE_SECONDS = 60.0
_DISCARDED_AT_ONCE = 200

_QUOTED = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\]){16,255})"')  # RFC 9651, section 3.3.3
_BARE = re.compile(r"[!#-~]{16,255}")

RUNNING, DONE, FAILED, UNKNOWN, NOT_STORED = range(5)


class _Stored(msgspec.Struct):
    """The outcome of a call that failed, as the caller was told it."""

    kind: str
    message: str
    hint: str | None
    pointer: str | None
    cause: str | None
    exception_type: str | None
    traceback: str | None


_KINDS: dict[str, ErrorKind] = {name: kind for name, kind in vars(errors).items() if isinstance(kind, ErrorKind)}
_NAMES = {id(kind): name for name, kind in _KINDS.items()}
_VALUES = msgspec.json.Decoder(list[tuple[str, str]])
_FAILURE = msgspec.json.Decoder(_Stored)
_ENCODE = msgspec.json.Encoder().encode


def parse(field: str) -> str:
    """The key in an Idempotency-Key field: a structured string, or its text without quotes, as many clients send it."""
    quoted = _QUOTED.fullmatch(field)
    if quoted is not None:
        return re.sub(r"\\(.)", r"\1", quoted[1])
    if _BARE.fullmatch(field):
        return field
    raise Refusal(
        errors.MALFORMED,
        "Idempotency-Key must be a text of 16 to 255 visible ASCII characters",
        hint='a UUID is a good one: Idempotency-Key: "0d4c7d2e-5a1f-4f0e-9c7b-3a1de0f2b9aa"',
    )


class Entry:
    """A key whose call is about to run, or runs. An observer of its call."""

    def __init__(self, ledger: Ledger, scope: bytes, call_mode: Mode) -> None:
        self._ledger = ledger
        self._scope = scope
        self.detached = call_mode is Mode.SINGLE
        """whether the call goes on where its caller leaves: it can ask again, and has the result then"""
        self._values: list[Value] | None = []
        self._bytes = 0
        self._over = False

    def delivered(self, value: Value) -> None:
        """A result, or a chunk."""
        self._bytes += len(value.body)
        if self._values is None or self._bytes > OUTCOME_BYTES_MAX:
            self._values = None
        else:
            self._values.append(value)

    def ended(self, call: Call, error: Refusal | None) -> None:
        """Nothing more comes."""
        if self._over:
            return
        self._over = True
        if error is None:
            if self._values is None:
                self._ledger.finish(self._scope, NOT_STORED, b"")
            else:
                self._ledger.finish(
                    self._scope, DONE, _ENCODE([(value.type.value, value.body.decode()) for value in self._values])
                )
        elif not call.sent:
            self._ledger.forget(self._scope)
        elif error.kind in (errors.CANCELLED, errors.AUTHENTICATION):
            self._ledger.finish(self._scope, UNKNOWN, b"")
        else:
            self._ledger.finish(self._scope, FAILED, _ENCODE(_failure(error)))

    def forget(self) -> None:
        """The call was refused before any runner had it: the key is as if it was never sent."""
        if not self._over:
            self._over = True
            self._ledger.forget(self._scope)


class Ledger:
    """Every key of the last day, with what came of its call. `clock` gives seconds since the epoch."""

    def __init__(self, folder: Path, log: Log, clock: Callable[[], float] = time.time) -> None:
        self._log = log
        self._clock = clock
        self._pruned = 0.0
        self._count: dict[str, int] = {}
        self._bytes = 0
        try:
            self._database: sqlite3.Connection | None = sqlite3.connect(folder / NAME, isolation_level=None)
            self._database.executescript(
                "PRAGMA journal_mode = WAL;"
                "CREATE TABLE IF NOT EXISTS keys (scope BLOB PRIMARY KEY, principal TEXT NOT NULL,"
                " request BLOB NOT NULL, state INTEGER NOT NULL, outcome BLOB NOT NULL, at INTEGER NOT NULL)"
                " WITHOUT ROWID;"
                "CREATE INDEX IF NOT EXISTS keys_at ON keys (at);"
            )
            self._database.execute("UPDATE keys SET state = ? WHERE state = ?", (UNKNOWN, RUNNING))
            self._recount()
        except sqlite3.Error as error:
            self._database = None
            self._log.error(
                "the database of idempotency keys cannot be used: calls with one are refused", problem=str(error)
            )

    def close(self) -> None:
        if self._database is not None:
            self._database.close()

    def begin(
        self, key: str, *, principal: str, path: str, mode: Mode, request: bytes
    ) -> Entry | list[Value] | Refusal:
        """An entry for a call that is to run now; the values or the refusal of one that ran before.

        `Refusal` is raised where the key is in use, was used for another request, or cannot be written down.
        """
        scope = hashlib.sha256("\0".join((principal, path, key)).encode("utf-8", "surrogatepass")).digest()
        fingerprint = hashlib.sha256(mode.value.encode() + b"\0" + request).digest()
        database = self._usable()
        try:
            self._prune()
            row = database.execute("SELECT request, state, outcome, at FROM keys WHERE scope = ?", (scope,)).fetchone()
            if row is not None and row[3] >= self._clock() - KEEP_SECONDS:
                return _answer(row[0] == fingerprint, row[1], row[2])
            if row is not None:
                self.forget(scope)
            self._make_room(principal)
            # Before the runner has the call, and through every cache down to the disk.
            database.execute("PRAGMA synchronous = FULL")
            database.execute(
                "INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?)",
                (scope, principal, fingerprint, RUNNING, b"", int(self._clock())),
            )
        except sqlite3.Error as error:
            self._log.error("an idempotency key cannot be written down: its call is refused", problem=str(error))
            raise _unusable() from error
        self._count[principal] = self._count.get(principal, 0) + 1
        return Entry(self, scope, mode)

    def finish(self, scope: bytes, state: int, outcome: bytes) -> None:
        """What came of a call. Lost, it would be unknown: that need not wait for the disk."""
        try:
            database = self._usable()
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute("UPDATE keys SET state = ?, outcome = ? WHERE scope = ?", (state, outcome, scope))
            self._bytes += len(outcome)
        except (sqlite3.Error, Refusal) as error:
            self._log.error("what came of an idempotent call cannot be written down", problem=str(error))

    def forget(self, scope: bytes) -> None:
        """The key is free again."""
        try:
            database = self._usable()
            row = database.execute("SELECT principal, length(outcome) FROM keys WHERE scope = ?", (scope,)).fetchone()
            if row is not None:
                database.execute("DELETE FROM keys WHERE scope = ?", (scope,))
                self._less(row[0], row[1])
        except (sqlite3.Error, Refusal) as error:
            self._log.error("an idempotency key cannot be freed", problem=str(error))

    # ---- room

    def _usable(self) -> sqlite3.Connection:
        if self._database is None:
            raise _unusable()
        return self._database

    def _prune(self) -> None:
        now = self._clock()
        if now - self._pruned >= PRUNE_SECONDS:
            self._pruned = now
            self._usable().execute("DELETE FROM keys WHERE at < ? AND state != ?", (int(now) - KEEP_SECONDS, RUNNING))
            self._recount()

    def _make_room(self, principal: str) -> None:
        """The oldest outcomes go first; never a key whose call runs, or of whose call nobody knows."""
        if self._count.get(principal, 0) >= KEYS_OF_ONE_MAX:
            self._discard("principal = ? AND", (principal,))
            if self._count.get(principal, 0) >= KEYS_OF_ONE_MAX:
                raise Refusal(errors.RATE_LIMIT, "too many idempotency keys in a day", retry_after=3600)
        if sum(self._count.values()) >= KEYS_MAX or self._bytes >= BYTES_MAX:
            self._discard("", ())
            if sum(self._count.values()) >= KEYS_MAX or self._bytes >= BYTES_MAX:
                raise Refusal(errors.UNAVAILABLE, "there is no room for more idempotency keys", retry_after=60)

    def _discard(self, which: str, values: tuple[str, ...]) -> None:
        self._usable().execute(
            f"DELETE FROM keys WHERE scope IN (SELECT scope FROM keys WHERE {which} state IN (?, ?, ?)"
            " ORDER BY at LIMIT ?)",
            (*values, DONE, FAILED, NOT_STORED, _DISCARDED_AT_ONCE),
        )
        self._recount()

    def _recount(self) -> None:
        rows = self._usable().execute("SELECT principal, count(*), sum(length(outcome)) FROM keys GROUP BY principal")
        self._count, self._bytes = {}, 0
        for principal, count, size in rows:
            self._count[principal] = count
            self._bytes += size

    def _less(self, principal: str, size: int) -> None:
        self._bytes -= size
        left = self._count.get(principal, 1) - 1
        if left > 0:
            self._count[principal] = left
        else:
            self._count.pop(principal, None)


def _answer(same: bool, state: int, outcome: bytes) -> list[Value] | Refusal:
    if not same:
        raise Refusal(errors.KEY_REUSED, errors.KEY_REUSED.title)
    if state == RUNNING:
        raise Refusal(errors.KEY_IN_PROGRESS, errors.KEY_IN_PROGRESS.title, retry_after=1)
    if state == UNKNOWN:
        raise Refusal(errors.KEY_UNKNOWN, errors.KEY_UNKNOWN.title)
    if state == NOT_STORED:
        raise Refusal(errors.KEY_NOT_STORED, errors.KEY_NOT_STORED.title)
    if state == FAILED:
        failure = _FAILURE.decode(outcome)
        return Refusal(
            _KINDS[failure.kind],
            failure.message,
            hint=failure.hint,
            pointer=failure.pointer,
            cause=failure.cause,
            exception_type=failure.exception_type,
            traceback=failure.traceback,
        )
    return [Value(ValueType(kind), body.encode()) for kind, body in _VALUES.decode(outcome)]


def _failure(refusal: Refusal) -> _Stored:
    return _Stored(
        _NAMES[id(refusal.kind)], refusal.message, refusal.hint, refusal.pointer, refusal.cause,
        refusal.exception_type, refusal.traceback,
    )  # fmt: skip


def _unusable() -> Refusal:
    return Refusal(
        errors.UNAVAILABLE, "idempotency keys cannot be written down at the moment", retry_after=5,
        hint="without Idempotency-Key the call would run, and perhaps twice",
    )  # fmt: skip
