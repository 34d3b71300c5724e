"""The operator's configuration on its way to the gateway: read, checked, and sent with what belongs to it.

Runs as: the foreman (root).
Reads from strangers: nothing.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from runagentd import kernel
from runagentd.config import load
from runagentd.errors import ConfigurationError
from runagentd.log import Log
from runagentd.wire import record


class SettingsLink:
    """Holds what the file says now, and the sending end to the gateway of now. `path` None is no file at all."""

    def __init__(self, path: Path | None, log: Log) -> None:
        self._path = path
        self._log = log
        self._ours: socket.socket | None = None
        self._theirs: socket.socket | None = None
        self.document = self._read()

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
            self.document = self._read()
            self._send()
        except (ConfigurationError, OSError) as error:
            self._log.error("the configuration was not taken over; what was before stays", problem=str(error))
            return
        self._log.info("the configuration was read again")

    def _read(self) -> load.Document:
        return load.Document() if self._path is None else load.load(self._path)

    def _send(self) -> None:
        if self._ours is None:
            return
        contents = {"settings": record.encode(self.document.settings)}
        if self.document.tls is not None:
            contents |= {"certificate": self.document.tls.certificate, "key": self.document.tls.key}
            if self.document.tls.client_ca:
                contents["client_ca"] = self.document.tls.client_ca
        files: dict[str, int] = {}
        try:
            for name, content in contents.items():
                files[name] = kernel.sealed_memfd(name, content)
            socket.send_fds(self._ours, [" ".join(files).encode("ascii")], list(files.values()))
        finally:
            for descriptor in files.values():
                os.close(descriptor)
