"""Drive the real runner from a test: a small zygote that forks it, and a synchronous client in place of the gateway.

No sandbox: the runner does not know whether it is in one. Other packages may use this for a runner without root.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import signal
import socket
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from runagentd.wire import record
from runagentd.wire.channel import FROM_RUNNER, Frame, RawFrame, Splitter, pack
from runagentd.wire.manifest import Entrypoint, Extraction, Manifest, Variable
from tests import tried

ROOT = Path(__file__).resolve().parent.parent.parent
WAIT_SECONDS = 20.0

_ZYGOTE = """
import array, json, os, signal, socket, sys
sys.path.insert(0, sys.argv[1])
from runagentd.runner import main
from runagentd.runner.handover import Handover, Limits
requests = socket.socket(fileno=int(sys.argv[2]))
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
requests.send(b"up")
while True:
    message, fds, flags, _ = socket.recv_fds(requests, 256 * 1024, 8)
    if not message:
        os._exit(0)
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        requests.close()
        channel, supply, ready, manifest, null, out, err = fds
        os.dup2(null, 0); os.dup2(out, 1); os.dup2(err, 2)
        for fd in (null, out, err):
            os.close(fd)
        with os.fdopen(manifest, "rb") as file:
            file.seek(0)
            manifest = file.read()
        options = json.loads(message)
        main.run(main.prepare(Handover(
            channel_fd=channel, supply_fd=supply, ready_fd=ready, manifest=manifest,
            limits=Limits(**options["limits"]), app_path=options["app_path"],
        )))
    for fd in fds:
        os.close(fd)
    requests.send(str(pid).encode())
"""


class Zygote:
    """One interpreter with the runner imported, as in production without site; forks a runner for each test."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [tried.PYTHON, "-I", "-S", "-B", "-c", _ZYGOTE, str(ROOT), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={},
            )
        self._requests = ours
        ours.settimeout(WAIT_SECONDS)
        if ours.recv(16) != b"up":
            raise RuntimeError("the runner cannot be imported")

    def fork(self, options: dict[str, Any], descriptors: list[int]) -> int:
        socket.send_fds(self._requests, [json.dumps(options).encode()], descriptors)
        return int(self._requests.recv(32))

    def close(self) -> None:
        self._requests.close()
        self._process.wait(WAIT_SECONDS)


@dataclasses.dataclass(slots=True)
class Answer:
    """All frames of one call."""

    frames: list[RawFrame]

    @property
    def closing(self) -> RawFrame:
        return self.frames[-1]

    @property
    def header(self) -> dict[str, Any]:
        header: dict[str, Any] = json.loads(self.closing.header)
        return header

    @property
    def value(self) -> Any:
        if self.closing.type is not Frame.RESULT:
            raise AssertionError(f"no result but {self.closing}")
        return json.loads(self.closing.body)

    @property
    def chunks(self) -> list[Any]:
        return [json.loads(frame.body) for frame in self.frames if frame.type is Frame.CHUNK]


class FakeGateway:
    """The gateway's end of one channel, one frame at a time."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        channel.settimeout(WAIT_SECONDS)
        self._splitter = Splitter(FROM_RUNNER)
        self._frames: list[RawFrame] = []
        self._number = 0

    def send_call(
        self, tag: str, args: list[Any], kwargs: dict[str, Any], *, mode: str = "single", credits: int = 1000
    ) -> int:
        self._number += 1
        header = {"tag": tag, "mode": mode, "deadline_ms": 60_000, "credits": credits}
        body = json.dumps([args, kwargs]).encode()
        self.channel.sendall(pack(Frame.CALL, self._number, json.dumps(header).encode(), body))
        return self._number

    def cancel(self, call: int, reason: str = "client") -> None:
        self.channel.sendall(pack(Frame.CANCEL, call, json.dumps({"reason": reason}).encode()))

    def credit(self, call: int, credits: int) -> None:
        self.channel.sendall(pack(Frame.CREDIT, call, json.dumps({"credits": credits}).encode()))

    def frame(self, timeout: float = WAIT_SECONDS) -> RawFrame:
        """The next frame; TimeoutError, or EOFError at the channel's end."""
        self.channel.settimeout(timeout)
        while not self._frames:
            data = self.channel.recv(1 << 20)
            if not data:
                raise EOFError("the runner closed the channel")
            self._frames += self._splitter.feed(data)
        return self._frames.pop(0)

    def finish(self, call: int, timeout: float = WAIT_SECONDS) -> Answer:
        """All frames of `call` up to its closing one; a frame of another call is an error."""
        frames = []
        while True:
            frame = self.frame(timeout)
            if frame.call != call:
                raise AssertionError(f"expected a frame of call {call}, not {frame}")
            frames.append(frame)
            if frame.type in (Frame.RESULT, Frame.END, Frame.ERROR):
                return Answer(frames)

    def call(self, tag: str, *args: Any, **kwargs: Any) -> Answer:
        return self.finish(self.send_call(tag, list(args), kwargs))

    def stream(self, tag: str, *args: Any, **kwargs: Any) -> Answer:
        return self.finish(self.send_call(tag, list(args), kwargs, mode="stream"))

    def silent(self, seconds: float) -> bool:
        """Whether nothing comes for this long."""
        try:
            frame = self.frame(seconds)
        except TimeoutError:
            return True
        raise AssertionError(f"expected nothing, not {frame}")

    def close(self) -> None:
        self.channel.close()


