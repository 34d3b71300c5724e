"""Clients that come and go at any moment leave nothing behind."""

from __future__ import annotations

import dataclasses
import json
import random
import socket
import struct
import threading

from runagentd.wire.channel import Frame
from tests.fakes_gateway import LIMITS, FakeRunner, Gateway

CLIENTS = 300


def serve(runner: FakeRunner, chance: random.Random) -> None:
    """Answers at once, or streams a little, or waits until it is cancelled; in any case closes each call once."""
    open_calls: set[int] = set()
    try:
        while True:
            frame = runner.receive()
            if frame.type is Frame.CALL:
                open_calls.add(frame.call)
                stream = json.loads(frame.header)["mode"] == "stream"
                act = chance.random()
                if stream and act < 0.7:
                    runner.chunk(frame.call, 1)
                    runner.chunk(frame.call, 2)
                    if act < 0.4:
                        runner.end(frame.call, 2)
                        open_calls.discard(frame.call)
                elif not stream and act < 0.5:
                    runner.result(frame.call, 1)
                    open_calls.discard(frame.call)
            elif frame.type is Frame.CANCEL and frame.call in open_calls:
                runner.error(frame.call, "cancelled", "stopped")
                open_calls.discard(frame.call)
    except (OSError, EOFError):
        return


def test_after_hundreds_of_clients_that_went_away_every_place_is_free(gateway: Gateway) -> None:
    """At each step of the protocol; no call is left, and the same instance answers the next."""
    limits = dataclasses.replace(LIMITS, queue=500, concurrency=3)
    runner = gateway.ready("say", "say_stream", limits=limits)
    chance = random.Random(7)
    threading.Thread(target=serve, args=(runner, chance), daemon=True).start()
    token = gateway.token()
    invoke = f"POST /v1/agents/echo-1/entrypoints/say:invoke HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
    upgrade = (
        f"GET /api/v1/agents/echo-1/run-stream?token={token} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    ).encode()
    message = b'{"entrypoint_tag":"say_stream"}'
    requests = [
        f"{invoke}Content-Length: 2\r\n\r\n{{}}".encode(),
        f"{invoke}Accept: text/event-stream\r\nContent-Length: 2\r\n\r\n{{}}".encode(),
        upgrade + bytes([0x81, 0x80 | len(message), 0, 0, 0, 0]) + message,
    ]
    for number in range(CLIENTS):
        raw = socket.create_connection(("127.0.0.1", gateway.port), timeout=5)
        request = requests[number % 3]
        raw.sendall(request if chance.random() < 0.8 else request[: chance.randrange(len(request))])
        if chance.random() < 0.5:
            raw.settimeout(0.002)
            try:
                raw.recv(chance.choice((1, 100, 10_000)))
            except TimeoutError:
                pass
        if chance.random() < 0.7:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raw.close()
    agent = gateway.inside(lambda: gateway.application.directory.find("echo"))
    gateway.wait_until(lambda: not agent.open_calls() and not agent.waiting)
    gateway.wait_until(lambda: not gateway.server.connections)
    assert list(gateway.inside(lambda: list(agent.instances))) == ["00000000000000a1"]
    assert gateway.inside(lambda: gateway.application._native._pipeline._running) == set()
