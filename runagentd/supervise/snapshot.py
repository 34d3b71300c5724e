"""Take a snapshot of an agent's folder: a private copy of its regular files and directories, and nothing else.

Runs as: the supervisor, root, in a thread (a copy takes as long as the disk takes).
Reads from strangers: yes, a whole tree whose owner may change it meanwhile, and may want root to read another's file.
What a maintainer must not break: nothing of the tree is ever named by a path of more than one part, every part is
opened relative to the open directory above it and without following symbolic links (openat2(2)), and a file is looked
at after it was opened, not before.

The threat of hard links and renames: a link to a file is made by whoever may write to a directory, where
fs.protected_hardlinks is 0 even to a file that the maker may not read; and who owns a directory may move another's
files and folders about in it. So a file is copied only where whoever could have put it there could also have read it:
  - in a folder of root's that nobody else may write to, everything is as root wanted it;
  - from the first folder on that somebody else owns, files must be that somebody's, or readable by everybody.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import hashlib
import itertools
import os
import secrets
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from runagentd import kernel
from runagentd.errors import ConfigurationError, HostError, Problem
from runagentd.plan.model import AGENT_UID
from runagentd.wire.manifest import CONFIGURATION_FILES

ENTRIES_MAX = 100_000
BYTES_MAX = 2 * 1024**3
DEPTH_MAX = 64
PATHS_BYTES_MAX = 16 * 1024**2
SKIPPED_MAX = 50
"""names of skipped files that are told; beyond them only how many"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What may be in a tree, and whose the copy is."""

    what: str
    """how the tree is called in problems"""
    entries_max: int
    entries_hint: str
    path_bytes_max: int
    """of all paths together: they are held in memory, and 10^5 of them could be 16 KiB long each"""
    path_bytes_hint: str
    bytes_max: int
    bytes_hint: str
    owner: int
    left_out: frozenset[str]
    strict: bool
    """what is neither a file nor a directory, a set-uid bit or an unprintable name is a problem, and not left out"""


FOLDER = Rules(
    what="the folder",
    entries_max=ENTRIES_MAX,
    entries_hint="serve the agent's own folder, not one above it",
    path_bytes_max=PATHS_BYTES_MAX,
    path_bytes_hint="give shorter names, or fewer directories",
    bytes_max=BYTES_MAX,
    bytes_hint="keep large data outside the folder, and grant it with the policy's files.read",
    owner=AGENT_UID,
    left_out=frozenset({".git", "__pycache__"}),
    strict=False,
)
"""An agent's folder."""