class Runner:
    """One running runner with the agent of one folder."""

    def __init__(
        self,
        zygote: Zygote,
        folder: Path,
        manifest: Manifest,
        *,
        concurrency: int = 1,
        result_bytes: int = 1 << 20,
        traceback: bool = True,
    ) -> None:
        gateway, channel = socket.socketpair()
        self._supply, supply = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ready, ready = os.pipe()
        self._out, out = os.pipe()
        self._err, err = os.pipe()
        null = os.open(os.devnull, os.O_RDONLY)
        memory = os.memfd_create("manifest")
        os.write(memory, record.encode(manifest))
        limits = {
            "concurrency": concurrency, "result_bytes": result_bytes, "cancel_grace_ms": 1000, "traceback": traceback,
            "isolated": False,
        }  # fmt: skip
        theirs = [channel.detach(), supply.detach(), ready, memory, null, out, err]
        self.pid = zygote.fork({"limits": limits, "app_path": str(folder)}, theirs)
        self.pidfd = os.pidfd_open(self.pid)
        for descriptor in theirs:
            os.close(descriptor)
        self.gateway = FakeGateway(gateway)
        self._later_gateways: list[FakeGateway] = []
        self.hello = self.gateway.frame()
        self.report = self.gateway.frame()

    @property
    def description(self) -> dict[str, Any]:
        if self.report.type is not Frame.DESCRIBE:
            raise AssertionError(f"no description but {self.report.body.decode()}")
        described: dict[str, Any] = json.loads(self.report.body)
        return described

    @property
    def problems(self) -> list[dict[str, Any]]:
        if self.report.type is not Frame.FAILED:
            raise AssertionError(f"no problems but {self.report.body.decode()}")
        problems: list[dict[str, Any]] = json.loads(self.report.body)["problems"]
        return problems

    def call(self, tag: str, *args: Any, **kwargs: Any) -> Answer:
        return self.gateway.call(tag, *args, **kwargs)

    def stream(self, tag: str, *args: Any, **kwargs: Any) -> Answer:
        return self.gateway.stream(tag, *args, **kwargs)

    def is_ready(self, timeout: float = WAIT_SECONDS) -> bool:
        readable, _, _ = select.select([self._ready], [], [], timeout)
        return bool(readable) and os.read(self._ready, 16) == b"R"

    def supply_channel(self) -> FakeGateway:
        """What the supervisor does for a new gateway."""
        gateway, channel = socket.socketpair()
        with channel:
            socket.send_fds(self._supply, [b"C"], [channel.fileno()])
        self._later_gateways.append(FakeGateway(gateway))
        return self._later_gateways[-1]

    def end_supply(self) -> None:
        self._supply.close()

    def output(self, stream: str = "stdout", timeout: float = WAIT_SECONDS) -> str:
        """What has been written and not read yet; waits for something."""
        descriptor = self._out if stream == "stdout" else self._err
        readable, _, _ = select.select([descriptor], [], [], timeout)
        return os.read(descriptor, 1 << 16).decode() if readable else ""

    def has_ended(self, timeout: float) -> bool:
        return bool(select.select([self.pidfd], [], [], timeout)[0])

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        self.has_ended(WAIT_SECONDS)
        for each in (self.gateway, *self._later_gateways):
            each.close()
        self._supply.close()
        for descriptor in (self.pidfd, self._ready, self._out, self._err):
            os.close(descriptor)

    def __enter__(self) -> Runner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def manifest(
    *tags: str,
    file: str = "main.py",
    extractor: dict[str, str] | None = None,
    environment: dict[str, str] | None = None,
    import_paths: tuple[str, ...] = (),
) -> Manifest:
    """A manifest of functions named by tags; "tag=file.py:module" says more."""
    entrypoints = []
    for tag in tags:
        name, _, place = tag.partition("=")
        where, _, module = place.rpartition(":")
        entrypoints.append(
            Entrypoint(
                tag=name,
                file=where or file,
                module=module or name,
                extractor=tuple(Extraction(name=key, path=path) for key, path in (extractor or {}).items()),
            )
        )
    return Manifest(
        agent_id="agent", agent_name="agent", description="", framework="default", version="1",
        entrypoints=tuple(entrypoints), persistent_folders=(), import_paths=import_paths, requirements=(), hints=(),
        environment=tuple(Variable(name=key, value=value) for key, value in (environment or {}).items()),
    )  # fmt: skip


def write_agent(folder: Path, files: dict[str, str]) -> Path:
    """An agent's folder; the text of a file may be indented."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return folder


class Launch:
    """What the fixture `agent` gives: start a runner on literal files, ended with the test."""

    def __init__(self, zygote: Zygote, folder: Path) -> None:
        self._zygote = zygote
        self.folder = folder
        self._running: list[Runner] = []

    def __call__(
        self,
        files: str | dict[str, str],
        *tags: str,
        concurrency: int = 1,
        result_bytes: int = 1 << 20,
        traceback: bool = True,
        **options: Any,
    ) -> Runner:
        folder = self.folder / str(len(self._running))
        folder.mkdir()
        write_agent(folder, {"main.py": files} if isinstance(files, str) else files)
        runner = Runner(
            self._zygote, folder, manifest(*tags, **options),
            concurrency=concurrency, result_bytes=result_bytes, traceback=traceback,
        )  # fmt: skip
        self._running.append(runner)
        return runner

    def close(self) -> None:
        for runner in self._running:
            runner.close()


@contextlib.contextmanager
def zygote() -> Iterator[Zygote]:
    running = Zygote()
    try:
        yield running
    finally:
        running.close()
