"""RunAgent's door: the protocol that RunAgent's own clients speak, so that they work unchanged.

Runs as: the gateway.
Reads from strangers: requests; every way in which one can be wrong is a `Refusal` in the envelope.
Only translates. What happens once a runner has the call is HTTP 200 with `success: false`, since that is the only form
whose code and suggestion the clients keep; what is refused before has its own status.
"""

from __future__ import annotations

import asyncio
import datetime
import math
import time
from collections.abc import Awaitable, Callable

import msgspec

from runagentd import errors
from runagentd.errors import Refusal
from runagentd.gateway.calls import Mode
from runagentd.gateway.doors import envelope
from runagentd.gateway.doors.history import HistoryDoor
from runagentd.gateway.doors.native import bearer, check_method
from runagentd.gateway.exchange import JOINED_BYTES_MAX, Exchange, Reply, WebSocket
from runagentd.gateway.exchanges import too_large
from runagentd.gateway.guard.identity import Credentials
from runagentd.gateway.paths import query_value
from runagentd.gateway.pipeline import Pipeline, Running, View
from runagentd.gateway.requests import Decoded, Request
from runagentd.gateway.strict import WEBSOCKET_VERSION
from runagentd.gateway.values import is_utf8

_RUN_ROUTE = "POST /api/v1/agents/{agent}/run"
_STREAM_ROUTE = "GET /api/v1/agents/{agent}/run-stream"

STREAM_SUFFIX = "_stream"
"""In RunAgent's protocol a tag that ends so is a stream, whatever the function does."""
FIRST_FRAME_SECONDS = 30.0
GOODBYE_SECONDS = 10.0
"""How long a client may take to close after the last frame: closing is its part."""
CLOSE_NORMAL, CLOSE_UNACCEPTABLE, CLOSE_POLICY, CLOSE_TOO_LARGE, CLOSE_LATER = (
    1000,
    1003,
    1008,
    1009,
    1013,
)
SERVER = "runagentd"
DONE = "Agent execution completed successfully"

_ENCODE = msgspec.json.Encoder().encode


class _Run(msgspec.Struct):
    entrypoint_tag: str
    input_args: msgspec.Raw = msgspec.Raw(b"[]")
    input_kwargs: msgspec.Raw = msgspec.Raw(b"{}")
    timeout_seconds: float | None = None


_RUN = msgspec.json.Decoder(_Run)


