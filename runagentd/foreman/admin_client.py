"""Speak to the supervisor as its operator: one request, one reply.

Runs as: root (the foreman, runagentctl).
Reads from strangers: no; the supervisor is ours. What it passes on of an agent's is opaque bytes here.
"""

from __future__ import annotations

import array
import dataclasses
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from runagentd.errors import HostError
from runagentd.wire import admin
from runagentd.wire.record import RecordError

R = TypeVar("R")

WHICH_AGENTS = "'runagentctl ps' lists the agents"
"""What to do about an agent that is not there."""


def connect(path: Path) -> socket.socket:
    """A connection to the admin socket at `path`; HostError where no daemon listens."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.connect(str(path))
    except OSError as error:
        connection.close()
        raise HostError(
            f"no daemon answers on {path}", "is 'runagentd serve' running with this --state-dir?"
        ) from error
    return connection


def send(connection: socket.socket, request: admin.Request, descriptors: Sequence[int] = ()) -> None:
    """Send the one request of a connection."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    connection.sendmsg([admin.pack(request)], rights)


def receive(connection: socket.socket) -> admin.Reply:
    """Wait for the one reply; HostError where the supervisor ended before it."""
    try:
        data = connection.recv(admin.MESSAGE_BYTES_MAX)
        if data:
            return admin.parse_reply(data)
    except (OSError, RecordError) as error:
        raise HostError(f"the supervisor's answer cannot be read: {error}") from error
    raise HostError("the supervisor ended before it answered", "its log says why")


def told(reply: admin.Reply, kind: type[R], *hints: str) -> R:
    """A reply of the kind that answers the request; HostError where the supervisor could not, with its words."""
    if isinstance(reply, admin.Failed):
        raise HostError(reply.message, *hints)
    if not isinstance(reply, kind):
        raise HostError("the supervisor answered something else than was asked")
    return reply


def instances(path: Path) -> admin.Instances:
    """All that runs, however many answers that takes; HostError where the supervisor does not say."""
    rows: list[admin.InstanceRow] = []
    while True:
        reply = told(ask(path, admin.ListInstances(skip=len(rows))), admin.Instances)
        rows += reply.instances
        if not reply.instances or len(rows) >= reply.total:
            return dataclasses.replace(reply, instances=tuple(rows))


def ask(path: Path, request: admin.Request, descriptors: Sequence[int] = (), *, seconds: float = 30.0) -> admin.Reply:
    """One request, one reply."""
    with connect(path) as connection:
        connection.settimeout(seconds)
        send(connection, request, descriptors)
        return receive(connection)
