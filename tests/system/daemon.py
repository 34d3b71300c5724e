"""A real daemon for tests: `runagentd serve` on folders, called over HTTP as a client calls it.

Everything is the product's own command; nothing is faked. Each daemon has a state directory of its own.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runagentd import signing, state
from runagentd.config import packages
from runagentd.foreman import admin_client
from runagentd.wire import admin

ROOT = Path(__file__).resolve().parents[2]
_UP_SECONDS = 60.0
_DOWN_SECONDS = 12.0
_LOG_SECONDS = 20.0


@dataclass
class Daemon:
    """A running `runagentd serve`."""

    process: subprocess.Popen[bytes]
    state_dir: Path
    url: str
    token: str
    agents: list[dict[str, Any]]
    log: Path
    _stopped: bool = field(default=False)

    def call(
        self, agent: str, tag: str, kwargs: dict[str, Any] | None = None, *, timeout: float = 60.0
    ) -> tuple[int, Any]:
        """One call over the native door: the status and the JSON of the answer."""
        quoted = [urllib.parse.quote(part, safe="") for part in (agent, tag)]
        path = f"/v1/agents/{quoted[0]}/entrypoints/{quoted[1]}:invoke"
        return self.request("POST", path, body=kwargs or {}, timeout=timeout)

    def token_of(self, subject: str, *, tenant: str | None = None) -> str:
        """One of this subject's that may call everything, for an hour."""
        directory = state.open_existing(self.state_dir)
        return signing.mint(
            signing.create_or_open(str(directory.keys)),
            issuer=directory.issuer,
            audience=directory.audience,
            subject=subject,
            agents=None,
            ttl_seconds=3600,
            tenant=tenant,
        )

    def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        token: str | None = None,
        timeout: float = 60.0,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Any]:
        """One request with this daemon's token, or with another."""
        parts = urllib.parse.urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
        sent = {"Authorization": f"Bearer {token or self.token}", "Content-Type": "application/json", **(headers or {})}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), sent)
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else None
        finally:
            connection.close()

    def instances(self) -> list[admin.InstanceRow]:
        """What the supervisor says runs."""
        return list(self.listing().instances)

    def listing(self) -> admin.Instances:
        return admin_client.instances(self.state_dir / "admin.sock")

    def wait_for_log(self, words: str) -> None:
        """Wait until the daemon has printed a line with these words."""
        end = time.monotonic() + _LOG_SECONDS
        while words not in self.log.read_text():
            if time.monotonic() > end:
                raise TimeoutError(f"{words!r} is not in the log")
            time.sleep(0.02)

    def row(self, agent: str) -> admin.InstanceRow:
        """The row of one agent, by id or name."""
        return next(row for row in self.instances() if agent in (row.agent, row.agent_name))

    def restart(self, agent: str) -> None:
        """Have the supervisor end the agent's instance and start another, as `runagentctl restart` does."""
        reply = admin_client.ask(self.state_dir / "admin.sock", admin.Restart(agent=agent))
        if not isinstance(reply, admin.Done):
            raise AssertionError(f"the supervisor answered {reply}")

    def restart_count(self, agent: str) -> int:
        """How often the agent's instance was started again."""
        return self.row(agent).restarts

    def wait_until_ready(self, agent: str, *, other_than: str = "", seconds: float = 15.0) -> admin.InstanceRow:
        """The row of the agent's instance once it is ready, and is not the instance `other_than`."""
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(Exception):
                row = self.row(agent)
                if row.state == "ready" and row.instance != other_than:
                    return row
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"{agent} is not ready after {seconds} s; {self.log} says:\n{self.log.read_text()[-3000:]}"
                )
            time.sleep(0.02)

    def gateway_pid(self) -> int:
        return self._child("runagentd.gateway")

    def egress_pid(self) -> int:
        return self._child("runagentd.egress")

    def worker_pids(self) -> list[int]:
        """Of the gateway's workers."""
        return self._children("runagentd.worker")

    def _child(self, package: str) -> int:
        """The foreman's child that runs a package; 0 where there is none."""
        return next(iter(self._children(package)), 0)

    def _children(self, package: str) -> list[int]:
        found = []
        for pid in map(int, Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()):
            with contextlib.suppress(OSError):
                if f"{package}.__main__".encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
        return found

    def stop(self) -> int:
        """SIGTERM, and the exit status; everything must be gone within ten seconds."""
        if not self._stopped:
            self._stopped = True
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(_DOWN_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise AssertionError(
                    f"the daemon did not stop in time; {self.log} says:\n{self.log.read_text()[-3000:]}"
                ) from None
        return self.process.returncode


def _environment() -> dict[str, str]:
    """Without a package index of whoever runs the tests."""
    return {name: value for name, value in os.environ.items() if name not in packages.VARIABLES}


@contextlib.contextmanager
def serve(
    folders: Sequence[Path],
    *,
    policies: Sequence[str] = (),
    options: Sequence[str] = (),
    command: Sequence[str] = (),
    state_dir: Path | None = None,
    variables: Mapping[str, str] | None = None,
    up_seconds: float = _UP_SECONDS,
) -> Iterator[Daemon]:
    """Serve `folders` on a free port until the block ends. `policies`: as --policy takes them."""
    place = Path(tempfile.mkdtemp(prefix="runagentd-test-"))
    state = state_dir or place / "state"
    ready, log = place / "ready.json", place / "log"
    arguments = [
        *(command or (sys.executable, "-m", "runagentd.cli.runagentd")),
        "serve", *map(str, folders),
        "--port", "0", "--state-dir", str(state), "--ready-file", str(ready),
        *(word for policy in policies for word in ("--policy", policy)),
        *options,
    ]  # fmt: skip
    with log.open("wb") as output:
        process = subprocess.Popen(
            arguments,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**_environment(), "CANARY_OF_THE_HOST": "canary-7f3a", **(variables or {})},
        )
    try:
        deadline = time.monotonic() + up_seconds
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the daemon did not come up:\n{log.read_text()[-4000:]}")
            time.sleep(0.02)
        up = json.loads(ready.read_text())
        daemon = Daemon(process, state, up["url"], up["token"], up["agents"], log)
        try:
            yield daemon
        finally:
            daemon.stop()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    shutil.rmtree(place)  # after a failure it stays, for whoever has to find out why