class RunAgentDoor:
    """`answer` takes every exchange below /api/v1."""

    def __init__(self, pipeline: Pipeline, history: HistoryDoor, *, started: float, version: str) -> None:
        self._pipeline = pipeline
        self._history = history
        self._started = started
        self._version = version

    async def answer(self, exchange: Exchange, segments: tuple[str, ...]) -> Reply | None:
        """Everything this door knows, by the path after `api/v1`."""
        try:
            match segments:
                case () | ("",):
                    check_method(exchange, "GET")
                    return self._welcome()
                case ("health",):
                    check_method(exchange, "GET")
                    return self._health()
                case ("agents", agent, "architecture"):
                    check_method(exchange, "GET")
                    return await self._architecture(exchange, agent)
                case ("agents", agent, "run"):
                    check_method(exchange, "POST")
                    return await self._run(exchange, agent)
                case ("agents", agent, "run-stream"):
                    check_method(exchange, "GET")
                    return await self._stream(exchange, agent)
                case ("agents", agent, "invocations"):
                    check_method(exchange, "GET")
                    return await self._history.invocations(exchange, _credentials(exchange), agent)
                case ("agents", agent, "invocations", "stats"):
                    check_method(exchange, "GET")
                    return await self._history.statistics(_credentials(exchange), agent)
                case ("invocations", invocation_id):
                    check_method(exchange, "GET")
                    return await self._history.invocation(_credentials(exchange), invocation_id)
            raise Refusal(errors.NOT_FOUND, "there is nothing at this path")
        except Refusal as refusal:
            return _refused(refusal.settle(), exchange.id)

    # ---- about the server and its agents

    def _welcome(self) -> Reply:
        endpoints = [
            "health",
            "agents/{agent_id}/architecture",
            "agents/{agent_id}/run",
            "agents/{agent_id}/run-stream",
            "agents/{agent_id}/invocations",
            "agents/{agent_id}/invocations/stats",
            "invocations/{invocation_id}",
        ]
        paths = [f"/api/v1/{endpoint}" for endpoint in endpoints]
        return Reply(
            200, _ENCODE({"message": "runagentd serves agents here", "version": self._version, "endpoints": paths})
        )

    def _health(self) -> Reply:
        """Without a token, so without a word about any agent."""
        now = datetime.datetime.now(datetime.UTC)
        return Reply(
            200,
            _ENCODE(
                {
                    "status": "healthy",
                    "server": SERVER,
                    "timestamp": now.isoformat(),
                    "uptime_seconds": round(time.monotonic() - self._started, 3),
                    "version": self._version,
                }
            ),
        )

    async def _architecture(self, exchange: Exchange, identity: str) -> Reply:
        """What most of RunAgent's clients ask before anything else: it lists every tag."""
        view = await self._pipeline.visible(_credentials(exchange), identity)
        data = _ENCODE({"agent_id": identity, "entrypoints": _entrypoints(view)})
        return Reply(200, envelope.success(data, "Agent architecture retrieved successfully", exchange.id))

    # ---- one result

    async def _run(self, exchange: Exchange, identity: str) -> Reply:
        async def decode(limit: int) -> Decoded:
            decoded = parse_run(await exchange.read_body(limit))
            if decoded.mode is not Mode.STREAM:
                return decoded
            text = f"Can't use Streaming Entrypoint `{decoded.tag}` through non-streaming endpoint."
            return _wrong_door(decoded, text, "call it as a stream")

        with self._pipeline.begin(_request(exchange, identity, decode, exchange.declared_bytes)) as running:
            await running.start()
            value = await running.next()
        if value is None:
            raise Refusal(errors.SERVER, errors.SERVER.title)
        return Reply(200, envelope.success(envelope.typed(value), DONE, exchange.id), headers=running.headers)

    # ---- a stream

    async def _stream(self, exchange: Exchange, identity: str) -> Reply | None:
        if not exchange.wants_websocket():
            raise Refusal(
                errors.MALFORMED,
                "this path takes a WebSocket opening handshake",
                headers={"Sec-WebSocket-Version": WEBSOCKET_VERSION},  # RFC 6455, section 4.4
            )
        if exchange.foreign:
            raise Refusal(
                errors.PERMISSION,
                "the page's origin may not open a WebSocket here",
                hint="the operator can allow it: [http] cors_origins in runagentd.toml",
            )
        ws: WebSocket | None = None

        async def decode(limit: int) -> Decoded:
            # Not before here: until the caller is known to be allowed, a refusal is an HTTP status.
            nonlocal ws
            ws = await exchange.open_websocket(message_bytes_max=limit)
            async with asyncio.timeout(FIRST_FRAME_SECONDS):
                message = await ws.receive()
            if ws.too_large:
                raise too_large(limit)
            if message is None:
                raise ConnectionResetError("the client is gone")
            if isinstance(message, bytes):
                raise Refusal(errors.MALFORMED, "the first message is not text")
            decoded = parse_run(message.encode("utf-8", "surrogatepass"), received=time.monotonic())
            if decoded.mode is Mode.STREAM:
                return decoded
            text = f"entrypoint `{decoded.tag}` is no stream: its tag does not end in `{STREAM_SUFFIX}`"
            return _wrong_door(decoded, text, "call it without streaming")

        with self._pipeline.begin(_request(exchange, identity, decode, None)) as running:
            try:
                await running.start()
                if ws is None:
                    raise Refusal(errors.SERVER, errors.SERVER.title)
                await _send_all(ws, running, exchange.id)
            except Refusal as refusal:
                if ws is None:
                    raise
                await _end_badly(ws, refusal.settle(), began=running.began)
        return None


async def _send_all(ws: WebSocket, running: Running, invocation_id: str) -> None:
    """Send every chunk, while watching for the client to go away; then leave the closing to the client."""
    began = time.monotonic()
    chunks = 0
    watch = asyncio.get_running_loop().create_task(_watch(ws, running))
    try:
        await ws.send(envelope.started(invocation_id))
        while (value := await running.next()) is not None:
            values = [value, *running.at_hand(JOINED_BYTES_MAX)]
            await ws.send(*map(envelope.chunk, values))
            chunks += len(values)
        await ws.send(envelope.completed(invocation_id, chunks=chunks, seconds=time.monotonic() - began))
        await asyncio.wait({watch}, timeout=GOODBYE_SECONDS)
    finally:
        # Waited for, because only one may receive at a time, and the caller of this does after an error.
        watch.cancel()
        await asyncio.wait({watch})
    await ws.close(CLOSE_NORMAL, "")


