"""The operator's configuration on its way to the gateway: read, checked, and sent with what belongs to it.

Runs as: the foreman (root).
Reads from strangers: nothing.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

from runagentd import kernel
from runagentd.config import load
from runagentd.errors import ConfigurationError
from runagentd.log import Log
from runagentd.wire import record
from runagentd.wire.settings import Settings


class SettingsLink:
    """Holds the settings of now, and the sending end to the gateway of now. `path` None is "no configuration file"."""

    def __init__(self, path: Path | None, log: Log) -> None:
        self._path = path
        self._log = log
        self._ours: socket.socket | None = None
        self._theirs: socket.socket | None = None
        self.settings = self._read()
        self.on_change: list[Callable[[Settings], None]] = []

    def renew(self) -> int:
        """A fresh link with the settings of now in it, for a gateway that is about to start; its descriptor there.

        Not one link for all gateways: what one of them left unread would be the first that the next one reads.
        """
        for end in (self._ours, self._theirs):
            if end is not None:
                end.close()
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setblocking(False)
        self._send()
        return self._theirs.fileno()

    def reload(self) -> None:
        """Read the file again and send what it says now; a file with problems changes nothing."""
        try:
            self.settings = self._read()
            self._send()
        except (ConfigurationError, OSError) as error:
            self._log.error("the configuration was not taken over; what was before stays", problem=str(error))
            return
        for changed in self.on_change:
            changed(self.settings)
        self._log.info("the configuration was read again")

    def _read(self) -> Settings:
        return Settings() if self._path is None else load.load(self._path)

    def _send(self) -> None:
        if self._ours is None:
            return
        files = {"settings": kernel.sealed_memfd("settings", record.encode(self.settings))}
        try:
            socket.send_fds(self._ours, [" ".join(files).encode("ascii")], list(files.values()))
        finally:
            for descriptor in files.values():
                os.close(descriptor)