_ENVIRONMENT_MARK = "pyvenv.cfg"
_PIECE = 1024 * 1024
_NAMES_LOOKED_AT = 1000
"""for one that is spelled wrongly, in a folder that may be anything"""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
# O_NONBLOCK: a FIFO that took the file's place must not make us wait for its writer. O_NOCTTY: nor a terminal ours.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_ROOT, _ANYBODY = 0, -1
_RACE = (errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.ENXIO)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A finished copy. Equal folders have equal digests, whoever owned them and whenever they were written."""

    path: Path
    digest: str
    files: int
    size: int
    """bytes"""
    skipped: tuple[str, ...]
    """what was left out for being neither a file nor a directory, or on another file system; for the author to read"""


class Stopped(Exception):
    """Nobody wants the copy any more."""


def take(
    folder: int,
    parent: Path,
    *,
    rules: Rules = FOLDER,
    complete: bool = False,
    stopped: Callable[[], bool] = lambda: False,
) -> Snapshot:
    """Copy the directory that `folder` is open on into a new directory below `parent`, owned as `rules` say.

    ConfigurationError names what in the folder cannot be copied; with `complete` also what would be left out, but for
    the links of a virtual environment. HostError says that the copy cannot be written; Stopped, that `stopped` said so
    on the way. Nothing is left below `parent` then.
    """
    name = secrets.token_hex(8)
    unfinished, path = parent / f"{name}.unfinished", parent / name
    copy = _Copy(rules, stopped)
    try:
        _copy_all(folder, unfinished, copy)
        if complete and copy.skipped:
            raise ConfigurationError(*copy.problems())
        unfinished.rename(path)
    except _Unwritable as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise HostError(f"{parent}: cannot write a snapshot: {error}") from error
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise ConfigurationError(Problem("", f"{rules.what} cannot be copied: {error.strerror}")) from error
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return Snapshot(path=path, digest=copy.digest(), files=copy.files, size=copy.size, skipped=copy.told())


def check_configured(folder: int) -> None:
    """ConfigurationError where a folder has no configuration, before gigabytes of what is no agent are copied.

    Only whether the name is there: what it is and holds is for the copy and the loader to say.
    """
    for name in CONFIGURATION_FILES:
        with contextlib.suppress(FileNotFoundError):
            os.lstat(name, dir_fd=folder)
            return
    hints = ["make one; 'runagentctl schema agent' says what can be in it"]
    source = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)  # scandir(3) takes no O_PATH
    try:
        with os.scandir(source) as entries:
            names = [entry.name for entry in itertools.islice(entries, _NAMES_LOOKED_AT)]
    finally:
        os.close(source)
    for name in names:
        if difflib.get_close_matches(name[:100].lower(), CONFIGURATION_FILES, n=1, cutoff=0.75):
            hints.insert(0, f'"{_shown(name)}" looks like it: rename it')
            break
    what = "the folder has no such file (nor .yaml or .yml)"
    raise ConfigurationError(Problem(CONFIGURATION_FILES[0], what, tuple(hints)))


def discard(path: Path) -> None:
    """Remove a snapshot, where it is there. Its files are root's: no process of an agent's ever sees them writable."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)


def _copy_all(folder: int, place: Path, copy: _Copy) -> None:
    try:
        place.mkdir(mode=0o755)
        target = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _Unwritable(error.strerror) from error
    try:
        source = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
        try:
            copy.directory(source, target, "", 0, _writer(_ROOT, os.fstat(source)), quiet=False)
        finally:
            os.close(source)
        _own(target, copy.rules.owner, 0o755)
    finally:
        os.close(target)


_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class _Unwritable(Exception):
    """Our own side of the copy failed: a full disk, most often."""


