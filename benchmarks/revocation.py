"""`python -m benchmarks.revocation`: how long a revoked token stays alive while 1,000 requests a second use it.

Runs as: root.
Reads from strangers: nothing; everything is on 127.0.0.1.
Measured from the moment in which an operator's command begins to write, to the last request with that token that was
sent and was still answered, and to the end of its open stream. The command's own start (Python) is not in it.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time

from benchmarks.processes import AGENT, BenchmarkError, Daemon, daemon, require_root
from runagentd import signing, state
from runagentd.foreman import admin_client
from runagentd.trust import TrustStore
from runagentd.wire import admin

CONNECTIONS = 16
PER_SECOND = 1_000
SETTLE_SECONDS = 0.5
GIVE_UP_SECONDS = 5.0


class Round:
    """One token, used until it is refused."""

    def __init__(self, served: Daemon, token: str) -> None:
        self._served = served
        self._fields = f"Host: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n"
        self.answered = 0
        self.last_good = 0.0
        self.stream_end = 0.0
        self.revoked = asyncio.Event()

    async def caller(self, number: int) -> None:
        """Its part of the load, until the first refusal."""
        reader, writer = await asyncio.open_connection(*self._served.address)
        body = b'{"text":"a"}'
        head = f"POST {self._served.path('echo')} HTTP/1.1\r\n{self._fields}Content-Length: {len(body)}\r\n\r\n"
        interval = CONNECTIONS / PER_SECOND
        due = time.monotonic() + interval * number / CONNECTIONS
        while True:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            due += interval
            sent = time.monotonic()
            writer.write(head.encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            status = int(answer.split(b" ", 2)[1])
            if status == 401:
                break
            if status != 200:
                raise BenchmarkError(f"a call was answered with {status}")
            self.answered += 1
            self.last_good = max(self.last_good, sent)
        writer.close()

    async def stream(self) -> None:
        """A stream of events, until it is cut."""
        reader, writer = await asyncio.open_connection(*self._served.address)
        head = f"POST /v1/agents/ticks/entrypoints/ticks:invoke HTTP/1.1\r\n{self._fields}Accept: text/event-stream\r\n"
        writer.write(f"{head}Content-Length: 2\r\n\r\n{{}}".encode())
        await reader.readuntil(b"event: chunk")
        while await reader.read(65536):
            pass
        self.stream_end = time.monotonic()
        writer.close()


async def one(served: Daemon, directory: state.StateDirectory, number: int) -> tuple[float, float, float]:
    """(requests a second before, seconds until the last good request, seconds until the stream's end)."""
    subject = f"load-{number}"
    token = signing.mint(
        signing.create_or_open(str(directory.keys)), issuer=directory.issuer, audience=directory.audience,
        subject=subject, agents=None, ttl_seconds=600,
    )  # fmt: skip
    round_ = Round(served, token)
    tasks = [asyncio.create_task(round_.stream()), *(asyncio.create_task(round_.caller(n)) for n in range(CONNECTIONS))]
    began = time.monotonic()
    await asyncio.sleep(SETTLE_SECONDS)
    rate = round_.answered / (time.monotonic() - began)
    moment = time.monotonic()
    await asyncio.to_thread(_revoke, directory, subject)
    done, pending = await asyncio.wait(tasks, timeout=GIVE_UP_SECONDS)
    for task in pending:
        task.cancel()
    for task in done:
        task.result()
    if pending:
        raise BenchmarkError(f"{GIVE_UP_SECONDS} s after the revocation {len(pending)} connections are still served")
    return rate, round_.last_good - moment, round_.stream_end - moment


def _revoke(directory: state.StateDirectory, subject: str) -> None:
    with TrustStore(directory.keys) as store:
        store.revoke_subject(subject, before=int(time.time()) + 1)
    reply = admin_client.ask(directory.admin_socket, admin.TrustChanged())
    if reply != admin.TrustSpread(taken=True):
        raise BenchmarkError(f"the supervisor answered {reply}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.revocation")
    parser.add_argument("--runs", type=int, default=20)
    arguments = parser.parse_args()
    try:
        require_root()
        with daemon(spares=0, others=[AGENT.parent / "ticks"]) as served:
            directory = state.open_existing(served.state_dir)
            found = [asyncio.run(one(served, directory, number)) for number in range(arguments.runs)]
    except BenchmarkError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    for name, column in (("requests/s before", 0), ("last good request, ms", 1), ("end of the stream, ms", 2)):
        values = [row[column] * (1 if column == 0 else 1000) for row in found]
        print(f"{name:<24} median {statistics.median(values):7.1f}   largest {max(values):7.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
