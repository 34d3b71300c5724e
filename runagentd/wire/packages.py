"""What the supervisor says to the egress process: where the connections of a builder are to lead.

Runs as: the supervisor and the egress process. Pure.
Reads from strangers: no; the egress process still takes no target that its own settings do not name.
"""

from __future__ import annotations

from dataclasses import dataclass

from runagentd.wire import record

MESSAGE_BYTES_MAX = 16 * 1024
TARGETS_MAX = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A host by its name or IPv4 address, as the operator wrote it, and a port of it."""

    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Relay:
    """With the end of a pipe, whose other end is held as long as the builder is there, then a listening socket each."""

    targets: tuple[Target, ...]


def pack(message: Relay) -> bytes:
    """One datagram."""
    return record.encode(message)


def parse(data: bytes) -> Relay:
    """RecordError for anything else."""
    return record.decode(Relay, data, bytes_max=MESSAGE_BYTES_MAX)