async def _watch(ws: WebSocket, running: Running) -> None:
    """What a client says during a stream means nothing, except that it is gone."""
    while await ws.receive() is not None:
        pass
    running.leave()


async def _end_badly(ws: WebSocket, refusal: Refusal, *, began: bool) -> None:
    if ws.too_large:
        # Nothing before it: RunAgent's clients make an error of the reason, and some of them break on an error's frame.
        text = refusal.message if refusal.kind is errors.TOO_LARGE else errors.TOO_LARGE.title
        await ws.close(CLOSE_TOO_LARGE, text)
        return
    await ws.send(envelope.error_frame(refusal))
    if refusal.kind is errors.AUTHENTICATION:
        await ws.close(CLOSE_POLICY, "the token, key or certificate was revoked")
        return
    if began:
        # As upstream: after an error the client closes. It has some seconds for that.
        try:
            async with asyncio.timeout(GOODBYE_SECONDS):
                while await ws.receive() is not None:
                    pass
        except TimeoutError:
            pass
    code = CLOSE_LATER if refusal.kind.retryable else CLOSE_NORMAL if began else CLOSE_UNACCEPTABLE
    await ws.close(code, "")


# ---- what a request says


def parse_run(body: bytes, *, received: float | None = None) -> Decoded:
    """The run request of both ways to call; fields that are not ours are passed over."""
    try:
        run = _RUN.decode(body)
    except msgspec.ValidationError as error:
        raise Refusal(errors.BODY, f"the request does not have the right form: {error}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(errors.BODY, "the request is not JSON") from error
    if not is_utf8(body):
        raise Refusal(errors.BODY, "the request is not JSON in UTF-8")
    args, kwargs = bytes(run.input_args), bytes(run.input_kwargs)
    if args == b"null":
        args = b"[]"
    if kwargs == b"null":
        kwargs = b"{}"
    if args[:1] != b"[":
        raise Refusal(errors.BODY, "input_args must be an array")
    if kwargs[:1] != b"{":
        raise Refusal(errors.BODY, "input_kwargs must be an object")
    mode = Mode.STREAM if run.entrypoint_tag.endswith(STREAM_SUFFIX) else Mode.SINGLE
    return Decoded(run.entrypoint_tag, mode, b"[%b,%b]" % (args, kwargs), _milliseconds(run.timeout_seconds), received)


def _wrong_door(decoded: Decoded, text: str, hint: str) -> Decoded:
    return msgspec.structs.replace(decoded, refusal=Refusal(errors.WRONG_DOOR, text, hint=hint))


def _milliseconds(seconds: float | None) -> int | None:
    if seconds is None:
        return None
    if not (math.isfinite(seconds) and seconds > 0):
        raise Refusal(errors.BODY, "timeout_seconds must be a number above 0")
    return max(1, int(min(seconds, 1e6) * 1000))


def _credentials(exchange: Exchange) -> Credentials:
    """Some clients send the token in the query, over HTTP and above all over WebSocket."""
    token = bearer(exchange)
    if token is None and exchange.query:
        token = query_value(exchange.query, "token")
    return Credentials(token, exchange.certificate, exchange.peer)


def _request(
    exchange: Exchange, identity: str, decode: Callable[[int], Awaitable[Decoded]], declared_bytes: int | None
) -> Request:
    return Request(
        id=exchange.id,
        door="runagent",
        peer=exchange.peer,
        credentials=_credentials(exchange),
        agent=identity,
        arrived=exchange.arrived,
        declared_bytes=declared_bytes,
        decode=decode,
        traceparent=exchange.header("traceparent"),
        tracestate=exchange.header("tracestate"),
        idempotency_key=exchange.header("idempotency-key"),
        cache_control=exchange.header("cache-control"),
        client=exchange.header("user-agent"),
        route=_STREAM_ROUTE if declared_bytes is None and exchange.method == "GET" else _RUN_ROUTE,
        path=exchange.path,
    )


def _entrypoints(view: View) -> list[dict[str, object]]:
    return [
        {
            "file": entrypoint.file,
            "module": entrypoint.module,
            "tag": entrypoint.tag,
            "extractor": {extraction.name: extraction.path for extraction in entrypoint.extractor},
        }
        for entrypoint in view.agent.entrypoints.values()
        if entrypoint.tag in view.tags
    ]


def _refused(refusal: Refusal, request_id: str) -> Reply:
    headers = dict(refusal.headers)
    if refusal.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(refusal.retry_after)))
    return Reply(refusal.kind.runagent_status, envelope.failure(refusal, request_id), headers=headers)