@dataclass(slots=True)
class _Copy:
    """One walk: what it counts against the limits, and what the digest is made of."""

    rules: Rules
    stopped: Callable[[], bool]
    files: int = 0
    size: int = 0
    entries: int = 0
    path_bytes: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    """path and kind"""
    skipped_more: int = 0
    contents: list[bytes] = field(default_factory=list)

    def directory(self, source: int, target: int, path: str, depth: int, writer: int, *, quiet: bool) -> None:
        """Copy what is in `source`. `writer` is who could have put things there; `quiet` tells nothing of links."""
        with os.scandir(source) as entries:
            # No more than are refused below: 10^8 names would fill our memory before the first of them was counted.
            most = self.rules.entries_max + 1 + len(self.rules.left_out)
            names = sorted(entry.name for entry in itertools.islice(entries, most))
        quiet = quiet or _ENVIRONMENT_MARK in names  # a virtual environment is full of links that nobody misses
        names = [name for name in names if name not in self.rules.left_out]
        left = self.rules.entries_max - self.entries
        if len(names) > left:
            raise self._too_many(f"{path}{names[left]}")  # before as many as may be are copied for nothing
        for name in names:
            below = f"{path}{name}"
            self._count(below, depth)
            try:
                kind = os.stat(name, dir_fd=source, follow_symlinks=False).st_mode
                if stat.S_ISDIR(kind):
                    self._subdirectory(source, target, name, below, depth, writer, quiet=quiet)
                elif stat.S_ISREG(kind):
                    self._file(source, target, name, below, writer)
                elif not (quiet and stat.S_ISLNK(kind)):
                    self._skip(below, kind)
            except OSError as error:
                if error.errno == errno.EXDEV:
                    self._skip(below, 0)
                elif error.errno in _RACE:
                    self._skip(below, stat.S_IFLNK)  # it was something else by the time it was opened
                else:
                    raise ConfigurationError(Problem(_shown(below), f"cannot be copied: {error.strerror}")) from error

    def _subdirectory(
        self, source: int, target: int, name: str, path: str, depth: int, writer: int, *, quiet: bool
    ) -> None:
        opened = kernel.openat2(source, name, _DIRECTORY, resolve=kernel.RESOLVE_WITHIN)
        try:
            status = os.fstat(opened)
            _refuse_foreign(path, status, writer, readable=stat.S_IROTH | stat.S_IXOTH)
            made = _make_directory(target, name)
            try:
                self.contents.append(_line(path, "directory", b""))
                self.directory(opened, made, f"{path}/", depth + 1, _writer(writer, status), quiet=quiet)
                _own(made, self.rules.owner, 0o755)
            finally:
                os.close(made)
        finally:
            os.close(opened)

    def _file(self, source: int, target: int, name: str, path: str, writer: int) -> None:
        opened = kernel.openat2(source, name, _FILE, resolve=kernel.RESOLVE_WITHIN)
        try:
            status = os.fstat(opened)
            if not stat.S_ISREG(status.st_mode):
                self._skip(path, status.st_mode)
                return
            _refuse_foreign(path, status, writer, readable=stat.S_IROTH)
            if self.rules.strict and status.st_mode & (stat.S_ISUID | stat.S_ISGID):
                raise ConfigurationError(Problem(_shown(path), "has a set-uid or set-gid bit"))
            if self.size + status.st_size > self.rules.bytes_max:
                most = f"{self.rules.bytes_max / 1024**3:.3g} GiB"
                what = f"with this file {self.rules.what} is larger than {most}, the most it may be"
                raise ConfigurationError(Problem(_shown(path), what, (self.rules.bytes_hint,)))
            mode = 0o755 if status.st_mode & stat.S_IXUSR else 0o644
            copied, digest = _copy_content(opened, status, target, name, mode, self.rules.owner)
            self.files += 1
            self.size += copied
            self.contents.append(_line(path, "program" if mode == 0o755 else "file", digest))
        finally:
            os.close(opened)

    def _count(self, path: str, depth: int) -> None:
        if self.stopped():
            raise Stopped
        self.entries += 1
        self.path_bytes += len(os.fsencode(path))
        if self.entries > self.rules.entries_max:
            raise self._too_many(path)
        if self.path_bytes > self.rules.path_bytes_max:
            most = f"{self.rules.path_bytes_max:,} bytes"
            what = f"the paths in {self.rules.what} take more than {most} together, the most they may"
            raise ConfigurationError(Problem(_shown(path)[-200:], what, (self.rules.path_bytes_hint,)))
        if self.rules.strict and not path.isprintable():
            raise ConfigurationError(Problem(_shown(path), "has a name with characters that cannot be printed"))
        if depth >= DEPTH_MAX:
            raise ConfigurationError(Problem(_shown(path), f"lies more than {DEPTH_MAX} directories deep"))

    def _too_many(self, path: str) -> ConfigurationError:
        what = f"{self.rules.what} has more than {self.rules.entries_max:,} files and directories, the most it may have"
        return ConfigurationError(Problem(_shown(path), what, (self.rules.entries_hint,)))

    def _skip(self, path: str, mode: int) -> None:
        kind = _KINDS.get(stat.S_IFMT(mode), "another file system")
        if self.rules.strict:
            raise ConfigurationError(
                Problem(_shown(path), f"is {kind}, and {self.rules.what} has files and folders only")
            )
        if len(self.skipped) >= SKIPPED_MAX:
            self.skipped_more += 1
            return
        # Fifty paths of 64 long names each would be more than one reply to the operator can hold.
        self.skipped.append((_shown(path)[-200:], kind))

    def told(self) -> tuple[str, ...]:
        more = (f"{self.skipped_more} more",) if self.skipped_more else ()
        return (*(f"{path} ({kind})" for path, kind in self.skipped), *more)

    def problems(self) -> tuple[Problem, ...]:
        """What was left out, as a refusal."""
        rows = [Problem(path, f"is {kind}, and is not copied", _hints(kind)) for path, kind in self.skipped]
        return (*rows, *([Problem("", f"and {self.skipped_more} more")] if self.skipped_more else []))

    def digest(self) -> str:
        return hashlib.sha256(b"".join(sorted(self.contents))).hexdigest()


