"""What is deployed, on the disk: the versions of every agent, which one serves, and who deployed it.

Runs as: the supervisor, in its event loop: each change is one small transaction.
Reads from strangers: its own file in the 0700 state directory; it holds manifests of a loader's, so they are parsed
with the same care (wire.record, bounded).

What a maintainer must not break: there is one moment in which a deploy takes effect, the commit of `serve`, and it
comes after the version was proven. A supervisor that is killed before it has deployed nothing, and what lies on the
disk of it (a snapshot that no row names) is removed at the next start. `synchronous = FULL`: what was committed is
there after the machine has lost its power, too.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runagentd.errors import HostError
from runagentd.state import make_database
from runagentd.supervise.identity import Identity
from runagentd.wire import record
from runagentd.wire.manifest import MANIFEST_BYTES, Manifest

NAME = "deployments.db"
VERSIONS_MAX = 20
"""Kept of one agent: beyond them the oldest that nothing leads to is forgotten when another one is deployed."""

_FORMAT = 3
_APPLICATION_ID = 0x7261676C  # PRAGMA application_id: so that no other program's file is taken for ours
_MANIFEST_BYTES_MAX = MANIFEST_BYTES + 16 * 1024
_BUSY_SECONDS = 1.0
# `policy` is the whole policy as it was when the version was deployed, `policy_name` what the operator asked for.
_SCHEMA = f"""
CREATE TABLE agents (
    id TEXT PRIMARY KEY, stays INTEGER NOT NULL, serving INTEGER NOT NULL, former INTEGER NOT NULL,
    next INTEGER NOT NULL, managed_by TEXT NOT NULL DEFAULT '') WITHOUT ROWID;
CREATE TABLE versions (
    agent TEXT NOT NULL REFERENCES agents (id) ON DELETE CASCADE, number INTEGER NOT NULL, digest TEXT NOT NULL,
    code TEXT NOT NULL, environment TEXT NOT NULL, configuration TEXT NOT NULL, policy_digest TEXT NOT NULL,
    policy_name TEXT NOT NULL, policy TEXT NOT NULL, manifest BLOB NOT NULL, name TEXT NOT NULL,
    origin TEXT NOT NULL, created INTEGER NOT NULL, runtime TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (agent, number), UNIQUE (agent, digest)) WITHOUT ROWID;
CREATE TABLE aliases (
    agent TEXT NOT NULL REFERENCES agents (id) ON DELETE CASCADE, alias TEXT NOT NULL, number INTEGER NOT NULL,
    PRIMARY KEY (agent, alias)) WITHOUT ROWID;
