"""The operator's settings as they come from the foreman: at the start, and whenever they are read anew.

Runs as: the gateway; root until the first has been received.
Reads from strangers: nothing; the foreman holds the other end.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from runagentd.gateway.guard.grants import Role
from runagentd.wire import record
from runagentd.wire.settings import DATAGRAM_BYTES_MAX, DESCRIPTORS_MAX, SETTINGS_BYTES_MAX, Settings


class Configuration:
    """One set of settings, with the descriptors that came along; `close` lets go of those."""

    def __init__(self, settings: Settings, files: dict[str, int]) -> None:
        self.settings = settings
        self.files = files

    def close(self) -> None:
        for descriptor in self.files.values():
            os.close(descriptor)
        self.files.clear()

    @property
    def roles(self) -> Mapping[str, Role]:
        """The roles by their names."""
        return {role.name: Role(role.allow, role.deny) for role in self.settings.roles}


def receive(link: socket.socket) -> Configuration | None:
    """The next settings on the link; None where the foreman is gone, or, without blocking, nothing is there.

    `RecordError` for anything else.
    """
    try:
        data, descriptors, flags, _ = socket.recv_fds(
            link, DATAGRAM_BYTES_MAX, DESCRIPTORS_MAX, socket.MSG_CMSG_CLOEXEC
        )
    except BlockingIOError:
        return None
    if not data:
        return None
    files = dict(zip(data.decode("ascii", "replace").split(" "), descriptors, strict=False))
    configuration = Configuration(Settings(), files)
    try:
        if flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC) or len(files) != len(descriptors) or "settings" not in files:
            raise record.RecordError("this is not what a foreman sends")
        # pread(2): the file's position belongs to whoever else holds it, too.
        content = os.pread(files["settings"], SETTINGS_BYTES_MAX + 1, 0)
        configuration.settings = record.decode(Settings, content, bytes_max=SETTINGS_BYTES_MAX)
    except record.RecordError:
        configuration.close()
        raise
    return configuration
