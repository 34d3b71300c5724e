"""A Python runtime as a value: what an interpreter said of itself, and the files of the host that it needs.

Runs as: the foreman, the supervisor and runagentctl. Pure.
Reads from strangers: nothing; the interpreters are the operator's (`interpreters` asks them).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

OLDEST = (3, 11)
"""What the launcher and the runner are written for, as the daemon itself."""
VERSION = re.compile(r"3\.(?:1[1-9]|[2-9][0-9])")
"""A minor version of CPython as operators and authors write it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeLink:
    """A symbolic link to make: `/lib64` to `usr/lib64`, the loader's names of libraries."""

    path: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonRuntime:
    """One CPython that agents can run on."""

    version: str
    """the minor version, "3.13": what an agent asks for"""
    release: str
    """"3.13.1" """
    build: str
    """sys.version: when and by what it was compiled"""
    abi: str
    """equal where compiled packages, and their bytecode, are good for both"""
    prefix: str
    interpreter: str
    """the real path, without a virtual environment around it"""
    paths: tuple[str, ...]
    """real files and folders that it and its standard library need, to be bound at the same place"""
    links: tuple[RuntimeLink, ...]

    def __post_init__(self) -> None:
        if not VERSION.fullmatch(self.version):
            raise ValueError(f"{self.version!r:.40} is not a minor version of CPython")