CREATE TABLE shares (
    agent TEXT NOT NULL REFERENCES agents (id) ON DELETE CASCADE, number INTEGER NOT NULL, percent INTEGER NOT NULL,
    errors_max INTEGER NOT NULL, PRIMARY KEY (agent, number)) WITHOUT ROWID;
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_FORMAT};
"""
# From the format of this number to the next one.
_STEPS = {
    1: "ALTER TABLE versions ADD COLUMN runtime TEXT NOT NULL DEFAULT ''",
    2: "ALTER TABLE agents ADD COLUMN managed_by TEXT NOT NULL DEFAULT ''",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What instances of a version are made from, but for its policy's values."""

    manifest: Manifest
    version: str
    """the digest of the version's whole identity"""
    code: str
    """the digest of its snapshot"""
    policy: str
    """as the operator named it"""
    environment: str = ""
    """the digest of its environment; empty for none"""
    runtime: str = ""
    """which CPython it was made for (`Identity.runtime`); empty in what was deployed when there was one alone"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """One version as it is kept."""

    number: int
    deployment: Deployment
    identity: Identity
    policy: str
    """`policy.stored`"""
    origin: str
    """the path of the folder that it was made from, the last time it was deployed"""
    created_unix_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unread:
    """A version whose manifest cannot be read: damaged, or in the form of another runagentd."""

    code: str
    """the digest of its snapshot, from which the manifest can be made again"""
    name: str
    """what its operator called it; "" for what its folder says"""
    origin: str
    """as in `Release`"""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """An agent as it is kept. `former` served before; 0 for none."""

    agent: str
    stays: bool
    """whether it is there at the next start, too; what `serve DIR` brought goes with it"""
    serving: int
    former: int
    releases: dict[int, Release]
    unread: dict[int, Unread]
    aliases: dict[str, int]
    shares: dict[int, int]
    """in per cent, of versions beside the one that serves, which has the rest"""
    errors_max: int
    """in per cent, of the calls of those"""
    managed_by: str
    """the agent file that says what is to serve; "" where operators say so by hand"""

    @property
    def numbers(self) -> list[int]:
        """Of all versions, the newest first."""
        return sorted([*self.releases, *self.unread], reverse=True)

    @property
    def origin(self) -> str:
        """The path of the folder that the version which serves was made from; "" where there is none."""
        serving = self.releases.get(self.serving) or self.unread.get(self.serving)
        return serving.origin if serving is not None else ""

    def came_from(self, folder: str) -> bool:
        """Whether the version that serves was made from the folder at this path."""
        return self.origin == _text(folder)


class Store:
    """One connection to the file `deployments.db`. Every method that changes something is one transaction.

    HostError where the disk does not take it; then nothing has changed.
    """

    def __init__(self, folder: Path) -> None:
        """Open, or make the file in a directory that exists. HostError where it is not to be used."""
        self._path = folder / NAME
        try:
            make_database(self._path)
            self._database = sqlite3.connect(self._path, isolation_level=None, timeout=_BUSY_SECONDS)
        except (OSError, sqlite3.Error) as error:
            raise HostError(f"{self._path} cannot be opened: {error}") from error
        try:
            self._open()
        except (sqlite3.Error, HostError) as error:
            self._database.close()
            if isinstance(error, HostError):
                raise
            raise self._damaged(str(error)) from error

    def _open(self) -> None:
        found, application = self._one("PRAGMA user_version"), self._one("PRAGMA application_id")
        new = (found, application) == (0, 0)
        if not new and (application != _APPLICATION_ID or found not in (*_STEPS, _FORMAT)):
            raise HostError(
                f"{self._path} has the format {found}, this version knows {_FORMAT}",
                "start the runagentd that wrote it, or move the file away: agents are then to be deployed again",
            )
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.execute("PRAGMA foreign_keys = ON")
        report = self._one("PRAGMA quick_check")
        if report != "ok":
            raise self._damaged(str(report))
        with self._transaction():
            for statement in _SCHEMA.split(";\n") if new else _upgrade(found):
                self._database.execute(statement)

    def _damaged(self, report: str) -> HostError:
        return HostError(
            f"{self._path} is damaged: {' '.join(report.split())[:200]}",
            "put a copy of it back, or move it away (with its -wal): agents are then to be deployed again; "
            "what they have kept stays",
        )

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    # ---- what there is

    def agents(self) -> list[str]:
        """The ids of all that is deployed."""
        return [row[0] for row in self._database.execute("SELECT id FROM agents ORDER BY id")]

    def find(self, agent: str) -> Deployed | None:
        """All that is known of an agent. A row that cannot be read is told as such, and hides no other."""
        row = self._database.execute(
            "SELECT stays, serving, former, managed_by FROM agents WHERE id = ?", (agent,)
        ).fetchone()
        if row is None:
            return None
        releases: dict[int, Release] = {}
        unread: dict[int, Unread] = {}
        columns = "number, digest, code, environment, configuration, policy_digest, policy_name, policy, manifest"
        for each in self._database.execute(
            f"SELECT {columns}, name, origin, created, runtime FROM versions WHERE agent = ?", (agent,)
        ):
            number = int(each[0])
            try:
                releases[number] = _release(each)
            except (record.RecordError, TypeError) as error:
                reason = f"its record cannot be read: {error}"
                unread[number] = Unread(code=str(each[2]), name=str(each[9]), origin=str(each[10]), reason=reason)
        aliases = dict(self._database.execute("SELECT alias, number FROM aliases WHERE agent = ?", (agent,)))
        shares = self._database.execute("SELECT number, percent, errors_max FROM shares WHERE agent = ?", (agent,))
        shared = shares.fetchall()
        return Deployed(
            agent=agent,
            stays=bool(row[0]),
            serving=row[1],
            former=row[2],
            releases=releases,
            unread=unread,
            aliases=aliases,
            shares={number: percent for number, percent, _ in shared},
            errors_max=max((errors_max for _, _, errors_max in shared), default=100),
            managed_by=row[3],
        )

    def managed(self) -> dict[str, str]:
        """The ids of all agents that agent files manage, each with its file."""
        return dict(self._database.execute("SELECT id, managed_by FROM agents WHERE managed_by != '' ORDER BY id"))

    def codes(self, agent: str) -> set[str]:
        """The digests of all snapshots that versions of this agent are made from."""
        return {row[0] for row in self._database.execute("SELECT code FROM versions WHERE agent = ?", (agent,))}

    def environments(self) -> set[str]:
        """The digests of all environments that versions of any agent need, whether these can be read or not."""
        found = self._database.execute("SELECT DISTINCT environment FROM versions WHERE environment != ''")
        return {row[0] for row in found}

    # ---- changes

    def serve(
        self,
        deployment: Deployment,
        identity: Identity,
        *,
        policy: str,
        origin: str,
        stays: bool,
        name: str = "",
        aliases: Collection[str] = (),
        managed_by: str = "",
    ) -> int:
        """A version that was proven serves from now on; its number, which is that of before where it was there.

        Who manages the agent stays as it is where `managed_by` is empty: to deploy by hand in between is no change.
        """
        agent = deployment.manifest.agent_id
        with self._transaction():
            self._database.execute(
                "INSERT OR IGNORE INTO agents (id, stays, serving, former, next) VALUES (?, ?, 0, 0, 1)", (agent, stays)
            )
            number = self._number(agent, deployment.version)
            if not number:
                number = int(self._one("SELECT next FROM agents WHERE id = ?", agent))
                self._database.execute("UPDATE agents SET next = next + 1 WHERE id = ?", (agent,))
                self._database.execute(
                    "INSERT INTO versions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        agent, number, deployment.version, identity.code, identity.environment,
                        identity.configuration, identity.policy, deployment.policy, policy,
                        record.encode(deployment.manifest), name, _text(origin), time.time_ns() // 1_000_000,
                        identity.runtime,
                    ),
                )  # fmt: skip
            self._promote(agent, number)
            self._lead(agent, number, origin, aliases, managed_by)
            self._forget_oldest(agent)
        return number

    def reread(self, agent: str, number: int, manifest: Manifest) -> None:
        """The manifest of a version was made again from its snapshot."""
        with self._transaction():
            self._database.execute(
                "UPDATE versions SET manifest = ? WHERE agent = ? AND number = ?",
                (record.encode(manifest), agent, number),
            )

    def promote(self, agent: str, number: int) -> None:
        """A version that is kept serves from now on."""
        with self._transaction():
            self._promote(agent, number)

    def divide(self, agent: str, shares: Mapping[int, int], *, errors_max: int) -> None:
        """Versions beside the one that serves get so many of a hundred calls, and all others none."""
        with self._transaction():
            self._database.execute("DELETE FROM shares WHERE agent = ?", (agent,))
            rows = [(agent, number, percent, errors_max) for number, percent in shares.items()]
            self._database.executemany("INSERT INTO shares VALUES (?, ?, ?, ?)", rows)

    def lead(self, agent: str, number: int, *, origin: str, aliases: Collection[str], managed_by: str) -> None:
        """What serves already is what was asked for: these aliases lead to it, and this file manages the agent."""
        with self._transaction():
            self._lead(agent, number, origin, aliases, managed_by)

    def alias(self, agent: str, alias: str, number: int) -> None:
        """An alias leads to a version from now on; to none where `number` is 0."""
        with self._transaction():
            self._alias(agent, alias, number)

    def remove(self, agent: str, number: int) -> None:
        """Forget a version that does not serve."""
        with self._transaction():
            self._database.execute("DELETE FROM versions WHERE agent = ? AND number = ?", (agent, number))
            self._database.execute("UPDATE agents SET former = 0 WHERE id = ? AND former = ?", (agent, number))

    def forget(self, agent: str) -> None:
        """Forget an agent and all its versions; what it has kept stays."""
        with self._transaction():
            self._database.execute("DELETE FROM agents WHERE id = ?", (agent,))

    def forget_passing(self) -> None:
        """Forget all that goes with the `serve` that brought it."""
        with self._transaction():
            self._database.execute("DELETE FROM agents WHERE NOT stays")

    def _number(self, agent: str, digest: str) -> int:
        return int(self._one("SELECT number FROM versions WHERE agent = ? AND digest = ?", agent, digest) or 0)

    def _promote(self, agent: str, number: int) -> None:
        self._database.execute(
            "UPDATE agents SET former = serving, serving = ? WHERE id = ? AND serving != ?", (number, agent, number)
        )
        self._database.execute("DELETE FROM shares WHERE agent = ?", (agent,))

    def _lead(self, agent: str, number: int, origin: str, aliases: Collection[str], managed_by: str) -> None:
        # The same code may lie elsewhere now: that is where the next version is expected from.
        self._database.execute(
            "UPDATE versions SET origin = ? WHERE agent = ? AND number = ?", (_text(origin), agent, number)
        )
        for alias in aliases:
            self._alias(agent, alias, number)
        if managed_by:
            self._database.execute("UPDATE agents SET managed_by = ? WHERE id = ?", (managed_by, agent))

    def _alias(self, agent: str, alias: str, number: int) -> None:
        self._database.execute("DELETE FROM aliases WHERE agent = ? AND alias = ?", (agent, alias))
        if number:
            self._database.execute("INSERT INTO aliases VALUES (?, ?, ?)", (agent, alias, number))

    def _forget_oldest(self, agent: str) -> None:
        """What serves, served before, or has an alias is never forgotten by itself; nothing has a share just now."""
        self._database.execute(
            "DELETE FROM versions WHERE agent = :agent AND number IN ("
            " SELECT number FROM versions WHERE agent = :agent"
            " AND number NOT IN (SELECT serving FROM agents WHERE id = :agent)"
            " AND number NOT IN (SELECT former FROM agents WHERE id = :agent)"
            " AND number NOT IN (SELECT number FROM aliases WHERE agent = :agent)"
            " ORDER BY number DESC LIMIT -1 OFFSET :keep)",
            {"agent": agent, "keep": VERSIONS_MAX - 2},
        )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise HostError(f"{self._path}: nothing was changed: {error}", "is the disk full?") from error

    # Any: whatever SQLite holds.
    def _one(self, query: str, *values: object) -> Any:
        row = self._database.execute(query, values).fetchone()
        return row[0] if row is not None else None


def _upgrade(found: int) -> Iterator[str]:
    """What makes a file of an earlier format one of ours. In one transaction: killed within it, nothing was done."""
    if found != _FORMAT:
        yield from (_STEPS[number] for number in range(found, _FORMAT))
        yield f"PRAGMA user_version = {_FORMAT}"


def _release(row: tuple[object, ...]) -> Release:
    number, digest, code, environment, configuration, policy_digest, policy_name, policy, manifest = row[:9]
    _, origin, created, runtime = row[9:]
    if not (isinstance(manifest, bytes) and isinstance(number, int) and isinstance(created, int)):
        raise TypeError("a value of another type")
    identity = Identity(
        code=str(code),
        environment=str(environment),
        configuration=str(configuration),
        policy=str(policy_digest),
        runtime=str(runtime),
    )
    deployment = Deployment(
        manifest=record.decode(Manifest, manifest, bytes_max=_MANIFEST_BYTES_MAX),
        version=str(digest),
        code=identity.code,
        policy=str(policy_name),
        environment=identity.environment,
        runtime=identity.runtime,
    )
    return Release(
        number=number,
        deployment=deployment,
        identity=identity,
        policy=str(policy),
        origin=str(origin),
        created_unix_ms=created,
    )


def _text(path: str) -> str:
    """A path as a text that SQLite takes: one with bytes that are no UTF-8 is only shown."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
