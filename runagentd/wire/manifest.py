"""The manifest: what the throwaway loader makes of an agent's files, and all that others know of them.

Runs as: the loader writes it; the supervisor, the gateway and the runner read it. Pure.
Reads from strangers: yes. A loader that parsed hostile files may be hostile itself, so the reading side checks again.
At most 64 KiB as a record (`wire.record`).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from runagentd.names import NAME_MAX, NAME_RULE, is_name
from runagentd.wire.runtime import VERSION

CONFIGURATION_FILES = ("runagent.config.json", "runagent.config.yaml", "runagent.config.yml")
"""What an agent says of itself stands in one of these; the first that is there counts."""
MANIFEST_BYTES = 64 * 1024
ENTRYPOINTS_MAX = 256
REQUIREMENTS_MAX = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Extraction:
    """One output of an extractor: `name` gets the first match of the JSONPath `path`, or null."""

    name: str
    path: str


CACHE_SECONDS_MAX = 7 * 24 * 3600


class CacheScope(enum.StrEnum):
    """Who shares kept answers."""

    PRIVATE = "private"
    TENANT = "tenant"
    PUBLIC = "public"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caching:
    """Answers of an entrypoint are good for `ttl` seconds, and for `swr` more while a new one is made."""

    ttl: int
    swr: int
    scope: CacheScope
    streams: bool
    max_bytes: int

    def __post_init__(self) -> None:
        if not (1 <= self.ttl <= CACHE_SECONDS_MAX and 0 <= self.swr <= CACHE_SECONDS_MAX and self.max_bytes >= 1):
            raise ValueError("a cache has a ttl of 1 second to 7 days, and keeps at least one byte")


TIMEOUT_MS_MAX = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrypoint:
    """A function, named by its tag. `module` is a dotted path within `file` ("run", "app.invoke")."""

    tag: str
    file: str
    module: str
    extractor: tuple[Extraction, ...] = ()
    description: str = ""
    cache: Caching | None = None
    timeout_ms: int | None = None
    """how long a call may take; a policy's and a caller's limits count where they are nearer"""

    def __post_init__(self) -> None:
        if self.timeout_ms is not None and not 1 <= self.timeout_ms <= TIMEOUT_MS_MAX:
            raise ValueError("an entrypoint's timeout is 1 ms to 1 day")
        if not 1 <= len(self.tag) <= NAME_MAX:
            raise ValueError(f"a tag has 1 to {NAME_MAX} characters")
        check_relative(self.file)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """One environment variable of the agent, from `env_vars` and `.env`."""

    name: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """An agent as its folder describes it."""

    agent_id: str
    agent_name: str
    description: str
    framework: str
    version: str
    entrypoints: tuple[Entrypoint, ...]
    environment: tuple[Variable, ...]
    persistent_folders: tuple[str, ...]
    """Folders below the agent's own, relative, without "." or "..".

    They are kept across instances where the policy grants it.
    """
    import_paths: tuple[str, ...]
    """Relative folders to put on sys.path after the agent's own folder: a `.venv`'s site-packages."""
    requirements: tuple[str, ...]
    """Files that say which packages to install; the first is the main one, the others are those that it includes."""
    hints: tuple[str, ...]
    """What the loader would tell the author: ignored fields, tag conventions. Never an error."""
    health: str = ""
    """the tag of an entrypoint that must answer before a version gets calls; empty for none"""
    python: str = ""
    """the minor version of CPython that it asks for, "3.13"; empty for the daemon's own"""

    def __post_init__(self) -> None:
        for label, text in (("id", self.agent_id), ("name", self.agent_name)):
            if not is_name(text):
                raise ValueError(f"an agent's {label} has {NAME_RULE}")
        if not 1 <= len(self.entrypoints) <= ENTRYPOINTS_MAX:
            raise ValueError(f"an agent has 1 to {ENTRYPOINTS_MAX} entrypoints")
        if len({entrypoint.tag for entrypoint in self.entrypoints}) != len(self.entrypoints):
            raise ValueError("the tags of an agent are unique")
        if self.health and self.health not in {entrypoint.tag for entrypoint in self.entrypoints}:
            raise ValueError("the health of an agent is the tag of one of its entrypoints")
        if self.python and not VERSION.fullmatch(self.python):
            raise ValueError("the python of an agent is a minor version of CPython, from 3.11 on")
        if len(self.requirements) > REQUIREMENTS_MAX:
            raise ValueError(f"an agent has at most {REQUIREMENTS_MAX} files of requirements")
        for folder in (*self.persistent_folders, *self.import_paths, *self.requirements):
            check_relative(folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadProblem:
    """One thing that is wrong with the agent's files: what, where, what now (see `errors.Problem`)."""

    where: str
    what: str
    hints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """All that a loader says: a manifest, or the problems that prevent one."""

    manifest: Manifest | None
    problems: tuple[LoadProblem, ...]


def check_relative(path: str) -> None:
    """ValueError unless `path` names something strictly below a folder, in the plainest spelling."""
    parts = path.split("/")
    if not path or "\0" in path or len(path) > 1024 or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"{path!r:.120} is not a plain relative path")
