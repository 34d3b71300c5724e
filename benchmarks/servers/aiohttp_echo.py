"""A bare aiohttp handler that echoes: the reference for what any server on aiohttp can reach at most.

Runs as: a process of its own.
Reads from strangers: the load generator's requests, on 127.0.0.1.
"""

from __future__ import annotations

import argparse
import json

import uvloop
from aiohttp import web


async def echo(request: web.Request) -> web.Response:
    """The argument."""
    arguments = json.loads(await request.read())
    return web.Response(body=json.dumps(arguments["text"]).encode(), content_type="application/json")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    application = web.Application()
    application.router.add_post("/echo", echo)
    uvloop.install()
    web.run_app(application, host=arguments.host, port=arguments.port, access_log=None, print=None)


if __name__ == "__main__":
    main()
