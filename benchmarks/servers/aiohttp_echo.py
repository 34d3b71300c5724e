"""Bare aiohttp handlers: the reference for what any server on aiohttp can reach at most.

Runs as: a process of its own.
Reads from strangers: the load generator's requests, on 127.0.0.1.
/echo parses and answers, /bytes answers what it always answers, /refused says no; /ws and /sse send as many numbers as
they are asked for, each in a message of the same bytes as runagentd's.
"""

from __future__ import annotations

import argparse
import json

import uvloop
from aiohttp import web

KEPT = b'"hello"'
_NO = b'{"type":"about:blank","title":"not authenticated","status":401}'


async def echo(request: web.Request) -> web.Response:
    """The argument."""
    arguments = json.loads(await request.read())
    return web.Response(body=json.dumps(arguments["text"]).encode(), content_type="application/json")


async def kept(request: web.Request) -> web.Response:
    """The same bytes for everybody."""
    await request.read()
    return web.Response(body=KEPT, content_type="application/json")


async def refused(request: web.Request) -> web.Response:
    """No."""
    await request.read()
    return web.Response(status=401, body=_NO, content_type="application/problem+json")


async def websocket(request: web.Request) -> web.WebSocketResponse:
    """RunAgent's protocol as far as a stream of integers needs it."""
    socket = web.WebSocketResponse(compress=False)
    await socket.prepare(request)
    asked = json.loads(await socket.receive_str())
    count = asked["input_kwargs"]["to"]
    for number in range(count):
        content = f'{{\\"type\\":\\"integer\\",\\"payload\\":\\"{number}\\"}}'
        await socket.send_str(f'{{"type":"data","content":"{content}"}}')
    await socket.send_str('{"type":"status","status":"stream_completed"}')
    await socket.close()
    return socket


async def events(request: web.Request) -> web.StreamResponse:
    """Server-sent events."""
    count = json.loads(await request.read())["to"]
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for number in range(count):
        await response.write(b"event: chunk\nid: %d\ndata: %d\n\n" % (number + 1, number))
    await response.write(b"event: done\ndata: {}\n\n")
    return response


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    application = web.Application()
    for path, handler in (("/echo", echo), ("/bytes", kept), ("/refused", refused), ("/sse", events)):
        application.router.add_post(path, handler)
    application.router.add_get("/ws", websocket)
    uvloop.install()
    web.run_app(application, host=arguments.host, port=arguments.port, access_log=None, print=None)


if __name__ == "__main__":
    main()
