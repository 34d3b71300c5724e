"""A supervisor and runners that a test plays itself, and a real gateway on real sockets between them and a client.

The gateway runs on its own event loop in a thread; the test is plain code that says, line by line, who does what.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import ssl
import struct
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import uvloop

from runagentd import signing
from runagentd.foreman.worker_links import WorkerLinks
from runagentd.gateway.application import Application
from runagentd.gateway.configuration import Configuration
from runagentd.gateway.listener import CONNECTIONS_MAX, Listener
from runagentd.gateway.output import open_directory
from runagentd.gateway.server import Server
from runagentd.gateway.trace import Trace
from runagentd.gateway.workers import Workers
from runagentd.log import Form, Level, Log
from runagentd.trust import TrustStore
from runagentd.wire import channel, control, record
from runagentd.wire.channel import Frame, RawFrame
from runagentd.wire.control import Cause, FromGateway
from runagentd.wire.manifest import Caching, Entrypoint, Manifest
from runagentd.wire.settings import Settings
from runagentd.worker import link as worker_link
from runagentd.worker.listener import SharedListener

STATE_ID = "0123456789abcdef"
TIMEOUT = 10.0
TRACE = Trace(
    id="0af7651916cd43dd8448eb211c80319c",
    caller="b7ad6b7169203331",
    span="00f067aa0ba902b7",
    function="00f067aa0ba902b8",
    sampled=True,
    recorded=False,
    state=None,
)

LIMITS = control.CallLimits(
    concurrency=1,
    queue=4,
    deadline_ms=5000,
    cancel_grace_ms=300,
    request_bytes=1024 * 1024,
    result_bytes=1024 * 1024,
    traceback=False,
    log_line_bytes=1024,
    log_bytes_per_minute=64 * 1024,
    history_contents=False,
    one_by_one=False,
)


@dataclass(frozen=True)
class HttpAnswer:
    """What a client got."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as a value. Any: JSON."""
        return json.loads(self.body)


class FakeRunner:
    """The sandbox's end of a channel, and of two output pipes."""

    def __init__(self, instance: str) -> None:
        self.instance = instance
        self.socket, self.gateway_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(TIMEOUT)
        self._splitter = channel.Splitter(channel.FROM_GATEWAY)
        self._frames: list[RawFrame] = []
        self.stdout_read, self.stdout = os.pipe()
        self.stderr_read, self.stderr = os.pipe()

    def send(self, type: Frame, call: int = 0, header: dict[str, Any] | None = None, body: bytes = b"") -> None:
        self.socket.sendall(channel.pack(type, call, b"" if header is None else json.dumps(header).encode(), body))

    def hello(self) -> None:
        self.send(Frame.HELLO, 0, {"version": 1})

    def ready(self, *tags: str, streams: bool = False) -> None:
        self.hello()
        entries = [
            {
                "tag": tag,
                "file": "main.py",
                "module": "run",
                "parameters": [{"name": "text", "kind": "positional_or_keyword", "required": True, "type": "str"}],
                "doc": "Say it.",
                "streams": streams,
                "asynchronous": False,
                "returns": "str",
            }
            for tag in tags
        ]
        self.send(Frame.DESCRIBE, 0, None, json.dumps({"import_ms": 1.5, "entrypoints": entries}).encode())

    def receive(self) -> RawFrame:
        while not self._frames:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError("the gateway closed the channel")
            self._frames += self._splitter.feed(data)
        return self._frames.pop(0)

    def expect(self, type: Frame) -> RawFrame:
        frame = self.receive()
        if frame.type is not type:
            raise AssertionError(f"{frame!r} is no {type.name}")
        return frame

    def until(self, type: Frame) -> RawFrame:
        """The next frame of this type; others before it are passed over."""
        while (frame := self.receive()).type is not type:
            pass
        return frame

    def at_end(self) -> bool:
        """Whether the gateway has closed the channel."""
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionResetError:
            pass
        return True

    def result(self, call: int, value: object) -> None:
        self.send(Frame.RESULT, call, {"type": type_of(value)}, json.dumps(value).encode())

    def chunk(self, call: int, value: object) -> None:
        self.send(Frame.CHUNK, call, {"type": type_of(value)}, json.dumps(value).encode())

    def end(self, call: int, chunks: int) -> None:
        self.send(Frame.END, call, {"chunks": chunks})

    def error(self, call: int, kind: str, message: str, body: bytes = b"", /, **more: str) -> None:
        self.send(Frame.ERROR, call, {"kind": kind, "message": message, **more}, body)

    def close(self) -> None:
        """End as a process does: everything it had is closed."""
        self.socket.close()
        for descriptor in (self.stdout, self.stderr):
            if descriptor >= 0:
                os.close(descriptor)
        self.stdout = self.stderr = -1


