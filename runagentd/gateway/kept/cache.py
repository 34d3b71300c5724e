"""The response cache: answers that an entrypoint's author has said may be kept, and for whom.

Runs as: the gateway.
Reads from strangers: arguments, of which only digests are kept, and answers of agents.
Everything belongs to a partition: a principal, a tenant, or everybody. Nobody can see, revalidate or wait for what is
in another's. Where there is no more room, the largest partition loses its oldest entries, so that none can push a
smaller one out. Only whole, successful answers get in.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from runagentd.gateway.values import Value

ENTRY_OVERHEAD = 600
"""What an entry takes beside its values (measured with tracemalloc, one value of 100 bytes)."""
VALUE_OVERHEAD = 130
SHARE = 8
"""No entry is larger than this part of the whole."""


class Entry(msgspec.Struct, frozen=True):
    """One answer. Times are on time.monotonic()."""

    values: tuple[Value, ...]
    etag: str
    stored: float
    ttl: int
    swr: int
    size: int
    agent: str
    tag: str
    request_id: str
    """of the request that made it"""


@dataclass
class Counts:
    """What happened, of one agent's entrypoints, since the gateway started."""

    hits: int = 0
    stale: int = 0
    misses: int = 0
    joined: int = 0
    stored: int = 0
    evicted: int = 0


@dataclass
class _Partition:
    entries: OrderedDict[bytes, Entry] = field(default_factory=OrderedDict)
    size: int = 0


class Cache:
    """Bounded by bytes; the least recently used entry of the largest partition goes first."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.size = 0
        self.counts: dict[str, Counts] = {}
        self._partitions: dict[str, _Partition] = {}

    def find(self, partition: str, key: bytes) -> Entry | None:
        """What is there, fresh or not."""
        found = self._partitions.get(partition)
        entry = found.entries.get(key) if found is not None else None
        if entry is not None and found is not None:
            found.entries.move_to_end(key)
        return entry

    def store(self, partition: str, key: bytes, entry: Entry) -> bool:
        """Whether there is room for it."""
        if entry.size > self.bytes_max // SHARE:
            return False
        self._drop(partition, key)
        found = self._partitions.setdefault(partition, _Partition())
        found.entries[key] = entry
        found.size += entry.size
        self.size += entry.size
        self.count(entry.agent).stored += 1
        self._make_room()
        return True

    def resize(self, bytes_max: int) -> None:
        """Another bound from now on."""
        self.bytes_max = bytes_max
        self._make_room()

    def purge(self, agent: str = "", tag: str = "") -> int:
        """How many were thrown away: those of an agent, of its entrypoint, or all."""
        doomed = [
            (partition, key)
            for partition, found in self._partitions.items()
            for key, entry in found.entries.items()
            if agent in ("", entry.agent) and tag in ("", entry.tag)
        ]
        for partition, key in doomed:
            self._drop(partition, key)
        return len(doomed)

    def entries_of(self, agent: str) -> tuple[int, int]:
        """(how many entries, how many bytes) of an agent."""
        sizes = [
            entry.size
            for found in self._partitions.values()
            for entry in found.entries.values()
            if entry.agent == agent
        ]
        return len(sizes), sum(sizes)

    def count(self, agent: str) -> Counts:
        """The counters of an agent."""
        counts = self.counts.get(agent)
        if counts is None:
            counts = self.counts[agent] = Counts()
        return counts

    def _make_room(self) -> None:
        while self.size > self.bytes_max:
            largest = max(self._partitions, key=lambda name: self._partitions[name].size)
            key, entry = next(iter(self._partitions[largest].entries.items()))
            self._drop(largest, key)
            self.count(entry.agent).evicted += 1

    def _drop(self, partition: str, key: bytes) -> None:
        found = self._partitions.get(partition)
        entry = found.entries.pop(key, None) if found is not None else None
        if entry is None or found is None:
            return
        found.size -= entry.size
        self.size -= entry.size
        if not found.entries:
            del self._partitions[partition]


def size_of(values: Sequence[Value]) -> int:
    """What an entry of these values takes in memory."""
    return ENTRY_OVERHEAD + sum(VALUE_OVERHEAD + len(value.body) for value in values)


def etag_of(values: Sequence[Value]) -> str:
    """A strong one (RFC 9110, section 8.8.3): of the bytes alone."""
    digest = hashlib.sha256()
    for value in values:
        digest.update(b"%d:" % len(value.body))
        digest.update(value.body)
    return f'"{digest.hexdigest()[:32]}"'


def key_of(*parts: bytes) -> bytes:
    """A digest of all parts; each with its length, so that no two lists of parts are one."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(b"%d:" % len(part))
        digest.update(part)
    return digest.digest()
