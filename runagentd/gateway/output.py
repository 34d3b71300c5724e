"""What agents print: bounded lines, labelled, kept in a file per agent and echoed to the gateway's own log.

Runs as: the gateway.
Reads from strangers: yes, the standard output and error of instances: any bytes, at any rate. Whatever they are, the
pipe is read (a full pipe would block the agent's print for ever), and no more is kept than the agent's policy allows.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Callable
from typing import Protocol, cast

from runagentd import names
from runagentd.gateway.rotating import RotatingFile
from runagentd.log import Log, utc
from runagentd.wire.control import CallLimits

FILE_BYTES_MAX = 4 * 1024 * 1024
"""Of one file; an agent has two, `NAME.log` and the one before, `NAME.log.1`."""
MINUTE_SECONDS = 60.0
LINE_COST = 64
"""What a line costs beside its own bytes: its labels. Without it, a flood of empty lines would cost us far more work
than the number of its bytes says."""


class Printer(Protocol):
    """The agent whose output it is."""

    @property
    def id(self) -> str: ...
    @property
    def limits(self) -> CallLimits: ...


class Lines:
    """Bytes in, lines out, each of at most `line_bytes` bytes, and together `minute_bytes` in a minute. Pure.

    A line that is too long is cut, and its rest dropped. When a minute's bytes are used up, all that comes until its
    end is dropped. What was dropped is told as a number with the next line that is kept.
    """

    def __init__(self, *, line_bytes: int, minute_bytes: int) -> None:
        self._line_bytes = max(1, line_bytes)
        self._minute_bytes = minute_bytes
        self._buffer = bytearray()
        self._cutting = False
        self._window_start = float("-inf")
        self._window_bytes = 0
        self._dropped = 0

    def feed(self, data: bytes, now: float) -> list[tuple[str, int]]:
        """Complete lines, each with the number of bytes that were dropped before it."""
        lines: list[tuple[str, int]] = []
        start = 0
        if self._used_up(now):
            # Nothing of this is kept, so it is not looked at line by line: this is where a flood ends up.
            start = data.rfind(b"\n") + 1
            if start:
                self._dropped += len(self._buffer) + start
                self._buffer.clear()
        while (end := data.find(b"\n", start)) >= 0:
            self._add(data[start:end])
            lines += self._finish(now)
            start = end + 1
        self._add(data[start:])
        return lines

    def close(self, now: float) -> list[tuple[str, int]]:
        """What is left when the stream ends."""
        return self._finish(now) if self._buffer or self._cutting else []

    def take_dropped(self) -> int:
        """How many bytes were dropped and not yet told; told from now on."""
        dropped, self._dropped = self._dropped, 0
        return dropped

    def _add(self, piece: bytes) -> None:
        room = self._line_bytes - len(self._buffer)
        self._buffer += piece[:room]
        if len(piece) > room:
            self._cutting = True
            self._dropped += len(piece) - room

    def _finish(self, now: float) -> list[tuple[str, int]]:
        line = bytes(self._buffer)
        self._buffer.clear()
        self._cutting = False
        cost = len(line) + LINE_COST
        if self._used_up(now) or self._window_bytes + cost > self._minute_bytes:
            self._window_bytes = self._minute_bytes
            self._dropped += len(line) + 1
            return []
        self._window_bytes += cost
        return [(line.decode("utf-8", "backslashreplace"), self.take_dropped())]

    def _used_up(self, now: float) -> bool:
        if now - self._window_start >= MINUTE_SECONDS:
            self._window_start, self._window_bytes = now, 0
        return self._window_bytes >= self._minute_bytes


class _Follower(asyncio.Protocol):
    """Reads one pipe to its end."""

    def __init__(self, lines: Lines, write: Callable[[str, int], None], over: Callable[[], None]) -> None:
        self._lines = lines
        self._write = write
        self._over = over

    def data_received(self, data: bytes) -> None:
        for text, dropped in self._lines.feed(data, time.monotonic()):
            self._write(text, dropped)

    def connection_lost(self, exc: Exception | None) -> None:
        for text, dropped in self._lines.close(time.monotonic()):
            self._write(text, dropped)
        rest = self._lines.take_dropped()
        if rest:
            self._write("", rest)
        self._over()


class _File(RotatingFile):
    """The newest lines of one agent."""

    def __init__(self, directory: int, name: str) -> None:
        super().__init__(directory, name, bytes_max=FILE_BYTES_MAX)
        self.users = 0


class Output:
    """Follows the output of every instance. `directory` is a descriptor of the folder for log files, or None."""

    def __init__(self, directory: int | None, log: Log) -> None:
        self._directory = directory
        self._log = log
        self._files: dict[str, _File] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._pipes: set[asyncio.BaseTransport] = set()
        self._disk_failed = False

    def close(self) -> None:
        """Read no more."""
        for task in self._tasks:
            task.cancel()
        for pipe in self._pipes:
            pipe.close()

    def follow(self, agent: Printer, instance: str, *, stdout: int, stderr: int) -> None:
        """Read both pipes until their end; the descriptors are ours from now on."""
        for stream, descriptor in (("stdout", stdout), ("stderr", stderr)):
            task = asyncio.get_running_loop().create_task(self._open(agent, instance, stream, descriptor))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _open(self, agent: Printer, instance: str, stream: str, descriptor: int) -> None:
        lines = Lines(line_bytes=agent.limits.log_line_bytes, minute_bytes=agent.limits.log_bytes_per_minute)
        file = self._file_of(agent.id)
        transports: list[asyncio.BaseTransport] = []

        def write(text: str, dropped: int) -> None:
            if dropped:
                self._write(file, agent.id, instance, stream, f"[{dropped} bytes dropped]", dropped=dropped)
            if text or not dropped:
                self._write(file, agent.id, instance, stream, text)

        def over() -> None:
            self._pipes.difference_update(transports)
            if file is not None:
                file.users -= 1
                if file.users == 0:
                    file.close()

        if file is not None:
            file.users += 1
        # The pipe object owns the descriptor; the transport closes it.
        pipe = os.fdopen(descriptor, "rb", buffering=0)
        try:
            transport, _ = await asyncio.get_running_loop().connect_read_pipe(
                lambda: cast(asyncio.Protocol, _Follower(lines, write, over)), pipe
            )
        except (OSError, ValueError):
            pipe.close()
            over()
        else:
            transports.append(transport)
            self._pipes.add(transport)

    def _file_of(self, agent_id: str) -> _File | None:
        if self._directory is None:
            return None
        return self._files.setdefault(agent_id, _File(self._directory, f"{names.storage_name(agent_id)}.log"))

    def _write(
        self, file: _File | None, agent: str, instance: str, stream: str, text: str, *, dropped: int = 0
    ) -> None:
        self._log.info(stream, agent=agent, text=text)
        if file is None:
            return
        row = {"time": utc(time.time()), "agent": agent, "instance": instance, "stream": stream, "text": text}
        if dropped:
            row["dropped"] = str(dropped)
        try:
            file.append(json.dumps(row, separators=(",", ":")).encode("ascii") + b"\n")
        except OSError as error:
            # A full disk must not end service; said once, not per line.
            if not self._disk_failed:
                self._disk_failed = True
                self._log.error("agents' output cannot be written to its file", problem=error.strerror)


def open_directory(data: int) -> int:
    """The folder `logs` in the gateway's data folder, made if it is not there."""
    with contextlib.suppress(FileExistsError):
        os.mkdir("logs", 0o750, dir_fd=data)
    return os.open("logs", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=data)
