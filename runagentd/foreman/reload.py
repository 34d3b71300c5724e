"""`serve --reload`: what changes in a folder is served a moment later, and what is broken is not.

Runs as: the foreman, on its one thread: `mind` is called with what is readable, and never waits.
Reads from strangers: nothing; what an agent says of itself is passed on as bytes to a process without privileges.
A change is a new snapshot and a new instance beside the one that serves, which goes on until the new one is ready.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from runagentd.errors import HostError
from runagentd.foreman import admin_client, announce
from runagentd.foreman.progress import ProgressLine
from runagentd.foreman.watch import Watch
from runagentd.log import Log
from runagentd.wire import admin

QUIET_SECONDS = 0.1
"""An editor writes a file in several steps, and a checkout many files: a change is over when nothing follows it."""
WAIT_SECONDS = 1.0
"""But nobody waits longer than that for somebody who never stops writing."""


@dataclass(slots=True)
class _Folder:
    path: Path
    agent: str
    watch: Watch
    changed: float = 0.0
    """when the first change came that was not served yet; 0.0 for none"""
    quiet_from: float = 0.0
    connection: socket.socket | None = None
    """while the supervisor is at it"""
    began: float = 0.0


class Reloader:
    """Watches the folders of agents that are served, and policy files."""

    def __init__(
        self,
        folders: Mapping[Path, admin.Deployed],
        *,
        policies: tuple[admin.PolicyChoice, ...],
        admin_socket: Path,
        nobody: int,
        log: Log,
    ) -> None:
        self._policies = policies
        self._admin_socket = admin_socket
        self._nobody = nobody
        self._log = log
        self._progress = ProgressLine(sys.stderr, log.info)
        try:
            self._folders = [_Folder(path, row.agent, Watch(path)) for path, row in folders.items()]
            files = {Path(choice.policy).parent for choice in policies if choice.policy.startswith("/")}
            self._policy_watches = [Watch(folder, below=False) for folder in sorted(files)]
        except OSError as error:
            raise HostError(
                f"the kernel watches no more folders for us: {error.strerror or error}",
                "raise fs.inotify.max_user_watches and max_user_instances (sysctl), or serve without --reload",
            ) from error
        for folder in self._folders:
            if not folder.watch.complete:
                self._log.warning("not all of a folder is watched: it holds too many folders", folder=str(folder.path))

    @property
    def due(self) -> float | None:
        """When something is to be done although nothing is readable, on time.monotonic()."""
        moments = [_ripe(folder) for folder in self._folders if folder.changed and folder.connection is None]
        return min(moments, default=None)

    def descriptors(self) -> list[int]:
        """What to wait for."""
        watches = [*(folder.watch for folder in self._folders), *self._policy_watches]
        connections = (folder.connection for folder in self._folders)
        return [watch.descriptor for watch in watches] + [each.fileno() for each in connections if each is not None]

    def mind(self, readable: Iterable[int]) -> None:
        """Act on what has changed, and on answers that have come."""
        readable = set(readable)
        now = time.monotonic()
        policy_changed = False
        for watch in self._policy_watches:
            policy_changed = (watch.descriptor in readable and watch.taken()) or policy_changed
        for folder in self._folders:
            if (folder.watch.descriptor in readable and folder.watch.taken()) or policy_changed:
                folder.changed = folder.changed or now
                folder.quiet_from = now
            if folder.connection is not None and folder.connection.fileno() in readable:
                self._answered(folder)
            if folder.changed and folder.connection is None and _ripe(folder) <= now:
                self._deploy(folder)

    def _deploy(self, folder: _Folder) -> None:
        folder.began, folder.changed = folder.changed, 0.0
        try:
            folder.watch.renew()
            descriptor = os.open(folder.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                folder.connection = admin_client.connect(self._admin_socket)
                request = admin.Deploy(
                    folder=str(folder.path), policies=self._policies, replaces=folder.agent, progress=True
                )
                admin_client.send(folder.connection, request, [descriptor])
            finally:
                os.close(descriptor)
        except (HostError, OSError) as error:
            self._failed(folder, error)

    def _answered(self, folder: _Folder) -> None:
        connection = folder.connection
        if connection is None:
            return
        try:
            reply = admin_client.receive(connection)
            if isinstance(reply, admin.Progress):
                self._progress.show(reply.text)
                return
            self._progress.over()
            if isinstance(reply, admin.Failed):
                raise HostError(reply.message)
            if isinstance(reply, admin.Deployed) and not reply.unchanged:
                self._show(reply, time.monotonic() - folder.began)
        except HostError as error:
            self._failed(folder, error)
        connection.close()
        folder.connection = None

    def _show(self, reply: admin.Deployed, seconds: float) -> None:
        announcement = announce.Announcement(deployed=(reply,), reloaded_ms=int(seconds * 1000))
        announce.show_as_nobody(announcement, uid=self._nobody)

    def _failed(self, folder: _Folder, error: Exception) -> None:
        self._log.error(
            "a change was not taken over; what was before goes on", folder=str(folder.path), reason=str(error)
        )
        if folder.connection is not None:
            folder.connection.close()
            folder.connection = None


def _ripe(folder: _Folder) -> float:
    """When a change has been quiet for long enough, or has gone on for too long."""
    return min(folder.quiet_from + QUIET_SECONDS, folder.changed + WAIT_SECONDS)
