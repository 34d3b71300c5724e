"""The operator's settings as they come from the foreman: at the start of a daemon, and whenever they are read anew.

Runs as: the gateway, its workers and the egress process; root until the first have been received.
Reads from strangers: nothing; the foreman holds the other end.
"""

from __future__ import annotations

import os
import socket
from typing import TypeVar

from runagentd.wire import record
from runagentd.wire.settings import DATAGRAM_BYTES_MAX, DESCRIPTORS_MAX, SETTINGS_BYTES_MAX

S = TypeVar("S")


def receive(link: socket.socket, kind: type[S]) -> tuple[S, dict[str, int]] | None:
    """The next settings on the link, and the descriptors that came along, by name; those are the caller's.

    None where the foreman is gone, or, without blocking, nothing is there; `RecordError` for anything else.
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
    try:
        if flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC) or len(files) != len(descriptors) or "settings" not in files:
            raise record.RecordError("this is not what a foreman sends")
        # pread(2): the file's position belongs to whoever else holds it, too.
        content = os.pread(files["settings"], SETTINGS_BYTES_MAX + 1, 0)
        return record.decode(kind, content, bytes_max=SETTINGS_BYTES_MAX), files
    except record.RecordError:
        for descriptor in files.values():
            os.close(descriptor)
        raise
