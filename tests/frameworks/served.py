"""Agents with real frameworks, in a real daemon: what each test of them needs.

Runs as: the test process, as root.
Reads from strangers: what the package index offers, inside the builder's and the agents' sandboxes.
The packages come from the index that this machine's pip uses; without one the daemon does not come up, and the test
fails with what it says.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from runagentd.names import storage_name
from tests.system import daemon
from tests.system.daemon import Daemon
from tests.system.test_real_index import usual_index

AGENTS = Path(__file__).parent / "agents"
_UP_SECONDS = 240.0
"""scikit-learn's 271 MiB took 14 s, and 54 s while others kept processors and disk busy"""


@contextlib.contextmanager
def serve(place: Path, name: str, *, policies: Sequence[str] = ()) -> Iterator[Daemon]:
    """The agent of tests/frameworks/agents/NAME, once its environment was built."""
    index, hosts = usual_index()
    settings = place / "runagentd.toml"
    settings.write_text(f"[packages]\nindex = {json.dumps(index)}\nhosts = {json.dumps(hosts)}\n")
    options = ["--config", str(settings)]
    with daemon.serve([AGENTS / name], policies=policies, options=options, up_seconds=_UP_SECONDS) as served:
        yield served


def chunks(served: Daemon, agent: str, tag: str, arguments: dict[str, Any]) -> list[Any]:
    """What a stream of server-sent events carries; AssertionError where it does not end well."""
    parts = urllib.parse.urlsplit(served.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    headers = {
        "Authorization": f"Bearer {served.token}", "Content-Type": "application/json", "Accept": "text/event-stream",
    }  # fmt: skip
    try:
        path = f"/v1/agents/{agent}/entrypoints/{tag}:invoke"
        connection.request("POST", path, json.dumps(arguments), headers)
        answer = connection.getresponse()
        body = answer.read().decode()
    finally:
        connection.close()
    assert answer.status == 200, body
    events = [_event(block) for block in body.split("\n\n")[:-1] if not block.startswith(":")]
    assert [name for name, _ in (events[0], events[-1])] == ["start", "done"], body
    return [data for _, data in events[1:-1]]


def _event(block: str) -> tuple[str, Any]:
    fields = dict(line.split(": ", 1) for line in block.split("\n"))
    return fields["event"], json.loads(fields["data"])


def wait_for_log(served: Daemon, agent: str, words: str, *, times: int = 1) -> None:
    """Until the agent's own log has these words, so many times; what it has instead is in the AssertionError."""
    log = log_of(served, agent)
    end = time.monotonic() + 5
    while count(log, words) < times:
        assert time.monotonic() < end, f"{words!r} is not in:\n{log.read_text() if log.exists() else 'nothing'}"
        time.sleep(0.02)


def log_of(served: Daemon, agent: str) -> Path:
    """Where the gateway keeps what the agent prints."""
    return served.state_dir / "gateway" / "logs" / f"{storage_name(served.row(agent).agent)}.log"


def count(log: Path, words: str) -> int:
    return log.read_text().count(words) if log.exists() else 0