def type_of(value: object) -> str:
    """RunAgent's name for the type of a JSON value."""
    names = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}
    return names.get(type(value), "null")


class FakeSupervisor:
    """Connects to the gateway as the supervisor would. `listener` is the gateway's, bound by its foreman."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(str(path))
        self.listener.listen(4)
        self.connection: socket.socket | None = None
        self.trust: list[control.FromSupervisor] = [control.TrustTold(epoch=0)]
        """what each gateway is told first"""
        self._runners: list[FakeRunner] = []
        self._limits: dict[str, control.CallLimits] = {}

    def connect(self, *, introduce: bool = True) -> None:
        self.connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.connection.settimeout(TIMEOUT)
        self.connection.connect(str(self.path))
        hello = self.receive()
        if hello != control.Hello(version=1):
            raise AssertionError(f"{hello!r} is no Hello")
        self.tell_trust(self.trust)
        if introduce:
            self.send(control.AllIntroduced())

    def tell_trust(self, messages: Sequence[control.FromSupervisor]) -> None:
        """Send a change, and return when the gateway holds to it."""
        for message in messages:
            self.send(message)
        told, taken = messages[-1], self.receive()
        if not isinstance(told, control.TrustTold) or taken != control.TrustTaken(epoch=told.epoch):
            raise AssertionError(f"{taken!r} does not answer {told!r}")

    def receive(self) -> FromGateway:
        if self.connection is None:
            raise AssertionError("no gateway is connected")
        data = self.connection.recv(control.MESSAGE_BYTES_MAX)
        if not data:
            raise EOFError("the gateway has closed the control socket")
        return control.parse_from_gateway(data)

    def send(self, message: control.FromSupervisor, descriptors: tuple[int, ...] = ()) -> None:
        if self.connection is None:
            raise AssertionError("no gateway is connected")
        socket.send_fds(self.connection, [control.pack(message)], list(descriptors))

    def serve(
        self,
        agent: str = "echo-1",
        name: str = "echo",
        tags: tuple[str, ...] = ("say",),
        limits: control.CallLimits = LIMITS,
        cache: Caching | None = None,
        version: str = "d" * 64,
        scaling: control.Scaling = control.Scaling(),  # noqa: B008  (it cannot change)
        generation: int = 0,
        timeout_ms: int | None = None,
    ) -> None:
        self._limits[agent] = limits
        manifest = Manifest(
            agent_id=agent,
            agent_name=name,
            description="says it again",
            framework="default",
            version="1.2.3",
            entrypoints=tuple(
                Entrypoint(tag=tag, file="main.py", module="run", cache=cache, timeout_ms=timeout_ms) for tag in tags
            ),
            environment=(),
            persistent_folders=(),
            import_paths=(),
            requirements=(),
            hints=(),
        )
        self.send(
            control.AgentServed(
                agent=agent,
                manifest=record.encode(manifest),
                version=version,
                policy="base",
                policy_digest="e" * 64,
                limits=limits,
                scaling=scaling,
                generation=generation,
            )
        )

    def offer(
        self,
        agent: str = "echo-1",
        instance: str = "00000000000000a1",
        *,
        generation: int = 0,
        limits: control.CallLimits | None = None,
    ) -> FakeRunner:
        """With the limits that the agent was served with last, where none are given."""
        runner = FakeRunner(instance)
        ends = (runner.gateway_end.fileno(), runner.stdout_read, runner.stderr_read)
        limits = limits or self._limits.get(agent, LIMITS)
        self.send(control.InstanceOffered(instance=instance, agent=agent, generation=generation, limits=limits), ends)
        runner.gateway_end.close()
        os.close(runner.stdout_read)
        os.close(runner.stderr_read)
        self._runners.append(runner)
        return runner

    def gone(
        self,
        cause: Cause,
        detail: str = "",
        *,
        agent: str = "echo-1",
        instance: str = "00000000000000a1",
        retry_after_ms: int = 0,
    ) -> None:
        self.send(
            control.InstanceGone(
                instance=instance, agent=agent, cause=cause, detail=detail, retry_after_ms=retry_after_ms
            )
        )

    def drop(self) -> None:
        """Break the connection, as a supervisor that dies does."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def close(self) -> None:
        self.drop()
        self.listener.close()
        for runner in self._runners:
            runner.close()


