"""What an installation believes and what it has revoked, on the disk: one SQLite file beside the private keys.

Runs as: root: runagentctl and the foreman write, the supervisor reads (and notes when API keys were used).
Reads from strangers: nothing; the directory is 0700 and root's.
Every change takes the next epoch and stamps its rows with it, in one transaction that is on the disk when the call
returns; so a reader that knows an epoch can ask for what came since. No private key is in here: see `signing`.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from runagentd.errors import HostError
from runagentd.state import make_database
from runagentd.wire import control
from runagentd.wire.trust import ApiKey, ApiKeySecret, PublicKey, SubjectRevoked

NAME = "trust.db"
API_KEYS_MAX = 10_000
REVOCATIONS_MAX = 10_000
TOKEN_SECONDS_MAX = 7 * 24 * 3600
"""No token lives longer; the gateway refuses those that say so."""
SKEW_SECONDS = 30
"""How far two clocks may be apart, both ways."""

NEXT, ACTIVE, RETIRED = "next", "active", "retired"
"""What a signing key is: published and not used yet; signing; not signing and still believed for a while."""

_SCHEMA = """
CREATE TABLE epoch (value INTEGER NOT NULL);
INSERT INTO epoch VALUES (0);
CREATE TABLE signing_keys (
    id TEXT PRIMARY KEY, public BLOB NOT NULL, state TEXT NOT NULL, made INTEGER NOT NULL,
    activated INTEGER NOT NULL DEFAULT 0, retired INTEGER NOT NULL DEFAULT 0, until INTEGER NOT NULL DEFAULT 0);
CREATE TABLE api_keys (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, subject TEXT NOT NULL, tenant TEXT, scopes TEXT NOT NULL,
    created INTEGER NOT NULL, expires INTEGER NOT NULL, addresses TEXT NOT NULL,
    revoked INTEGER NOT NULL DEFAULT 0, used INTEGER NOT NULL DEFAULT 0, changed INTEGER NOT NULL);
CREATE TABLE api_key_secrets (
    api_key TEXT NOT NULL REFERENCES api_keys (id), digest BLOB NOT NULL,
    made INTEGER NOT NULL, until INTEGER NOT NULL);
CREATE TABLE revoked_ids (id TEXT PRIMARY KEY, until INTEGER NOT NULL, changed INTEGER NOT NULL);
CREATE TABLE revoked_subjects (subject TEXT PRIMARY KEY, before INTEGER NOT NULL, changed INTEGER NOT NULL);
PRAGMA user_version = 1;
"""
_EVERYBODY = ""
"""The subject under which "all that was issued before" stands; no real one is empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKeyRow:
    """A signing key's public half and its history; times are seconds since the epoch, 0 where there is none."""

    id: str
    public: bytes
    state: str
    made: int
    activated: int
    retired: int
    until: int
    """a retired key is believed until then"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeyRow:
    """An API key as its operator sees it."""

    key: ApiKey
    name: str
    revoked: int
    used: int
    """to the minute; 0 is never"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What is to be told to a gateway that knows an earlier epoch."""

    epoch: int
    signing_keys: tuple[PublicKey, ...]
    """always all of them"""
    known: tuple[ApiKey, ...]
    gone: tuple[str, ...]
    revoked_ids: tuple[str, ...]
    revoked_subjects: tuple[SubjectRevoked, ...]
    revoked_before: int

    def messages(self) -> Iterator[control.FromSupervisor]:
        """All of it for a gateway, the message that makes it complete at the end."""
        yield control.TrustedKeys(keys=self.signing_keys)
        for keys in _pieces(self.known):
            yield control.ApiKeysKnown(keys=keys)
        for ids in _pieces(self.gone):
            yield control.ApiKeysGone(ids=ids)
        if self.revoked_before:
            yield control.Revoked(token_ids=(), subjects=(), before=self.revoked_before)
        for token_ids in _pieces(self.revoked_ids):
            yield control.Revoked(token_ids=token_ids, subjects=(), before=0)
        for subjects in _pieces(self.revoked_subjects):
            yield control.Revoked(token_ids=(), subjects=subjects, before=0)
        yield control.TrustTold(epoch=self.epoch)


_T = TypeVar("_T")


def _pieces(rows: tuple[_T, ...]) -> Iterator[tuple[_T, ...]]:
    for first in range(0, len(rows), control.TRUST_ROWS_MAX):
        yield rows[first : first + control.TRUST_ROWS_MAX]


