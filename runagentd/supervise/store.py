"""What is deployed, on the disk: enough to serve the same agents again after the supervisor was killed.

Runs as: the supervisor.
Reads from strangers: its own files in the 0700 state directory; they hold a loader's manifest, so they are parsed
with the same care (wire.record, bounded).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from runagentd.names import storage_name
from runagentd.wire import record
from runagentd.wire.manifest import MANIFEST_BYTES, Manifest

_RECORD_BYTES_MAX = MANIFEST_BYTES + 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One deployed agent: its manifest, the digests of its snapshot and of its environment (empty for none), and the
    policy as the operator named it."""

    manifest: Manifest
    version: str
    policy: str
    environment: str = ""


class Store:
    """The folder agents/ of a state directory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def incoming(self) -> Path:
        """Where a snapshot is taken before it is known whose it is."""
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

    def adopt(self, snapshot: Path, deployment: Deployment, origin: str) -> None:
        """Move a snapshot to its agent, beside those that are there."""
        home = self._home(deployment.manifest.agent_id)
        (home / "versions").mkdir(mode=0o700, parents=True, exist_ok=True)
        (home / "data").mkdir(mode=0o700, exist_ok=True)
        (home / "origin").write_bytes(os.fsencode(origin))
        place = home / "versions" / deployment.version
        if place.exists():
            shutil.rmtree(snapshot)
        else:
            snapshot.rename(place)

    def remember(self, deployment: Deployment) -> None:
        """This is the version that is to be served, also after a restart."""
        home = self._home(deployment.manifest.agent_id)
        unfinished = home / "deployed.new"
        unfinished.write_bytes(record.encode(deployment))
        unfinished.rename(home / "deployed")

    def prune(self, agent_id: str, keep: Collection[str]) -> None:
        """Remove the snapshots of this agent that nothing is made from."""
        versions = self._home(agent_id) / "versions"
        for old in versions.iterdir() if versions.exists() else ():
            if old.name not in keep:
                shutil.rmtree(old)

    def deployments(self) -> list[Deployment]:
        """All that is deployed. A damaged record is skipped: RecordError cannot stop the others."""
        found = []
        for path in sorted(self._folder.glob("*/deployed")):
            try:
                found.append(record.decode(Deployment, path.read_bytes(), bytes_max=_RECORD_BYTES_MAX))
            except (record.RecordError, OSError):
                continue
        return found

    def forget(self, agent_id: str) -> None:
        """This agent is not served any more; its persistent folders stay."""
        (self._home(agent_id) / "deployed").unlink(missing_ok=True)

    def forget_all(self) -> None:
        for path in self._folder.glob("*/deployed"):
            path.unlink(missing_ok=True)
        shutil.rmtree(self._folder / "incoming", ignore_errors=True)

    def open_snapshot(self, deployment: Deployment) -> int:
        return _open_folder(self._home(deployment.manifest.agent_id) / "versions" / deployment.version)

    def open_persistent(self, deployment: Deployment) -> int:
        return _open_folder(self._home(deployment.manifest.agent_id) / "data")

    def _home(self, agent_id: str) -> Path:
        return self._folder / storage_name(agent_id)


def _open_folder(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
