"""Find the agent files of a host: those of a folder, and single ones. The part of reading them that has effects.

Runs as: runagentctl, root.
Reads from strangers: nothing, and makes sure of it: a file says which code runs under which policy, so one that
somebody else than root could have written, or put in its place, is refused.
A file is opened once, by its name in the opened folder, and judged by its descriptor; a link is not followed.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runagentd import changeable
from runagentd.config import agent_file
from runagentd.config.agent_file import AgentFile
from runagentd.errors import ConfigurationError, Problem
from runagentd.wire.versions import MANAGED_BY_BYTES_MAX

FILES_MAX = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A file that cannot be used, and so nobody knows which agent it is about."""

    path: Path
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """All files of the places that were named, in the order of their paths."""

    files: tuple[AgentFile, ...]
    broken: tuple[Broken, ...]
    folders: frozenset[Path]
    """all of whose files are among these"""

    def covers(self, file: str) -> bool:
        """Whether an agent that this file manages should be among these, were it still to be there."""
        path = Path(file)
        return path.parent in self.folders or path in {
            *(file.path for file in self.files),
            *(broken.path for broken in self.broken),
        }


def find(places: Sequence[Path]) -> Found:
    """Read the files of these folders, and these files. ConfigurationError where a place itself is not to be used."""
    paths: set[Path] = set()
    folders: set[Path] = set()
    files: list[AgentFile] = []
    broken: list[Broken] = []
    for place in places:
        path = Path(os.path.abspath(place))
        if os.path.isdir(path):
            folders.add(path)
            paths |= {path / name for name in _listed(path)}
        elif os.path.lexists(path):
            paths.add(path)
        else:
            # Said before its folder is looked at: what is wrong is the name that was given, and not who may write /tmp.
            broken.append(Broken(path=path, problems=(Problem(str(path), "no such file or folder"),)))
    if len(paths) > FILES_MAX:
        raise ConfigurationError(Problem("", f"{len(paths)} agent files are more than {FILES_MAX}, the most here"))
    for path in sorted(paths):
        try:
            files.append(agent_file.parse(_read(path), path))
        except ConfigurationError as error:
            broken.append(Broken(path=path, problems=error.problems))
    return Found(files=tuple(files), broken=tuple(broken), folders=frozenset(folders))


def _open_folder(path: Path) -> int:
    """ConfigurationError where others could put a file in it, or another folder in its place."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigurationError(Problem(str(path), _words(error))) from error
    try:
        if reason := _untrusted(os.fstat(descriptor)):
            raise ConfigurationError(_refused(path, reason, folder=True))
        place, why = changeable.on_the_way(str(path), _owners())
        if place:
            what = f"{why}, and the way to {path} leads through it: another agent could be served"
            raise ConfigurationError(Problem(place, what, (_ALONE,)))
    except BaseException as error:
        os.close(descriptor)
        if isinstance(error, OSError):
            raise ConfigurationError(Problem(str(path), _words(error))) from error
        raise
    return descriptor


def _listed(path: Path) -> list[str]:
    folder = _open_folder(path)
    try:
        # As editors and package managers leave them, hidden files are nobody's agents.
        names = [name for name in os.listdir(folder) if name.endswith(".toml") and not name.startswith(".")]
    finally:
        os.close(folder)
    if len(names) > FILES_MAX:
        raise ConfigurationError(Problem(str(path), f"{len(names)} files are more than {FILES_MAX}, the most here"))
    return names


def _read(path: Path) -> bytes:
    """The bytes of a file; ConfigurationError where it, or the folder that it lies in, is not the operator's alone."""
    try:
        if len(str(path).encode()) > MANAGED_BY_BYTES_MAX:
            raise ConfigurationError(Problem(str(path), f"its path has more than {MANAGED_BY_BYTES_MAX} bytes"))
    except UnicodeEncodeError as error:
        raise ConfigurationError(Problem(ascii(str(path)), "its name is not UTF-8", ("rename it",))) from error
    folder = _open_folder(path.parent)
    # Non-blocking: a FIFO would keep us waiting in open(2) before it could be told apart.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        descriptor = os.open(path.name, flags, dir_fd=folder)
    except OSError as error:
        raise ConfigurationError(Problem(str(path), _words(error))) from error
    finally:
        os.close(folder)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ConfigurationError(Problem(str(path), "is not a regular file"))
        if reason := _untrusted(status):
            raise ConfigurationError(_refused(path, reason))
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(agent_file.FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigurationError(Problem(str(path), _words(error))) from error
    finally:
        os.close(descriptor)


_ALONE = "have root own it and nobody else write it (chown root, chmod go-w), or keep the files elsewhere"


def _owners() -> tuple[int, ...]:
    return 0, os.geteuid()


def _untrusted(status: os.stat_result) -> tuple[str, str] | None:
    """Why this is not the operator's alone, and what to run; None where it is."""
    if status.st_uid not in _owners():
        return f"belongs to uid {status.st_uid}, who could have another agent served", "chown root"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "others than its owner may write it, and so have another agent served", "chmod go-w"
    return None


def _refused(path: Path, reason: tuple[str, str], *, folder: bool = False) -> Problem:
    what, command = reason
    if folder:
        # No command: the folder may be one, such as /tmp, that has to be as it is.
        return Problem(str(path), what, ("keep agent files in a folder that only root can write",))
    return Problem(str(path), what, (f"look at what it says, then run {command} on it",))


def _words(error: OSError) -> str:
    match error.errno:
        case errno.ELOOP:
            return "is a link: name the file that it leads to"
        case errno.ENOENT | errno.ENOTDIR:
            return "no such file or folder"
        case errno.ENXIO:
            return "is not a regular file"
        case _:
            return f"cannot be opened: {os.strerror(error.errno or 0).lower()}"
