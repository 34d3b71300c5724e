"""One hostile client: `python -m benchmarks.siege.attackers KIND`, from an address of its own.

Runs as: a process of its own in the cage, half a processor for all of them.
Reads from strangers: the answers of the attacked server.
It says "ready", waits for a line on its standard input, attacks for so many seconds and ends with one line of JSON.
Only ever connects to the one address of 127.0.0.0/8 that it was given, and ends by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import dataclasses
import itertools
import json
import os
import secrets
import socket
import struct
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field

from benchmarks.siege.judge import RULES, Tally

TOKENS = "SIEGE_TOKENS"
"""JSON in the environment: tokens by subject. A command line can be read by everybody on the machine."""
SLOW_CONNECTIONS = 200
IDLE_CONNECTIONS = 300
FLOOD_CONNECTIONS = 4
GUESS_CONNECTIONS = 24
"""Refusals of an address are held back, so with fewer the flood would stay below what an address may send."""
_PATIENCE_SECONDS = 5.0


@dataclass
class Client:
    """Who attacks whom, and what came of it."""

    host: str
    port: int
    path: str
    address: str
    tokens: dict[str, str]
    counts: dict[str, int] = field(default_factory=dict)
    tallies: dict[str, Tally] = field(default_factory=dict)

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def note(self, limit: str, sent: int, answered: int, *, passed: bool) -> None:
        """A request against this limit."""
        if limit not in self.tallies:
            self.tallies[limit] = Tally(RULES[limit])
        self.tallies[limit].note(sent, answered, passed=passed)

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A connection; what ends it early is counted and no fault of the attack."""
        writer = None
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                reader, writer = await asyncio.open_connection(self.host, self.port, local_addr=(self.address, 0))
            self.count("connections")
            yield reader, writer
        except (OSError, EOFError, TimeoutError, ValueError) as error:
            self.count(type(error).__name__)
            await asyncio.sleep(0.05)  # refused: a client that hurries now would only starve its fellows in the cage
        finally:
            if writer is not None:
                writer.transport.abort()

    def head(self, token: str, *fields: str, path: str = "", length: int | None = None) -> bytes:
        lines = [f"POST {path or self.path} HTTP/1.1", "Host: x", "Content-Type: application/json"]
        if token:
            lines.append(f"Authorization: Bearer {token}")
        if length is not None:
            lines.append(f"Content-Length: {length}")
        return "\r\n".join([*lines, *fields, "", ""]).encode()


async def forever(client: Client, number: int, once: Callable[[Client, int], Awaitable[None]]) -> None:
    """One of many: again and again."""
    await asyncio.sleep(number % 100 / 100)
    while True:
        await once(client, number)


# ---- connections that are held


async def slow_head(client: Client, number: int) -> None:
    """A head that never ends: a field each second."""
    async with client.connection() as (reader, writer):
        writer.write(f"POST {client.path} HTTP/1.1\r\nHost: x\r\n".encode())
        for field_number in itertools.count():
            writer.write(f"X-{field_number}: {number}\r\n".encode())
            if await ended(reader, 1.0):
                return


async def slow_body(client: Client, number: int) -> None:
    """A body that never ends: a byte each second."""
    async with client.connection() as (reader, writer):
        writer.write(client.head(client.tokens["slow"], length=100_000) + b'{"text":"')
        while not await ended(reader, 1.0):
            writer.write(b"x")