class TrustStore:
    """One connection to the file. Not for several threads at once."""

    def __init__(self, directory: Path) -> None:
        """Open, or make the file in a directory that exists. HostError where it cannot be used."""
        path = directory / NAME
        try:
            make_database(path)
            self._database = sqlite3.connect(path, isolation_level=None, timeout=5.0)
            self._database.executescript(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;"
            )
            with self._transaction():
                if self._one("PRAGMA user_version") == 0:
                    for statement in _SCHEMA.split(";\n"):
                        self._database.execute(statement)
        except (OSError, sqlite3.Error) as error:
            raise HostError(f"{path} cannot be used: {error}") from error

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def __enter__(self) -> TrustStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        # IMMEDIATE: whoever reads first and writes later could otherwise meet a second writer in between.
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    def _one(self, query: str, values: tuple[object, ...] = ()) -> int:
        row = self._database.execute(query, values).fetchone()
        return int(row[0])

    def _next_epoch(self) -> int:
        self._database.execute("UPDATE epoch SET value = value + 1")
        return self.epoch()

    def epoch(self) -> int:
        """How many changes there have been."""
        return self._one("SELECT value FROM epoch")

    # ---- signing keys

    def signing_keys(self) -> list[SigningKeyRow]:
        """All that may be believed: next, active, then retired ones, the youngest first."""
        rows = self._database.execute(
            "SELECT id, public, state, made, activated, retired, until FROM signing_keys"
            " WHERE state != ? OR until > ? ORDER BY state = 'retired', state = 'active', retired DESC, rowid",
            (RETIRED, int(time.time())),
        ).fetchall()
        return [
            SigningKeyRow(
                id=row[0], public=row[1], state=row[2], made=row[3], activated=row[4], retired=row[5], until=row[6]
            )
            for row in rows
        ]

    def set_signing_keys(self, rows: Iterable[SigningKeyRow]) -> None:
        """These and no others, from now on."""
        with self._transaction():
            self._next_epoch()
            self._database.execute("DELETE FROM signing_keys")
            self._database.executemany(
                "INSERT INTO signing_keys VALUES (?, ?, ?, ?, ?, ?, ?)",
                [(row.id, row.public, row.state, row.made, row.activated, row.retired, row.until) for row in rows],
            )

    # ---- API keys

    def api_keys(self) -> list[ApiKeyRow]:
        """All of them, the oldest first."""
        return self._api_keys("1", ())

    def api_key(self, identity: str) -> ApiKeyRow | None:
        """The one with this id."""
        return next(iter(self._api_keys("id = ?", (identity,))), None)

    def _api_keys(self, which: str, values: tuple[object, ...]) -> list[ApiKeyRow]:
        now = int(time.time())
        secrets: dict[str, list[ApiKeySecret]] = {}
        for identity, digest, until in self._database.execute(
            "SELECT api_key, digest, until FROM api_key_secrets WHERE (until = 0 OR until > ?)"
            # `which` is one of ours, see the callers.
            f" AND api_key IN (SELECT id FROM api_keys WHERE {which}) ORDER BY made DESC",
            (now, *values),
        ):
            secrets.setdefault(identity, []).append(ApiKeySecret(digest=digest, until=until))
        rows = self._database.execute(
            "SELECT id, subject, tenant, scopes, created, expires, addresses, name, revoked, used FROM api_keys"
            f" WHERE {which} ORDER BY created, id",
            values,
        ).fetchall()
        return [
            ApiKeyRow(
                key=ApiKey(
                    id=row[0],
                    subject=row[1],
                    tenant=row[2],
                    scopes=tuple(row[3].split()),
                    created=row[4],
                    expires=row[5],
                    addresses=tuple(row[6].split()),
                    secrets=tuple(secrets.get(row[0], ())),
                ),
                name=row[7],
                revoked=row[8],
                used=row[9],
            )
            for row in rows
        ]

    def add_api_key(self, key: ApiKey, name: str) -> None:
        """HostError where there are too many."""
        with self._transaction():
            if self._one("SELECT count(*) FROM api_keys WHERE revoked = 0") >= API_KEYS_MAX:
                raise HostError(f"there are {API_KEYS_MAX} API keys already", "revoke those that nobody uses")
            self._database.execute(
                "INSERT INTO api_keys (id, name, subject, tenant, scopes, created, expires, addresses, changed)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    key.id,
                    name,
                    key.subject,
                    key.tenant,
                    " ".join(key.scopes),
                    key.created,
                    key.expires,
                    " ".join(key.addresses),
                    self._next_epoch(),
                ),
            )
            for secret in key.secrets:
                self._add_secret(key.id, secret.digest)

    def _add_secret(self, identity: str, digest: bytes) -> None:
        self._database.execute("INSERT INTO api_key_secrets VALUES (?, ?, ?, 0)", (identity, digest, time.time_ns()))

    def rotate_api_key(self, identity: str, digest: bytes, *, overlap_seconds: int) -> None:
        """From now on this secret; the one before is good for the overlap, and any older one no more."""
        until = int(time.time()) + overlap_seconds
        with self._transaction():
            self._database.execute("DELETE FROM api_key_secrets WHERE api_key = ? AND until != 0", (identity,))
            if overlap_seconds:
                self._database.execute("UPDATE api_key_secrets SET until = ? WHERE api_key = ?", (until, identity))
            else:
                self._database.execute("DELETE FROM api_key_secrets WHERE api_key = ?", (identity,))
            self._add_secret(identity, digest)
            self._database.execute("UPDATE api_keys SET changed = ? WHERE id = ?", (self._next_epoch(), identity))

    def revoke_api_key(self, identity: str) -> None:
        """For good."""
        with self._transaction():
            self._revoke_api_keys("id = ?", (identity,), self._next_epoch())

    def _revoke_api_keys(self, which: str, values: tuple[object, ...], epoch: int) -> None:
        self._database.execute(
            f"UPDATE api_keys SET revoked = ?, changed = ? WHERE revoked = 0 AND {which}",
            (int(time.time()), epoch, *values),
        )

    def note_api_keys_used(self, identities: Iterable[str], now: float) -> None:
        """When keys were last used; no change that anybody has to be told."""
        minute = int(now) // 60 * 60
        with self._transaction():
            self._database.executemany(
                "UPDATE api_keys SET used = ? WHERE id = ? AND used < ?",
                [(minute, identity, minute) for identity in identities],
            )

    # ---- revocations

    def revoke_id(self, identity: str, *, until: int) -> None:
        """A token or a certificate, remembered until it has expired anyway (0: for ever)."""
        now = int(time.time())
        with self._transaction():
            self._database.execute("DELETE FROM revoked_ids WHERE until != 0 AND until < ?", (now,))
            if self._one("SELECT count(*) FROM revoked_ids") >= REVOCATIONS_MAX:
                raise HostError(
                    f"{REVOCATIONS_MAX} tokens are revoked already",
                    "revoke by --subject or --before, or end all tokens: 'runagentctl signing-key rotate --drop'",
                )
            self._database.execute(
                "INSERT INTO revoked_ids VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET changed = excluded.changed,"
                " until = CASE WHEN revoked_ids.until = 0 OR excluded.until = 0 THEN 0"
                " ELSE max(revoked_ids.until, excluded.until) END",
                (identity, until, self._next_epoch()),
            )

    def revoke_subject(self, subject: str, *, before: int) -> None:
        """All that was issued to a subject up to and including `before`, its API keys for good."""
        with self._transaction():
            epoch = self._next_epoch()
            if self._one("SELECT count(*) FROM revoked_subjects") > REVOCATIONS_MAX:
                raise HostError(f"{REVOCATIONS_MAX} subjects are revoked already", "revoke by --before")
            self._revoke_up_to(subject, before, epoch)
            self._revoke_api_keys("subject = ? AND created <= ?", (subject, before), epoch)

    def revoke_all(self, *, before: int) -> None:
        """All that was issued to anybody up to and including `before`, API keys for good."""
        with self._transaction():
            epoch = self._next_epoch()
            self._revoke_up_to(_EVERYBODY, before, epoch)
            self._revoke_api_keys("created <= ?", (before,), epoch)

    def _revoke_up_to(self, subject: str, before: int, epoch: int) -> None:
        self._database.execute(
            "INSERT INTO revoked_subjects VALUES (?, ?, ?) ON CONFLICT (subject) DO UPDATE"
            " SET before = max(before, excluded.before), changed = excluded.changed",
            (subject, before, epoch),
        )

    def issue_after(self, subject: str) -> int:
        """What is issued to this subject has to be younger than that to be believed."""
        return self._one(
            "SELECT coalesce(max(before), 0) FROM revoked_subjects WHERE subject IN (?, ?)", (subject, _EVERYBODY)
        )

    # ---- for the supervisor

    def changes(self, since: int) -> Changes:
        """What has changed after the epoch `since`; after -1, all that holds now."""
        # One snapshot: a change between two of these queries would be told half.
        self._database.execute("BEGIN")
        try:
            now = int(time.time())
            rows = self._api_keys("changed > ?", (since,))
            up_to = dict(
                self._database.execute("SELECT subject, before FROM revoked_subjects WHERE changed > ?", (since,))
            )
            ids = self._database.execute(
                "SELECT id FROM revoked_ids WHERE changed > ? AND (until = 0 OR until > ?)", (since, now)
            ).fetchall()
            return Changes(
                epoch=self.epoch(),
                signing_keys=tuple(
                    PublicKey(key_id=row.id, public=row.public, until=row.until) for row in self.signing_keys()
                ),
                known=tuple(row.key for row in rows if not row.revoked),
                gone=tuple(row.key.id for row in rows if row.revoked) if since >= 0 else (),
                revoked_before=up_to.pop(_EVERYBODY, 0),
                revoked_ids=tuple(row[0] for row in ids),
                revoked_subjects=tuple(SubjectRevoked(subject=subject, before=up_to[subject]) for subject in up_to),
            )
        finally:
            self._database.execute("ROLLBACK")
