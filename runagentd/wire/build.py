"""What the supervisor and a builder say to each other: the job on a sealed memfd, the answers one datagram each.

Runs as: the supervisor and the builder. Pure, standard library only.
Reads from strangers: yes. A builder unpacks what strangers made, and may be captured: the supervisor takes from it a
stage, a number and a text within bounds, and looks at the tree that it made as at anybody's.

    builder ──Listening + sockets──► supervisor          where there is an index
    builder ──Progress──► supervisor                     any number of times
    builder ──Built | NotBuilt──► supervisor             once, the last
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from runagentd.wire import record
from runagentd.wire.manifest import check_relative

JOB_BYTES_MAX = 16 * 1024 * 1024
WORDS_MAX = 4096
"""Characters of the resolver's own words."""
MESSAGE_BYTES_MAX = 4 * WORDS_MAX + 1024
"""A character has up to four bytes in UTF-8."""
HOSTS_MAX = 16

LOCK, PROJECT = "uv.lock", "pyproject.toml"
"""Names of files that are not lists of requirements."""
STAGE = "/stage"
"""Where a builder works: the one file system that it can write to."""
SITE = "site"
"""The folder in it that becomes the environment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequirementsFile:
    """One file of the agent's folder. `name` is relative."""

    name: str
    content: bytes

    def __post_init__(self) -> None:
        check_relative(self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One that the builder may connect to. `address` is where it finds it, on its own interface lo."""

    name: str
    port: int
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildJob:
    """Install what the first of `files` asks for."""

    files: tuple[RequirementsFile, ...]
    index: str
    """the address of a package index, credentials included; empty where nothing but the wheel directory is there"""
    hosts: tuple[Host, ...]
    authorities: bytes
    """PEM of who signs the index's certificate; empty for whom the system trusts"""
    wheels: bool
    """a wheel directory came along"""
    source: bool
    """packages may be built from source, which runs their code"""
    installer: str
    """the path of uv on the host"""
    loader: str
    """the path of the dynamic loader that uv is started by; empty where it needs none"""
    interpreter: str
    """the path of the Python that will import the packages, the same inside and on the host"""
    target: str
    """where the environment will lie in a sandbox"""


class Phase(enum.StrEnum):
    RESOLVING = "resolving"
    FETCHING = "fetching"
    INSTALLING = "installing"
    COMPILING = "compiling"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """With a listening socket for each of the job's hosts, in their order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """`packages` is 0 until it is known how many there are; `there` is how many of them were fetched."""

    phase: Phase
    packages: int
    there: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """The folder SITE is complete."""

    packages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NotBuilt:
    """`words` are the installer's own; `full` says that it ran out of room."""

    words: str
    full: bool


Answer = Listening | Progress | Built | NotBuilt

_KINDS: dict[int, type[Answer]] = {1: Listening, 2: Progress, 3: Built, 4: NotBuilt}
_NUMBERS = {kind: number for number, kind in _KINDS.items()}


def pack(answer: Answer) -> bytes:
    """One datagram."""
    return record.encode_numbered(_NUMBERS[type(answer)], answer)


def parse(data: bytes) -> Answer:
    """RecordError for anything that is not one answer of a builder's."""
    return record.decode_numbered(_KINDS, data, what="an answer of a builder", bytes_max=MESSAGE_BYTES_MAX)