@dataclass
class Gateway:
    """A gateway in a thread. Use as a context."""

    folder: Path
    log_lines: list[str] = field(default_factory=list)
    settings: Settings = field(default_factory=Settings)
    connections_max: int = CONNECTIONS_MAX
    tls: ssl.SSLContext | None = None
    level: Level = Level.DEBUG
    """of what it logs"""
    workers: int = 1
    """2 or more read HTTP for it, in the same thread and with all of their own code"""

    def __enter__(self) -> Gateway:
        self.key = signing.create_or_open(str(self.folder / "keys"))
        self.store = TrustStore(self.folder / "keys")
        self.supervisor = FakeSupervisor(self.folder / "control.sock")
        self.supervisor.trust = list(self.store.changes(-1).messages())
        data = self.folder / "data"
        data.mkdir()
        self._data = os.open(data, os.O_RDONLY | os.O_DIRECTORY)
        self.egress, self._egress_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        """our end of the link to the egress process, which a test plays"""
        self.egress.settimeout(TIMEOUT)
        self._http = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._http.getsockname()[1]
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        if not self._started.wait(TIMEOUT):
            raise TimeoutError("the gateway did not start")
        self.supervisor.connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(TIMEOUT)
        self.supervisor.close()
        os.close(self._data)
        self.egress.close()
        self._egress_end.close()
        self.store.close()

    def _run(self) -> None:
        uvloop.run(self._main())

    async def _main(self) -> None:
        self._working: list[asyncio.Task[None]] = []
        self._ends: list[asyncio.Event] = []
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        audience = signing.audience(STATE_ID)
        log = Log(_Lines(self.log_lines), source="gateway", form=Form.JSON, level=self.level)  # type: ignore[arg-type] # write and flush are all that Log uses
        configuration = Configuration(self.settings, {})
        self.application = Application(
            configuration=configuration,
            issuer=audience,
            audience=audience,
            control=self.supervisor.listener.dup(),
            egress=self._egress_end,
            folder=self.folder / "data",
            secure=False,
            logs=open_directory(self._data),
            log=log,
            version="0.1.0",
        )
        self.server = Server(self.application.answer, front=lambda: self.application.front)
        shutdown = self._relay(log) if self.workers > 1 else self._listen()
        link = self._loop.create_task(self.application.link.run())
        self.application.egress.start()
        self._started.set()
        await self._stop.wait()
        link.cancel()
        await shutdown()
        self.application.close()
        await asyncio.sleep(0.01)  # for the transports to close

    def _listen(self) -> Callable[[], Awaitable[None]]:
        self.listener: Listener | Workers
        self.listener = listener = Listener(
            self._http,
            protocol=self.server.protocol,
            place=self.application.place,
            connections_max=self.connections_max,
            tls=self.tls,
        )
        listener.start(128)

        async def shutdown() -> None:
            listener.close()
            await self.server.shutdown(0.1)

        return shutdown

    def _relay(self, log: Log) -> Callable[[], Awaitable[None]]:
        """As gateway, workers and foreman do it."""
        self.links = WorkerLinks()
        self.listener = self.relay = Workers(
            socket.socket(fileno=os.dup(self.links.renew_gateway())),
            answer=self.application.answer,
            front=lambda: self.application.front,
            place=self.application.place,
            connections_max=self.connections_max,
            log=log,
        )
        self.relay.start()
        self.application.connections = lambda: (self.relay.connections, self.relay.connections_max)
        self.application.workers = self.relay.figures
        self.worker_gateways = [self._work(number, log) for number in range(1, self.workers + 1)]

        async def shutdown() -> None:
            await self.relay.shutdown(0.1)
            for end in self._ends:
                end.set()
            await asyncio.gather(*self._working)
            self.links.close()
            self._http.close()

        return shutdown

    def _work(self, number: int, log: Log) -> worker_link.Gateway:
        ends = asyncio.Event()
        self._ends.append(ends)
        introductions = socket.socket(fileno=os.dup(self.links.renew_worker(number)))
        gateway = worker_link.Gateway(introductions, drain=ends.set, alone=ends.set, log=log)
        server = Server(gateway.forward, front=lambda: self.application.front)
        listener = SharedListener(
            self._http.dup(), server=server, gateway=gateway, connections_max=CONNECTIONS_MAX, tls=self.tls
        )
        listener.start(128)
        gateway.start()

        async def work() -> None:
            await ends.wait()
            listener.close()
            await server.shutdown(0.1)
            gateway.close()

        self._working.append(self._loop.create_task(work()))
        return gateway

    # ---- what a test asks

    def token(
        self,
        *agents: str,
        ttl: int = 60,
        subject: str = "tester",
        tenant: str | None = None,
        scopes: Sequence[str] = (),
    ) -> str:
        audience = signing.audience(STATE_ID)
        return signing.mint(
            self.key,
            issuer=audience,
            audience=audience,
            subject=subject,
            agents=list(agents) or None,
            ttl_seconds=ttl,
            tenant=tenant,
            scopes=scopes,
        )

    def spread(self) -> None:
        """What has changed in the store since the last time, told to the gateway and taken over by it."""
        last = self.supervisor.trust[-1]
        since = last.epoch if isinstance(last, control.TrustTold) else -1
        self.supervisor.trust = list(self.store.changes(since).messages())
        self.supervisor.tell_trust(self.supervisor.trust)

    def send(
        self, method: str, path: str, body: bytes | None = None, *, token: str | None = "", **headers: str
    ) -> http.client.HTTPConnection:
        """Send a request and leave the answer unread. The token is a good one where none is given."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            fields["Authorization"] = f"Bearer {token or self.token()}"
        connection.request(method, path, body, fields)
        return connection

    def ask(
        self, method: str, path: str, body: bytes | None = None, *, token: str | None = "", **headers: str
    ) -> HttpAnswer:
        """Send a request and read the whole answer."""
        return answer(self.send(method, path, body, token=token, **headers))

    def records(self) -> list[dict[str, Any]]:
        """The call records so far. Any: JSON."""
        return [row for row in map(json.loads, self.log_lines) if row["event"] == "call"]

    def inside(self, question: Callable[[], Any]) -> Any:
        """What `question` gives when it is asked on the gateway's own loop. Any: its answer."""
        result: list[Any] = []
        done = threading.Event()

        def ask() -> None:
            result.append(question())
            done.set()

        self._loop.call_soon_threadsafe(ask)
        if not done.wait(TIMEOUT):
            raise TimeoutError("the gateway's loop does not turn")
        return result[0]

    def wait_until(self, claim: Callable[[], bool]) -> None:
        """Wait until a claim about the gateway is true, asked on its loop."""
        end = time.monotonic() + TIMEOUT
        while not self.inside(claim):
            if time.monotonic() > end:
                raise TimeoutError("the claim did not become true")
            time.sleep(0.002)

    def ready(
        self,
        *tags: str,
        limits: control.CallLimits = LIMITS,
        streams: bool = False,
        cache: Caching | None = None,
        timeout_ms: int | None = None,
    ) -> FakeRunner:
        """One agent, "echo", with one instance that is ready."""
        tags = tags or ("say",)
        self.supervisor.serve(tags=tags, limits=limits, cache=cache, timeout_ms=timeout_ms)
        runner = self.supervisor.offer()
        runner.ready(*tags, streams=streams)
        said = self.supervisor.receive()
        if not isinstance(said, control.InstanceReady):
            raise AssertionError(f"{said!r} is no InstanceReady")
        return runner


class _Lines:
    def __init__(self, lines: list[str]) -> None:
        self._lines = lines

    def write(self, text: str) -> int:
        self._lines.append(text)
        return len(text)

    def flush(self) -> None:
        pass


def answer(connection: http.client.HTTPConnection) -> HttpAnswer:
    """Read the whole answer to a request that was sent."""
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return HttpAnswer(response.status, {name.lower(): value for name, value in response.getheaders()}, body)


def abort(connection: http.client.HTTPConnection) -> None:
    """Go away without a goodbye: RST (SO_LINGER 0, socket(7))."""
    if connection.sock is not None:
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.sock.close()
    connection.close()


def running(settings: Settings | None = None, *, workers: int = 1) -> Iterator[Gateway]:
    """For a pytest fixture: a gateway with its supervisor connected, in a short folder (unix(7): 108 bytes)."""
    with tempfile.TemporaryDirectory(prefix="gw") as folder:
        with Gateway(Path(folder), settings=settings or Settings(), workers=workers) as gateway:
            yield gateway
