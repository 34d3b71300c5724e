"""`runagentctl logs [-f] AGENT`: what an agent printed.

Runs as: root for finding and reading files, which it does not look into; a child, as nobody, for everything else.
Reads from strangers: yes, in the child: lines that an agent wrote, in files that the gateway, which may be captured,
could have put anything into. What the child prints has no control characters.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
import time
from typing import IO

from runagentd import kernel, log, names
from runagentd.errors import HostError
from runagentd.foreman import admin_client
from runagentd.state import StateDirectory

POLL_SECONDS = 0.2
LINE_BYTES_MAX = 256 * 1024
_NOBODY = 65534
_READ_BYTES = 64 * 1024


def logs(directory: StateDirectory, agent: str, *, follow: bool, as_json: bool) -> int:
    """Print what there is, and with `follow` what comes, until Ctrl+C; the exit status."""
    folder = _open_folder(directory)
    try:
        identity = _identity(directory, folder, agent)
        if identity is None:
            raise HostError(
                f"agent {agent!r} has printed nothing, or is not known", "'runagentctl ps' lists the agents"
            )
        return _through_nobody(folder, f"{names.storage_name(identity)}.log", follow=follow, as_json=as_json)
    finally:
        os.close(folder)


def _open_folder(directory: StateDirectory) -> int:
    """The folder of log files, step by step: the gateway owns it, and could have made any of it a symbolic link."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    gateway = os.open(directory.gateway, flags)
    try:
        return os.open("logs", flags, dir_fd=gateway)
    except FileNotFoundError as error:
        raise HostError(f"nothing was ever served from {directory.path}") from error
    finally:
        os.close(gateway)


def _identity(directory: StateDirectory, folder: int, agent: str) -> str | None:
    """The id of an agent: of whose id there is a file, or whom a running supervisor knows by this id or name."""
    file = _open_file(folder, f"{names.storage_name(agent)}.log")
    if file is not None:
        os.close(file)
        return agent
    try:
        rows = admin_client.instances(directory.admin_socket).instances
    except HostError:
        return None
    return next((row.agent for row in rows if agent in (row.agent, row.agent_name)), None)


def _open_file(folder: int, name: str) -> int | None:
    """A regular file, or None: a FIFO in its place would hang us, a symbolic link would show us a file of root's."""
    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return None
    if stat.S_ISREG(os.fstat(file).st_mode):
        return file
    os.close(file)
    return None


def _through_nobody(folder: int, name: str, *, follow: bool, as_json: bool) -> int:
    """Read as root, in this process; look at it and print it in a child that has given up everything."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.close(writing)
            os.close(folder)
            if os.geteuid() == 0:
                kernel.drop_privileges(_NOBODY, _NOBODY)
            with os.fdopen(reading, "rb") as stream:
                status = log.printing(lambda: show(stream, sys.stdout, as_json=as_json), name="runagentctl")
        finally:
            os._exit(status)
    os.close(reading)
    try:
        _copy(folder, name, writing, follow=follow)
    except BrokenPipeError:
        pass  # the child has ended: whoever read our output is gone
    except KeyboardInterrupt:
        return 130
    finally:
        os.close(writing)
        _, status = os.waitpid(child, 0)
    return 1 if status else 0


def _copy(folder: int, name: str, writing: int, *, follow: bool) -> None:
    """The older file, the newer one, and with `follow` what is appended, across rotations."""
    older = _open_file(folder, f"{name}.1")
    if older is not None:
        _copy_rest(older, writing)
        os.close(older)
    current = _open_file(folder, name)
    while True:
        if current is not None:
            _copy_rest(current, writing)
        if not follow:
            break
        newest = _open_file(folder, name)
        if newest is not None and (current is None or not os.path.sameopenfile(current, newest)):
            if current is not None:
                _copy_rest(current, writing)  # what was written between our last look and the rotation
                os.close(current)
            current = newest
            continue
        if newest is not None:
            os.close(newest)
        time.sleep(POLL_SECONDS)
    if current is not None:
        os.close(current)


def _copy_rest(file: int, writing: int) -> None:
    while data := os.read(file, _READ_BYTES):
        view = memoryview(data)
        while view:
            view = view[os.write(writing, view) :]


def show(stream: IO[bytes], out: IO[str], *, as_json: bool) -> int:
    """Lines of a log file, for a person or as JSON; what is no such line is passed over. 0, the exit status."""
    while line := stream.readline(LINE_BYTES_MAX):
        row = _row(line)
        if row is None:
            continue
        if as_json:
            out.write(json.dumps(row, separators=(",", ":")) + "\n")
        else:
            out.write(f"{row['time']} {row['stream']}| {log.escape(row['text'])}\n")
        out.flush()
    return 0


def _row(line: bytes) -> dict[str, str] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    row = {key: found.get(key) for key in ("time", "agent", "instance", "stream", "text")}
    if not all(isinstance(value, str) for value in row.values()):
        return None
    return {key: log.escape(str(value)) if key != "text" else str(value) for key, value in row.items()}
