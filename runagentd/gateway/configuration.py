"""The operator's settings as they come from the foreman: at the start, and whenever they are read anew.

Runs as: the gateway; root until the first has been received.
Reads from strangers: nothing; the foreman holds the other end.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from runagentd import received
from runagentd.gateway.guard.grants import Role
from runagentd.wire.settings import Settings


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
    found = received.receive(link, Settings)
    return None if found is None else Configuration(*found)
