"""The folders of agents in the state directory: snapshots that instances are made from, and what agents keep.

Runs as: the supervisor.
Reads from strangers: nothing; names of folders are digests.
What a maintainer must not break: a snapshot appears under its name, and goes from it, by one rename(2). Whatever moment
the supervisor is killed at, what has the name of a digest is whole.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

from runagentd.names import storage_name

_OLD_RECORD = "deployed"
"""Where an earlier version kept what `serve` served."""


class Homes:
    """The folder agents/ of a state directory: agents/NAME/{versions/DIGEST,data,origin}, and agents/incoming."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def incoming(self) -> Path:
        """Where a snapshot is taken before it is known whose it is, and goes to when it is not needed any more."""
        folder = self._folder / "incoming"
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def kept_by_another(self, agent_id: str, origin: str) -> str:
        """Why a folder at `origin` may not have what is kept for this agent; "" where it may.

        An agent's id is what its folder says it is: without this, who knows an id (it follows from the name) is given
        all that its persistent folders hold.
        """
        home = self._home(agent_id)
        try:
            owner = os.fsdecode((home / "origin").read_bytes())
        except FileNotFoundError:
            return ""
        if owner == origin or not any((home / "data").iterdir()):
            return ""
        return (
            f"{agent_id!r} has kept data, and it was served from {owner!r} so far: "
            f"if that folder was moved here, remove {home / 'origin'}"
        )

    def adopt(self, snapshot: Path, agent_id: str, code: str, origin: str) -> None:
        """Move a snapshot to its agent, beside those that are there.

        What is kept belongs to `origin` from now on where nothing was kept; else once `own` says so.
        """
        home = self._home(agent_id)
        (home / "versions").mkdir(mode=0o700, parents=True, exist_ok=True)
        (home / "data").mkdir(mode=0o700, exist_ok=True)
        if not self.kept_by_another(agent_id, origin):
            self.own(agent_id, origin)
        place = home / "versions" / code
        if not place.exists():  # what stays in incoming/ is its caller's to remove
            snapshot.rename(place)

    def own(self, agent_id: str, origin: str) -> None:
        """What is kept for this agent belongs to the folder at `origin`: a version made from it serves."""
        home = self._home(agent_id)
        unfinished = home / "origin.new"
        unfinished.write_bytes(os.fsencode(origin))
        unfinished.rename(home / "origin")

    def put_aside(self, agent_id: str, keep: Collection[str]) -> list[Path]:
        """Take the snapshots of this agent that nothing is made from out of their place; what is to be removed."""
        return self._put_aside(self._home(agent_id), keep)

    def _put_aside(self, home: Path, keep: Collection[str]) -> list[Path]:
        versions = home / "versions"
        aside = []
        for old in versions.iterdir() if versions.exists() else ():
            if old.name not in keep:
                aside.append(self.incoming() / secrets.token_hex(8))
                old.rename(aside[-1])
        return aside

    def sweep(self, deployed: Mapping[str, Collection[str]]) -> list[str]:
        """Remove what a supervisor that was killed left, before anything is deployed.

        `deployed` gives each agent's id, and the snapshots that it needs. Gives the names of folders with records of an
        earlier version's, which are removed, too.
        """
        needed = {storage_name(agent): codes for agent, codes in deployed.items()}
        old = []
        for home in sorted(self._folder.iterdir()):
            if home.name == "incoming":
                continue
            self._put_aside(home, needed.get(home.name, ()))
            if (home / _OLD_RECORD).exists():
                (home / _OLD_RECORD).unlink()
                old.append(home.name)
            for unfinished in ("origin.new", "deployed.new"):
                (home / unfinished).unlink(missing_ok=True)
        for path in self.incoming().iterdir():
            shutil.rmtree(path, ignore_errors=True)
        return old

    def open_snapshot(self, agent_id: str, code: str) -> int:
        """OSError where it is not there."""
        return _open_folder(self._home(agent_id) / "versions" / code)

    def open_data(self, agent_id: str) -> int:
        """What the agent keeps."""
        return _open_folder(self._home(agent_id) / "data")

    def _home(self, agent_id: str) -> Path:
        return self._folder / storage_name(agent_id)


def _open_folder(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
