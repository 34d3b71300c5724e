"""The state directory: what a daemon keeps on the disk, and whose it is.

Runs as: root (the foreman, the supervisor, runagentctl).
Reads from strangers: nothing; the directory is 0700 and root's.

    format id lock control.sock admin.sock deployments.db jail/ scratch/ keys/ gateway/
    agents/NAME/{versions/DIGEST,data,origin}
    environments/{trees/DIGEST,requests/DIGEST,incoming}
"""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
from pathlib import Path

from runagentd.errors import HostError

FORMAT = "runagentd 1\n"
DEFAULT = "/var/lib/runagentd"
SCRATCH = "/var/tmp"
"""For state that lives as long as one command: not /tmp, for a tmpfs has idmapped mounts only since Linux 6.3."""


class StateDirectory:
    """One state directory, opened and checked."""

    def __init__(self, path: Path, identity: str) -> None:
        self.path = path
        self.id = identity

    @property
    def control_socket(self) -> Path:
        return self.path / "control.sock"

    @property
    def admin_socket(self) -> Path:
        return self.path / "admin.sock"

    @property
    def keys(self) -> Path:
        return self.path / "keys"

    @property
    def gateway(self) -> Path:
        return self.path / "gateway"

    @property
    def agents(self) -> Path:
        return self.path / "agents"

    @property
    def environments(self) -> Path:
        return self.path / "environments"

    @property
    def audience(self) -> str:
        """What the tokens of this daemon are for: `aud` (RFC 7519, section 4.1.3)."""
        return f"urn:runagentd:{self.id}"

    @property
    def issuer(self) -> str:
        return f"urn:runagentd:{self.id}"


def create_or_open(path: Path) -> StateDirectory:
    """Make a state directory, or open the one that is there. HostError where it is not one, or is not private."""
    path = path.absolute()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if not os.listdir(descriptor):
                _fill(descriptor, path)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise HostError(f"cannot make the state directory {path}: {error.strerror}") from error
    if not (path / "format").exists():
        raise HostError(f"{path} is not a state directory of runagentd", "give --state-dir a new or an empty folder")
    return open_existing(path)


def _fill(directory: int, path: Path) -> None:
    """Write what makes an empty directory one of ours. HostError, and nothing written, where others can write there.

    Whoever can would put a link in the place of what root is about to write.
    """
    status = os.fstat(directory)
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise _not_private(path)
    os.fchmod(directory, 0o700)
    for folder in ("agents", "gateway", "jail", "scratch", "keys"):
        os.mkdir(folder, 0o700, dir_fd=directory)
    for name, text in (("id", secrets.token_hex(8) + "\n"), ("format", FORMAT)):
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with open(os.open(name, flags, 0o600, dir_fd=directory), "w", encoding="ascii") as file:
            file.write(text)


def _not_private(path: Path) -> HostError:
    return HostError(f"{path} must belong to root alone", f"chown root: {path}; chmod 0700 {path}")


def open_existing(path: Path) -> StateDirectory:
    """Open a state directory that must be there."""
    path = path.absolute()
    try:
        status = path.stat()
        found = (path / "format").read_text()
        identity = (path / "id").read_text().strip()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise HostError(
            f"{path} is not a state directory of runagentd", "give --state-dir, or start 'runagentd serve' first"
        ) from error
    except PermissionError as error:
        raise HostError(f"{path} can only be opened by root", "run this as root") from error
    if found != FORMAT:
        raise HostError(f"{path} has the format {found.strip()!r}, this version knows {FORMAT.strip()!r}")
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise _not_private(path)
    if len(identity) != 16 or any(letter not in "0123456789abcdef" for letter in identity):
        raise HostError(f"{path}/id is damaged: {identity!r:.40}")
    return StateDirectory(path, identity)


def lock(directory: StateDirectory) -> int:
    """Hold the directory until the descriptor is closed. HostError where another daemon holds it."""
    descriptor = os.open(directory.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise HostError(
            f"another runagentd uses {directory.path}", "stop it, or give this one its own --state-dir"
        ) from error
    return descriptor


def make_database(path: Path) -> None:
    """Make the private, empty file of an SQLite database, where it is not there. OSError where something else is.

    Without opening it. Whoever closes any descriptor of a file gives up all of the process's locks on it (fcntl(2)),
    those of another connection to it, too: the next program that is done with the database would then take its log
    away from under that one, which from then on sees no change and damages the file with its own
    (sqlite.org/howtocorrupt.html, section 2.2).
    """
    try:
        os.mknod(path, 0o600 | stat.S_IFREG)
    except FileExistsError:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise
