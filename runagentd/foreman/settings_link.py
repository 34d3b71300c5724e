"""The operator's configuration on its way to the daemons: read, checked, and sent with what belongs to it.

Runs as: the foreman (root).
Reads from strangers: nothing.
"""

from __future__ import annotations

import dataclasses
import enum
import os
import socket
import time
from pathlib import Path

from runagentd import interpreters, kernel
from runagentd.config import load
from runagentd.errors import ConfigurationError, Problem
from runagentd.log import Log
from runagentd.wire import record
from runagentd.wire.runtime import PythonRuntime
from runagentd.wire.settings import SupervisorSettings, WorkerSettings

_SECONDS_EACH = 2.0
"""An interpreter is asked for as long at least, whatever those before it took; it needs half a second."""


class Recipient(enum.Enum):
    """Who is told settings."""

    GATEWAY = enum.auto()
    EGRESS = enum.auto()
    SUPERVISOR = enum.auto()
    WORKER = enum.auto()
    """of which there may be several"""


class SettingsLink:
    """Holds what the file says now, and the sending ends to the daemons of now. `path` None is no file at all."""

    def __init__(self, path: Path | None, log: Log) -> None:
        self._path = path
        self._log = log
        self._links: dict[tuple[Recipient, int], tuple[socket.socket, socket.socket]] = {}
        self.document, self._runtimes = self._read()
        self.workers = self.document.settings.workers
        """how many there are, whatever the file says later"""

    def renew(self, recipient: Recipient, number: int = 0) -> int:
        """A fresh link with the settings of now in it, for a daemon that is about to start; its descriptor there.

        `number` tells several of a kind apart.

        Not one link for all of a kind: what one of them left unread would be the first that the next one reads.
        """
        for end in self._links.pop((recipient, number), ()):
            end.close()
        ours, theirs = self._links[recipient, number] = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self._send(recipient, ours)
        return theirs.fileno()

    def reload(self) -> bool:
        """Read the file again and send what it says now; False for a file with problems, which changes nothing."""
        try:
            self.document, self._runtimes = self._read()
            for (recipient, _), (ours, _) in self._links.items():
                self._send(recipient, ours)
        except (ConfigurationError, OSError) as error:
            self._log.error("the configuration was not taken over; what was before stays", problem=str(error))
            return False
        self._log.info("the configuration was read again")
        if self.document.settings.workers != self.workers:
            self._log.error("another number of workers takes a restart; all else was taken over", workers=self.workers)
        return True

    def _read(self) -> tuple[load.Document, tuple[PythonRuntime, ...]]:
        document = load.Document() if self._path is None else load.load(self._path)
        if not document.packages_named:
            document = load.with_usual_index(document, os.environ)
        return document, inspected(document)

    def _contents(self, recipient: Recipient) -> dict[str, bytes]:
        """To each what it needs, and nothing else: the egress process gets no key."""
        if recipient is Recipient.EGRESS:
            return {"settings": record.encode(self.document.egress)}
        if recipient is Recipient.SUPERVISOR:
            supervisor = SupervisorSettings(packages=self.document.packages, runtimes=self._runtimes)
            return {"settings": record.encode(supervisor)}
        settings = self.document.settings
        if recipient is Recipient.WORKER:
            worker = WorkerSettings(http=settings.http, client_certificates=settings.client_certificates)
            contents = {"settings": record.encode(worker)}
        else:
            contents = {"settings": record.encode(dataclasses.replace(settings, workers=self.workers))}
            if self.workers > 1:
                return contents  # only who speaks TLS gets a key
        if self.document.tls is not None:
            contents |= {"certificate": self.document.tls.certificate, "key": self.document.tls.key}
            if self.document.tls.client_ca:
                contents["client_ca"] = self.document.tls.client_ca
        return contents

    def _send(self, recipient: Recipient, link: socket.socket) -> None:
        contents = self._contents(recipient)
        files: dict[str, int] = {}
        try:
            for name, content in contents.items():
                files[name] = kernel.sealed_memfd(name, content)
            socket.send_fds(link, [" ".join(files).encode("ascii")], list(files.values()))
        finally:
            for descriptor in files.values():
                os.close(descriptor)


def inspected(document: load.Document) -> tuple[PythonRuntime, ...]:
    """What the interpreters are that the operator has named; each is run once. ConfigurationError for all unfit ones.

    Their files may be others the next time: a file that is read again has them looked at again.
    """
    runtimes, problems = [], []
    until = time.monotonic() + interpreters.NAMED_SECONDS
    for named in document.interpreters:
        left = max(_SECONDS_EACH, until - time.monotonic())
        try:
            runtimes.append(interpreters.inspect(named.version, named.path, seconds=left))
        except interpreters.Unfit as unfit:
            problems.append(Problem(named.where, str(unfit), unfit.hints))
    if problems:
        raise ConfigurationError(*problems)
    return tuple(runtimes)
