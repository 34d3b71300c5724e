"""Versions come and go under load, and the supervisor is killed in between: what must hold then, and what did not.

Runs as: `make deploys`, and shorter in `make test`; root.
A real daemon, real commands, real clients that call all the time. Each version answers with a word of its own, so that
every answer says which version gave it. It has to be one that served at some moment of the call: a call that began
after a deploy was told to be done, and is answered by the version before, is as wrong as one that failed.

A call may fail only where it was under way when the supervisor was killed, and then it must say that it can be made
again. What a killed command has done is asked afterwards: all of it, or nothing.
"""

from __future__ import annotations

import asyncio
import collections
import json
import os
import random
import re
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from runagentd.names import storage_name
from tests.system import traces
from tests.system.ctl import run
from tests.system.daemon import Daemon, serve
from tests.system.folders import agent, policy

CLIENTS = 8
NAME = "chat"
NOTICED_SECONDS = 1.0
"""How long after a kill a call may still be given to an instance that dies of it."""
KILL_WITHIN_SECONDS = 0.6
"""After a command has begun: it takes 0.2 s by itself, and the deploy in it as long again."""
SETTLE_SECONDS = 20.0

SOURCE = """
    import time

    WORD = "word0"

    def say() -> str:
        return WORD

    def nap() -> str:
        time.sleep(0.02)
        return WORD

    def well() -> bool:
        return True
"""


RULES = """
    [calls]
    concurrency = 3
    [scaling]
    instances_min = 1
    instances_max = 3
"""