async def half_open_websocket(client: Client, number: int) -> None:
    """A handshake, and not a word after it."""
    async with client.connection() as (reader, writer):
        path = client.path.replace("/v1/agents/", "/api/v1/agents/").partition("/entrypoints/")[0] + "/run-stream"
        writer.write(
            f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Authorization: Bearer {client.tokens['slow']}\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        client.count((await reader.readline()).split(b" ")[1].decode("ascii", "replace"))
        while not await ended(reader, 60.0):
            pass


async def idle(client: Client, number: int) -> None:
    """Nothing at all."""
    async with client.connection() as (reader, _):
        await reader.read(1)


async def ended(reader: asyncio.StreamReader, seconds: float) -> bool:
    """Whether the server has ended the connection, or said something, within that time."""
    try:
        async with asyncio.timeout(seconds):
            while await reader.read(4096):
                pass
            return True
    except TimeoutError:
        return False


# ---- floods


async def bad_token(client: Client, number: int) -> None:
    """Tokens whose head names a real key, each with another signature."""
    head, claims, _ = client.tokens["slow"].split(".")

    def token() -> str:
        signature = base64.urlsafe_b64encode(secrets.token_bytes(64)).decode().rstrip("=")
        return f"{head}.{claims}.{signature}"

    async with client.connection() as (reader, writer):
        while True:
            status, limit, sent, answered = await ask(client, reader, writer, client.path, token())
            if limit != "address-rate":
                client.note("failed_login", sent, answered, passed=status == 401)
            client.note("address", sent, answered, passed=limit != "address-rate")


async def over_rate(client: Client, number: int) -> None:
    """Good tokens, too many calls: half of them over what the principal may, half over what the entrypoint may."""
    name = ("principal", "tag")[number % 2]
    path = client.path if name == "principal" else client.path.replace("/echo:invoke", "/clock:invoke")
    body = b'{"text":"hello"}' if path.endswith(("echo:invoke", "/echo")) else b"{}"
    async with client.connection() as (reader, writer):
        while True:
            status, limit, sent, answered = await ask(client, reader, writer, path, client.tokens[name], body)
            client.note(name, sent, answered, passed=status == 200)
            if limit not in (None, f"{name}-rate"):
                client.count(f"refused by {limit}")


async def ask(
    client: Client,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    path: str,
    token: str,
    body: bytes = b'{"text":"hello"}',
) -> tuple[int, str | None, int, int]:
    """(status, the limit that refused it, when it was sent, when it was answered)."""
    sent = time.monotonic_ns()
    writer.write(client.head(token, path=path, length=len(body)) + body)
    async with asyncio.timeout(_PATIENCE_SECONDS):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        answer = await reader.readexactly(length)
    answered = time.monotonic_ns()
    status = int(head.split(b" ", 2)[1])
    client.count(str(status))
    return status, json.loads(answer).get("limit") if status == 429 else None, sent, answered


# ---- what is no HTTP, or too much of it


def nonsense(client: Client) -> Iterator[bytes]:
    """Each of them is to end in a refusal or a closed connection; without an end."""
    good = client.head(client.tokens["slow"], length=2)
    while True:
        yield b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + secrets.token_bytes(200)
        yield b"GET / HTTP/9.9\r\n\r\n" * 50
        yield b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" * 50
        yield b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"
        yield b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n"
        yield b"POST / HTTP/1.1\r\nHost : x\r\nA\x00: b\r\n\r\n"
        yield b"POST / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: %b\r\n" % (n, b"y" * 8000) for n in range(100))
        yield b"POST /%b HTTP/1.1\r\n" % (b"z" * 100_000)
        yield client.head(client.tokens["slow"], length=10 * 1024**3) + b"{" * 256 * 1024
        yield (
            client.head(client.tokens["slow"], "Transfer-Encoding: chunked")
            + (b"4000\r\n%b\r\n" % (b"[" * 0x4000)) * 80
        )
        yield (good + b"[]") * 20 + b"\0\0\0"


async def malformed(client: Client, number: int) -> None:
    """Garbage, pipelined; huge heads; huge bodies."""
    for payload in nonsense(client):
        async with client.connection() as (reader, writer):
            writer.write(payload)
            client.count("answered" if await ended(reader, 0.25) else "left open")


async def reset(client: Client, number: int) -> None:
    """A connection that ends at once, without a farewell (RST)."""
    async with client.connection() as (_, writer):
        if number % 2:
            writer.write(b"POST / HTTP/1.1\r\nHo")
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await asyncio.sleep(0.002)


KINDS: dict[str, tuple[int, Callable[[Client, int], Awaitable[None]]]] = {
    "slow heads": (SLOW_CONNECTIONS, slow_head),
    "slow bodies": (SLOW_CONNECTIONS, slow_body),
    "half-open WebSockets": (SLOW_CONNECTIONS, half_open_websocket),
    "idle connections": (IDLE_CONNECTIONS, idle),
    "bad tokens": (GUESS_CONNECTIONS, bad_token),
    "over the rate": (FLOOD_CONNECTIONS, over_rate),
    "malformed": (FLOOD_CONNECTIONS, malformed),
    "connect and reset": (FLOOD_CONNECTIONS, reset),
}
"""How many connections each has at one time, and what each of them does."""


async def attack(client: Client, kind: str, seconds: float) -> None:
    connections, once = KINDS[kind]
    tasks = [asyncio.create_task(forever(client, number, once)) for number in range(connections)]
    done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in done:
        task.result()  # an attack that has failed by itself is no attack


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--seconds", type=float, required=True)
    for name in ("--host", "--path", "--address"):
        parser.add_argument(name, required=True)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    client = Client(
        host=arguments.host, port=arguments.port, path=arguments.path, address=arguments.address,
        tokens=json.loads(os.environ[TOKENS]),
    )  # fmt: skip
    print("ready", flush=True)
    if not sys.stdin.readline():
        return
    asyncio.run(attack(client, arguments.kind, arguments.seconds))
    floods = {name: dataclasses.asdict(tally.flood()) for name, tally in client.tallies.items()}
    print(json.dumps({"counts": client.counts, "floods": floods}))


if __name__ == "__main__":
    main()
