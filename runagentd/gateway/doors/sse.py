"""A stream as server-sent events (WHATWG HTML, section 9.2): start, chunk, error, done.

Runs as: the gateway.
Reads from strangers: nothing; chunks were checked to be one line of JSON each, so none can end an event early.
"""

from __future__ import annotations

import msgspec

from runagentd.errors import Refusal
from runagentd.gateway.doors import problems
from runagentd.gateway.exchange import JOINED_BYTES_MAX, Exchange, Reply, Stream
from runagentd.gateway.pipeline import Running
from runagentd.gateway.values import Value

HEARTBEAT_SECONDS = 15.0
_ENCODE = msgspec.json.Encoder().encode

_HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
    "X-Content-Type-Options": "nosniff",
}


async def respond(exchange: Exchange, running: Running) -> Reply | None:
    """Send the stream of a started call.

    The head goes out with the first event, so that what fails before it (a wrong argument) is an answer with its own
    status; a function that is silent for long gets its head with the first heartbeat.
    """
    stream: Stream | None = None
    sent = 0
    try:
        while True:
            try:
                value = await running.next(patience=HEARTBEAT_SECONDS)
            except TimeoutError:
                if stream is None:
                    stream = await _open(exchange, running.headers)
                await stream.send(b": still running\n\n")
                continue
            if stream is None:
                stream = await _open(exchange, running.headers)
            if value is None:
                await stream.send(b'id: %d\nevent: done\ndata: {"chunks":%d}\n\n' % (sent + 1, sent))
                return None
            sent += 1
            pieces = [_chunk(sent, value)]
            for more in running.at_hand(JOINED_BYTES_MAX):
                sent += 1
                pieces.append(_chunk(sent, more))
            await stream.send(b"".join(pieces))
    except Refusal as refusal:
        if stream is None:
            return problems.problem(refusal.settle(), exchange.id)
        members = problems.problem_members(refusal.settle(), refusal.kind.native_status, exchange.id)
        await stream.send(b"id: %d\nevent: error\ndata: %b\n\n" % (sent + 1, _ENCODE(members)))
        await stream.abort()
        return None


async def _open(exchange: Exchange, headers: dict[str, str]) -> Stream:
    stream = await exchange.open_stream(200, {**_HEADERS, **headers})
    await stream.send(b'retry: 3000\nid: 0\nevent: start\ndata: {"request_id":"%b"}\n\n' % exchange.id.encode("ascii"))
    return stream


def _chunk(number: int, value: Value) -> bytes:
    return b"id: %d\nevent: chunk\ndata: %b\n\n" % (number, value.body)
