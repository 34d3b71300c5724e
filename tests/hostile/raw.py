"""A client that sends exactly the bytes that a test says, and reads what comes back as strictly as a proxy would."""

from __future__ import annotations

import dataclasses
import json
import re
import socket
import threading
from dataclasses import dataclass

from runagentd.wire.channel import Frame
from tests.fakes_gateway import LIMITS, FakeRunner, Gateway

SECONDS = 10.0
MANY = dataclasses.replace(LIMITS, concurrency=64, queue=64)
PROBE = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"

_HEAD = re.compile(rb"HTTP/1\.1 ([0-9]{3}) [ -~]*\r\n((?:[A-Za-z-]+: [ -~]*\r\n)+)\r\n")


@dataclass(frozen=True)
class Answer:
    """One answer, taken apart."""

    status: int
    fields: dict[str, str]
    body: bytes


def split_answer(data: bytes) -> tuple[Answer, bytes] | None:
    """The answer at the start of `data` and what follows it; None where it is not complete yet.

    AssertionError where it is none: what we send must be beyond doubt, too.
    """
    if b"\r\n\r\n" not in data:
        return None
    head = _HEAD.match(data)
    assert head is not None, data[:300]
    lines = head[2].decode("ascii").split("\r\n")[:-1]
    fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    assert len(fields) == len(lines), "a field was sent twice"
    status = int(head[1])
    if status == 101:
        return Answer(status, fields, b""), data[head.end() :]
    assert "transfer-encoding" not in fields
    size = 0 if status == 204 else int(fields["content-length"])
    end = head.end() + size
    return (Answer(status, fields, data[head.end() : end]), data[end:]) if len(data) >= end else None


class Client:
    """One connection."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """A server that has closed already is no error: what it had to say can still be read."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def half_close(self) -> None:
        """Nothing more will come from us."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def answer(self) -> Answer | None:
        """The next answer, or None at the end of the connection."""
        while (found := split_answer(self.received)) is None:
            if not self._more():
                assert self.received == b"", self.received
                return None
        answer, self.received = found
        return answer

    def all(self) -> bytes:
        """All that comes until the end."""
        while self._more():
            pass
        return self.received

    def exactly(self, size: int) -> bytes:
        """The next `size` bytes, or fewer at the end."""
        while len(self.received) < size and self._more():
            pass
        found, self.received = self.received[:size], self.received[size:]
        return found

    def _more(self) -> bool:
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            return False
        self.received += data
        return bool(data)


class Recorder:
    """Plays an agent that answers 1 to all calls, and remembers what it was asked."""

    def __init__(self, runner: FakeRunner) -> None:
        self._runner = runner
        self._calls: list[str] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._runner.socket.settimeout(None)
        while True:
            try:
                frame = self._runner.receive()
            except (EOFError, OSError):
                return
            if frame.type is Frame.CALL:
                self._calls.append(frame.body.decode())
                if json.loads(frame.header)["mode"] == "stream":
                    self._runner.chunk(frame.call, 1)
                    self._runner.end(frame.call, 1)
                else:
                    self._runner.result(frame.call, 1)

    def taken(self) -> list[str]:
        """The arguments of every call since the last time. The answer to a call is sent after it was noted here."""
        calls, self._calls = self._calls, []
        return calls


@dataclass(frozen=True)
class Front:
    """A gateway, and what its one agent was asked."""

    gateway: Gateway
    recorder: Recorder