@dataclass
class Findings:
    """What a run has shown; `wrong` must be empty."""

    commands: collections.Counter[str] = field(default_factory=collections.Counter)
    calls: int = 0
    failed: int = 0
    """calls that were under way when the supervisor was killed"""
    kills: int = 0
    seconds: dict[str, list[float]] = field(default_factory=lambda: collections.defaultdict(list))
    wrong: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """For people."""
        yield "commands   " + ", ".join(f"{count} {what}" for what, count in sorted(self.commands.items()))
        yield f"kill -9    {self.kills} of the supervisor"
        yield f"calls      {self.calls}, of which {self.failed} failed, all at a kill and told to be retryable"
        for what, took in sorted(self.seconds.items()):
            middle = sorted(took)[len(took) // 2]
            yield f"{what:<10} {1000 * middle:.0f} ms at the median of {len(took)}, {1000 * max(took):.0f} at most"
        for each in self.wrong[:20]:
            yield f"wrong      {each}"


@dataclass(frozen=True)
class Call:
    """One call of a client's. Times are on the monotonic clock."""

    began: float
    ended: float
    status: int
    said: Any


class Deploys:
    """One run."""

    def __init__(self, daemon: Daemon, folder: Path, chance: random.Random) -> None:
        self._daemon = daemon
        self._folder = folder
        self._chance = chance
        self._over = False
        self._calls: list[Call] = []
        self._kills: list[float] = []
        self._words = {1: "word0"}
        """what each version answers"""
        self._next_word = 1
        self._serving = 1
        self._spans: list[tuple[float, float, set[str]]] = []
        """when which answers were right: from the begin of a command until the end of the next one"""
        self.findings = Findings()

    # ---- clients

    async def run(self, deploys: int, rollbacks: int, broken: int, kills: int) -> Findings:
        """All of it."""
        commands = ["deploy"] * deploys + ["rollback"] * rollbacks + ["broken"] * broken
        self._chance.shuffle(commands)
        commands.insert(0, "deploy")  # before it there is nothing to go back to
        killed = set(self._chance.sample(range(1, len(commands)), kills))
        began = time.monotonic()
        self._spans.append((began, began, {self._words[1]}))
        async with aiohttp.ClientSession(
            self._daemon.url,
            headers={"Authorization": f"Bearer {self._daemon.token}"},
            timeout=aiohttp.ClientTimeout(total=30),
        ) as session:
            clients = [asyncio.create_task(self._client(session, number)) for number in range(CLIENTS)]
            try:
                for number, command in enumerate(commands):
                    await asyncio.to_thread(self._command, number, command, kill=number in killed)
                    await asyncio.sleep(self._chance.random() * 0.1)
            finally:
                self._over = True
                await asyncio.gather(*clients)
        self._look_at_calls()
        self._look_at_the_end()
        return self.findings

    async def _client(self, session: aiohttp.ClientSession, number: int) -> None:
        tag = "nap" if number % 4 == 0 else "say"
        while not self._over:
            began = time.monotonic()
            try:
                async with session.post(f"/v1/agents/{NAME}/entrypoints/{tag}:invoke", json={}) as answer:
                    status, said = answer.status, await answer.json()
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                status, said = 0, type(error).__name__
            self._calls.append(Call(began, time.monotonic(), status, said))
            if status != 200:
                await asyncio.sleep(0.05)  # as a client that tries again would

    # ---- the operator

    def _command(self, number: int, command: str, *, kill: bool) -> None:
        before = self._serving
        words, expected = self._prepare(number, command)
        began = time.monotonic()
        self._spans.append((began, began, {self._words[before], *([expected] if expected else [])}))
        killer = None
        if kill:
            killer = self._kill_after(self._chance.random() * KILL_WITHIN_SECONDS)
        status, out, err = run(*words, state=self._daemon.state_dir)
        ended = time.monotonic()
        if killer is not None:
            killer.join()
            self._wait_for_supervisor()
        after = self._versions()
        self._serving = next(row["number"] for row in after if row["state"] in ("serving", "not served"))
        self._learn(after, expected)
        said = self._words[self._serving]
        allowed = {self._words[before]} if command == "broken" else {expected or ""}
        if kill:
            allowed.add(self._words[before])
        elif (status == 0) is (command == "broken"):
            self.findings.wrong.append(f"{command} {number}: status {status}: {(out + err).strip()[:300]}")
        if said not in allowed:
            self.findings.wrong.append(f"{command} {number}: {said} serves, and not {sorted(allowed)}")
        self._spans.append((time.monotonic(), time.monotonic(), {said}))
        self.findings.commands[command] += 1
        if not kill:
            self.findings.seconds[command].append(ended - began)

    def _prepare(self, number: int, command: str) -> tuple[list[str], str]:
        """The command to give, and what is answered where it goes well; "" for a broken version."""
        agent_file = self._folder / "agent.py"
        if command == "rollback":
            others = [each for each in self._words if each != self._serving]
            kept = {row["number"] for row in self._versions()}
            target = self._chance.choice([each for each in others if each in kept])
            return ["rollback", NAME, f"v{target}"], self._words[target]
        if command == "deploy":
            word = f"word{self._next_word}"
            self._next_word += 1
            agent_file.write_text(re.sub(r"word\d+", word, self._good()))
            return ["deploy", str(self._folder)], word
        broken = (
            "import nothing_of_that_name\n",
            "import os\nos._exit(3)\n",
            self._good().replace("def nap", "def other"),
            self._good().replace("return True", "return False"),
            "this is no Python\n",
        )
        agent_file.write_text(broken[number % len(broken)])
        return ["deploy", str(self._folder)], ""

    def _good(self) -> str:
        return (self._folder / "good").read_text()

    def _learn(self, rows: list[dict[str, Any]], expected: str) -> None:
        """The number of a version that was deployed just now, also where nobody was told of it."""
        for row in rows:
            if row["number"] not in self._words:
                self._words[row["number"]] = expected

    def _versions(self) -> list[dict[str, Any]]:
        status, out, err = run("versions", NAME, "--json", state=self._daemon.state_dir)
        if status != 0:
            raise AssertionError(f"versions: {err}")
        rows: list[dict[str, Any]] = json.loads(out)["rows"]
        return rows

    def _kill_after(self, seconds: float) -> threading.Timer:
        pid = next(row.pid for row in self._daemon.listing().daemons if row.name == "supervisor")
        if pid <= 1:
            raise AssertionError("kill(0) would end the test run itself")

        def kill() -> None:
            self._kills.append(time.monotonic())
            os.kill(pid, signal.SIGKILL)
            self.findings.kills += 1

        timer = threading.Timer(seconds, kill)
        timer.start()
        return timer

    def _wait_for_supervisor(self) -> None:
        """Until the next one knows what is deployed, and an instance of it is ready."""
        end = time.monotonic() + SETTLE_SECONDS
        while True:
            try:
                if any(row.state == "ready" for row in self._daemon.instances()):
                    return
            except Exception as error:
                if time.monotonic() > end:
                    raise AssertionError(self._daemon.log.read_text()[-3000:]) from error
            if time.monotonic() > end:
                raise AssertionError(f"no instance is ready again:\n{self._daemon.log.read_text()[-3000:]}")
            time.sleep(0.02)

    # ---- what has come of it

    def _look_at_calls(self) -> None:
        for call in self._calls:
            self.findings.calls += 1
            if call.status == 200:
                right = self._right(call.began, call.ended)
                if call.said not in right:
                    self.findings.wrong.append(f"{call.said!r} was answered when {sorted(right)} served")
                continue
            self.findings.failed += 1
            at_a_kill = any(call.began <= kill + NOTICED_SECONDS and call.ended >= kill for kill in self._kills)
            retryable = isinstance(call.said, dict) and call.said.get("retryable") is True
            if not (at_a_kill and retryable):
                where = "at a kill" if at_a_kill else "without any kill"
                self.findings.wrong.append(f"a call failed {where}: {call.status} {str(call.said)[:300]}")

    def _right(self, began: float, ended: float) -> set[str]:
        """What may be answered to a call: what served when it began, and all that served from then on to its end."""
        right: set[str] = set()
        for moment, _, words in self._spans:
            if moment <= began:
                right = set(words)
            elif moment <= ended:
                right |= words
        return right

    def _look_at_the_end(self) -> None:
        wrong, state_dir = self.findings.wrong, self._daemon.state_dir
        rows = {row["number"]: row for row in self._versions()}
        serving = [number for number, row in rows.items() if row["state"] == "serving"]
        if serving != [self._serving] or rows[self._serving]["percent"] != 100:
            wrong.append(f"at the end {serving} serve, and not v{self._serving}")
        agent_id = self._daemon.row(NAME).agent
        end = time.monotonic() + SETTLE_SECONDS
        while True:
            states = sorted(row.state for row in self._daemon.instances())
            there = {path.name for path in (state_dir / "agents" / storage_name(agent_id) / "versions").iterdir()}
            needed = {row["code"] for row in self._versions()}
            left = list((state_dir / "agents" / "incoming").iterdir())
            if there == needed and not left and set(states) <= {"ready", "frozen", "warm"}:
                return
            if time.monotonic() > end:
                wrong.append(f"left at the end: {states}, {there ^ needed}, {left}")
                return
            time.sleep(0.05)


def deploys(place: Path, *, deploys: int, rollbacks: int, broken: int, kills: int, seed: int) -> Findings:
    """So many of each, under load; nothing of the daemon is left afterwards."""
    folder = agent(place, NAME, SOURCE, "say", "nap", "well", health="well")
    (folder / "good").write_text((folder / "agent.py").read_text())
    with serve([], state_dir=place / "state") as daemon:
        status, out, err = run("token", "create", "--subject", "load", state=daemon.state_dir)
        if status != 0:
            raise AssertionError(err)
        daemon.token = out.strip()
        rules = policy(place, "rules", RULES)
        status, out, err = run("deploy", folder, "--policy", rules, state=daemon.state_dir)
        if status != 0:
            raise AssertionError(err)
        family = traces.family(daemon.process.pid, traces.identity(daemon.state_dir))
        trial = Deploys(daemon, folder, random.Random(seed))
        findings = asyncio.run(trial.run(deploys, rollbacks, broken, kills))
        family |= traces.family(daemon.process.pid, traces.identity(daemon.state_dir))
    # What the last supervisor that was killed has left dead, init reaps in its own time.
    traces.wait_until_gone(family, SETTLE_SECONDS)
    left = traces.left(daemon.state_dir, family)
    if left:
        findings.wrong.append(f"left after the stop: {left}")
    return findings
