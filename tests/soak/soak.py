"""Load that comes and goes while every kind of process is killed: what must hold then, and what did not.

Runs as: `make soak SECONDS=600`, and shorter in `make test`; root.
A real daemon, real clients. Three agents: one with a fixed instance, one with up to four, one that sleeps when nobody
calls; a fourth is restarted all the time, so that instances are made and ended by the thousand.

Nothing is asked of the daemon that a client or the kernel does not say: each answer that is no result has to be
retryable and true (a death where something was killed, a lost connection where what reads HTTP was), and at the end
nothing may be left, every place must be free, and the daemons' memory where it was. Where workers
read HTTP for the gateway, they are killed, too.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import os
import random
import signal
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from runagentd.foreman import admin_client
from runagentd.wire import admin
from tests.system import traces
from tests.system.daemon import Daemon, serve
from tests.system.folders import agent, policy

CALLERS = (0, 5, 200, 20, 0, 60)
"""How many call at the same time, one number after the other."""
STEP_SECONDS = 2.0
CALM_SHARE = 0.4
"""The last part of a run, in which no daemon is killed, so that its memory can be looked at."""
TRUE_SECONDS = 4.0
"""How long after a kill its consequences are met."""
KILLS_APART = (0.3, 1.2)
RESTARTS_APART = 0.08
GROWTH_MAX = 1.10
GROWTH_BYTES = 4 * 1024 * 1024
"""What a process may have grown by between the begin and the end of the calm part: buffers, caches of small objects."""

WORK = """
    import asyncio, time

    def echo(text: str) -> str:
        return text

    def nap(seconds: float) -> str:
        time.sleep(seconds)
        return "slept"

    async def anap(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "slept"

    def count_stream(to: int):
        for number in range(to):
            time.sleep(0.002)
            yield number
"""
TAGS = ("echo", "nap", "anap", "count_stream")
CONCURRENCY = {"fixed": 8, "grows": 2, "sleeps": 1}


@dataclass
class Findings:
    """What a run has shown; `wrong` must be empty."""

    outcomes: collections.Counter[str] = field(default_factory=collections.Counter)
    kills: collections.Counter[str] = field(default_factory=collections.Counter)
    spawns: int = 0
    wrong: list[str] = field(default_factory=list)
    memory: dict[str, tuple[int, int]] = field(default_factory=dict)
    """bytes at the begin and at the end of the calm part, of the processes that live through it"""

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"calls      {sum(self.outcomes.values())}: " + ", ".join(
            f"{count} {what}" for what, count in self.outcomes.most_common()
        )
        yield f"kill -9    {sum(self.kills.values())}: " + ", ".join(f"{n} {what}" for what, n in self.kills.items())
        yield f"instances  {self.spawns} made and ended"
        for name, (first, last) in self.memory.items():
            yield f"memory     {name}: {first / 2**20:.1f} MiB, at the end {last / 2**20:.1f} MiB"
        for each in self.wrong[:20]:
            yield f"wrong      {each}"


class Soak:
    """One run."""

    def __init__(self, daemon: Daemon, seconds: float, chance: random.Random, *, workers: int) -> None:
        self._daemon = daemon
        self._workers = workers
        self._seconds = seconds
        self._chance = chance
        self._killed: dict[str, float] = {}
        """when which kind of process was killed last"""
        self._callers = 0
        self._over = False
        self._calm = False
        self.findings = Findings()

    async def run(self) -> Findings:
        """All of it: load, kills, and the look at what remains."""
        async with aiohttp.ClientSession(
            self._daemon.url,
            connector=aiohttp.TCPConnector(limit=0),
            headers={"Authorization": f"Bearer {self._daemon.token}"},
            timeout=aiohttp.ClientTimeout(total=60),
        ) as session:
            callers = [asyncio.create_task(self._caller(session, number)) for number in range(max(CALLERS))]
            others = [asyncio.create_task(each) for each in (self._steps(), self._killer(), self._restarter())]
            await asyncio.sleep(self._seconds * (1 - CALM_SHARE))
            self._calm = True
            await asyncio.sleep(TRUE_SECONDS)
            before = self._memory()
            await asyncio.sleep(max(0.0, self._seconds * CALM_SHARE - TRUE_SECONDS))
            self._over = True
            for task in others:
                task.cancel()
            await asyncio.gather(*callers)
            await asyncio.gather(*others, return_exceptions=True)
            after = self._memory()
            await self._every_place_is_free(session)
        for name in before.keys() & after.keys():
            first, last = self.findings.memory[name] = before[name], after[name]
            if last > first * GROWTH_MAX + GROWTH_BYTES:
                self.findings.wrong.append(f"the {name} grew from {first} to {last} bytes")
        return self.findings

    async def _steps(self) -> None:
        while True:
            for number in CALLERS:
                self._callers = number
                await asyncio.sleep(STEP_SECONDS)

    # ---- load

    async def _caller(self, session: aiohttp.ClientSession, number: int) -> None:
        while not self._over:
            if number >= self._callers:
                await asyncio.sleep(0.05)
                continue
            name = self._chance.choice(tuple(CONCURRENCY))
            began = time.monotonic()
            try:
                what = await self._call(session, name)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                what = "connection lost"
                self._must_follow_a_reader(began, f"{type(error).__name__} from {name}")
            self.findings.outcomes[what] += 1
            if what != "ok":
                await asyncio.sleep(0.05)  # as a client that tries again would

    async def _call(self, session: aiohttp.ClientSession, name: str) -> str:
        chance = self._chance.random()
        path = f"/v1/agents/{name}/entrypoints/"
        began = time.monotonic()
        if chance < 0.2:
            return await self._stream(session, f"{path}count_stream:invoke", leave_early=chance < 0.1)
        if chance < 0.3:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._chance.random() * 0.02):
                    async with session.post(f"{path}anap:invoke", json={"seconds": 0.05}) as answer:
                        await answer.read()
            return "left early"
        tag, body = self._chance.choice(
            (("echo", {"text": "x" * 100}), ("nap", {"seconds": 0.01}), ("anap", {"seconds": 0.01}))
        )
        async with session.post(f"{path}{tag}:invoke", json=body) as answer:
            said = await answer.json()
            if answer.status == 200:
                if said not in ("slept", "x" * 100):
                    self.findings.wrong.append(f"{tag} answered {said!r:.60}")
                return "ok"
            return self._refused(answer.status, said, began)

    async def _stream(self, session: aiohttp.ClientSession, path: str, *, leave_early: bool) -> str:
        began = time.monotonic()
        async with session.post(path, json={"to": 20}, headers={"Accept": "text/event-stream"}) as answer:
            if answer.status != 200:
                return self._refused(answer.status, await answer.json(), began)
            if leave_early:
                await answer.content.readany()
                return "left early"
            text, complete = "", True
            try:
                async for chunk in answer.content.iter_any():
                    text += chunk.decode()
            except aiohttp.ClientPayloadError:
                complete = False
        if "event: done" in text:
            return "ok"
        if "event: error" in text:
            if complete:
                self.findings.wrong.append("after an error the body must be cut, or a proxy takes it for success")
            self._refused(200, json.loads(text.rpartition("data: ")[2]), began)
            return "stream cut"
        self._must_follow_a_reader(began, f"a stream just ended: {text[-80:]!r}")
        return "connection lost"

    def _refused(self, status: int, problem: dict[str, Any], began: float) -> str:
        """Every refusal is retryable, and says what is true."""
        code = str(problem.get("code"))
        if problem.get("retryable") is not True:
            self.findings.wrong.append(f"not retryable: {status} {problem}")
        if code == "INSTANCE_DIED":
            if problem.get("cause") not in ("signal", "supervisor-lost"):
                self.findings.wrong.append(f"instances were killed, and this says {problem}")
            self._must_follow(list(self._killed), began, f"{status} {problem.get('detail')}")
        if problem.get("cause") == "gateway-lost":
            self._must_follow(["gateway"], began, f"{status} {problem.get('detail')}")
        return f"{status} {code}"

    def _must_follow_a_reader(self, began: float, what: str) -> None:
        """That a process was killed that had the connection, or the answer."""
        self._must_follow(["gateway", "worker"], began, what)

    def _must_follow(self, kinds: Sequence[str], began: float, what: str) -> None:
        """That something of one of these kinds was killed while the call ran, or shortly before."""
        if not any(self._killed.get(each, 0.0) > began - TRUE_SECONDS for each in kinds):
            self.findings.wrong.append(f"{what}, and no {' or '.join(kinds) or 'process'} was killed")

    # ---- kills

    async def _killer(self) -> None:
        while True:
            await asyncio.sleep(self._chance.uniform(*KILLS_APART))
            kinds = ["runner", "runner", "reaper", "reaper", "zygote"]
            if not self._calm:
                kinds += ["gateway", "supervisor", *["worker"] * (self._workers > 1)]
            kind = self._chance.choice(kinds)
            with contextlib.suppress(Exception):
                pid = await asyncio.to_thread(self._pid, kind)
                if pid > 1:
                    self._killed[kind] = time.monotonic()
                    os.kill(pid, signal.SIGKILL)
                    self.findings.kills[kind] += 1

    def _pid(self, kind: str) -> int:
        listing = self._daemon.listing()
        if kind in ("supervisor", "zygote"):
            return next(row.pid for row in listing.daemons if row.name == kind)
        if kind == "gateway":
            return self._daemon.gateway_pid()
        if kind == "worker":
            return self._chance.choice(self._daemon.worker_pids())
        rows = [row for row in listing.instances if row.state == "ready" and row.agent_name != "churns"]
        row = self._chance.choice(rows)
        return row.pid if kind == "runner" else row.reaper_pid

    async def _restarter(self) -> None:
        """Another instance of the fourth agent, again and again."""
        while True:
            await asyncio.sleep(RESTARTS_APART)
            with contextlib.suppress(Exception):
                await asyncio.to_thread(self._restart)
                self.findings.spawns += 1

    def _restart(self) -> None:
        admin_client.ask(self._daemon.state_dir / "admin.sock", admin.Restart(agent="churns"), seconds=5)

    # ---- what remains

    def _memory(self) -> dict[str, int]:
        """PSS of the processes that nobody kills now, by name (proc_pid_smaps(5))."""
        found = {}
        for kind in ("supervisor", "gateway"):
            with contextlib.suppress(Exception):
                pid = self._pid(kind)
                looks = [_pss(pid)]
                for _ in range(2):
                    time.sleep(0.05)
                    looks.append(_pss(pid))
                found[kind] = int(statistics.median(looks))
        return found

    async def _every_place_is_free(self, session: aiohttp.ClientSession) -> None:
        """As many calls at once as an agent has places: a place that was lost would leave one waiting."""
        for name, places in CONCURRENCY.items():
            # Whose instances were killed again and again waits up to half a minute for the next start (`lifecycle`).
            end = time.monotonic() + 45
            while True:
                began = time.monotonic()
                answers = await asyncio.gather(*(self._nap(session, name) for _ in range(places)))
                # Two rounds of half a second would take a whole one.
                if answers == [200] * places and time.monotonic() - began < 0.9:
                    break
                if time.monotonic() > end:
                    self.findings.wrong.append(f"{name} has not all of its {places} places: {answers}")
                    break

    async def _nap(self, session: aiohttp.ClientSession, name: str) -> int:
        try:
            path = f"/v1/agents/{name}/entrypoints/anap:invoke"
            async with session.post(path, json={"seconds": 0.5}) as answer:
                await answer.read()
                return answer.status
        except (aiohttp.ClientError, OSError):
            return 0


def _pss(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise ValueError("no Pss")


def soak(place: Path, seconds: float, seed: int, *, workers: int = 1) -> Findings:
    """Serve, load, kill, stop, and look. The seed decides what is called and killed, not when things happen."""
    config = place / "runagentd.toml"
    config.write_text(f"[gateway]\nworkers = {workers}\n")
    policies = {
        "fixed": "[calls]\nconcurrency = 8\nqueue = 128\n",
        "grows": '[calls]\nconcurrency = 2\n[scaling]\ninstances_max = 4\nidle = "2s"\n',
        "sleeps": '[scaling]\ninstances_min = 0\ninstances_max = 3\nidle = "1s"\n',
        "churns": "",
    }
    folders = [agent(place, name, WORK, *TAGS) for name in policies]
    chosen = [f"{name}={policy(place, name, text)}" for name, text in policies.items()]
    with serve(folders, policies=chosen, options=["--spares", "2", "--config", str(config)]) as daemon:
        family = traces.family(daemon.process.pid, traces.identity(daemon.state_dir))
        findings = asyncio.run(Soak(daemon, seconds, random.Random(seed), workers=workers).run())
        family |= traces.family(daemon.process.pid, traces.identity(daemon.state_dir))
        zombies = traces.zombies(daemon.process.pid)
        if zombies:
            findings.wrong.append(f"nobody reaps {zombies}")
        daemon.stop()
        left = traces.left(daemon.state_dir, family)
        if left:
            findings.wrong.append(f"left over: {left}")
    return findings