def _hints(kind: str) -> tuple[str, ...]:
    return ("put there what it leads to, or remove it",) if kind == "a symbolic link" else ("remove it",)


def _writer(above: int, status: os.stat_result) -> int:
    """Who could have put things into a directory, given who could into the one above it: a uid, or _ANYBODY."""
    if above != _ROOT:
        return above  # what is above can move this directory and everything in it
    if status.st_mode & stat.S_IWOTH:
        return _ANYBODY
    # A person's folder may be writable to the person's group: that is how many distributions set umask(2).
    if status.st_uid == _ROOT and status.st_gid != 0 and status.st_mode & stat.S_IWGRP:
        return _ANYBODY
    return status.st_uid


def _refuse_foreign(path: str, status: os.stat_result, writer: int, *, readable: int) -> None:
    if writer == _ROOT or status.st_uid == writer or status.st_mode & readable == readable:
        return
    whose = "anybody may write to" if writer == _ANYBODY else f"belongs to uid {writer}"
    raise ConfigurationError(
        Problem(
            _shown(path),
            f"belongs to uid {status.st_uid} and is not readable by everybody, in a folder that {whose}: "
            "it could be another's secret, brought here by a hard link",
            ("give the file to the folder's owner (chown), or make it readable (chmod o+r)",),
        )
    )


def _make_directory(target: int, name: str) -> int:
    try:
        os.mkdir(name, 0o755, dir_fd=target)
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=target)
    except OSError as error:
        raise _Unwritable(error.strerror) from error


def _copy_content(
    source: int, status: os.stat_result, target: int, name: str, mode: int, owner: int
) -> tuple[int, bytes]:
    """Copy at most as many bytes as the file had when it was opened: one that grows has an end all the same."""
    hashed = hashlib.sha256()
    copied = 0
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        made = os.open(name, flags, 0o600, dir_fd=target)
    except OSError as error:
        raise _Unwritable(error.strerror) from error
    try:
        while copied < status.st_size:
            piece = os.read(source, min(_PIECE, status.st_size - copied))
            if not piece:
                break
            hashed.update(piece)
            copied += len(piece)
            _write(made, piece)
        _own(made, owner, mode)
        os.utime(made, ns=(status.st_mtime_ns, status.st_mtime_ns))
    finally:
        os.close(made)
    return copied, hashed.digest()


def _write(descriptor: int, piece: bytes) -> None:
    view = memoryview(piece)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError as error:
        raise _Unwritable(error.strerror) from error


def _own(descriptor: int, owner: int, mode: int) -> None:
    """The owner first: chown(2) clears bits that chmod(2) set."""
    try:
        os.fchown(descriptor, owner, owner)
        os.fchmod(descriptor, mode)
    except OSError as error:
        raise _Unwritable(error.strerror) from error


def _line(path: str, kind: str, digest: bytes) -> bytes:
    """One entry of the content digest; a path has no NUL, and a digest always the same length."""
    return b"\0".join((os.fsencode(path), kind.encode(), digest.hex().encode())) + b"\n"


def _shown(path: str) -> str:
    """A path for a person: whatever a file name holds, this is printable."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
