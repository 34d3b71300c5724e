"""`python -m benchmarks.frameworks [NAME…]`: what real frameworks take under the shipped policies; docs/frameworks.md.

Runs as: root.
Reads from strangers: nothing here; packages come from the index that this machine's pip uses, and are installed and
imported in sandboxes.
Prints one table in Markdown. The exit status says whether everything was measured.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import machine, report
from benchmarks.processes import ROOT, BenchmarkError, Daemon, daemon, require_root
from runagentd.foreman import admin_client
from runagentd.wire import admin
from tests.system.test_real_index import usual_index

AGENTS = ROOT / "tests" / "frameworks" / "agents"
MANY = 5
_MIB = 1 << 20
_UP_SECONDS = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """An agent's folder, the policy that it needs, and a call that makes it work for the first time."""

    name: str
    package: str
    policy: str
    tag: str
    arguments: dict[str, Any]


SUBJECTS = (
    Subject(name="langgraph", package="langgraph", policy="base", tag="run", arguments={"number": 27}),
    Subject(
        name="pydantic_ai", package="pydantic-ai-slim", policy="base", tag="ask",
        arguments={"question": "How warm is it in Rome?"},
    ),
    Subject(name="openai", package="openai", policy="base", tag="chat", arguments={"question": "is anybody there"}),
    Subject(name="pandas", package="pandas", policy="base", tag="describe", arguments={"csv": "a,b\n1,2\n3,4\n"}),
    Subject(
        name="sklearn", package="scikit-learn", policy="base", tag="predict",
        arguments={"flowers": [[5.1, 3.5, 1.4, 0.2]]},
    ),
    Subject(name="onnx", package="onnxruntime", policy="base", tag="predict", arguments={"rows": [[1, 2, 0]]}),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """One agent after a call. Sizes in bytes, times in seconds."""

    subject: Subject
    version: str
    packages: int
    tree: int
    """the environment on disk"""
    up: float
    """from nothing to ready: the packages fetched and installed, the first import"""
    ready: float
    """from the begin of a spawn to ready, packages and pages there already: almost all of it is the import"""
    threads: int
    charged: int
    """what the cgroup of one instance counts, pages of files that it was the first to read included"""
    pss: int
    """one instance, reaper and runner, alone (proc_pid_smaps(5))"""
    pss_of_many: int
    """each of MANY"""


def measure(subject: Subject) -> Weight:
    """Serve it, call it, and then have MANY of it."""
    policy = f'extends = "{subject.policy}"\n[scaling]\ninstances_max = {MANY}\nidle = "1h"\nfreeze = "1h"\n'
    began = time.monotonic()
    index, hosts = usual_index()
    config = f"[packages]\nindex = {json.dumps(index)}\nhosts = {json.dumps(hosts)}\n"
    with daemon(spares=1, others=[AGENTS / subject.name], config=config, policy=policy) as served:
        up = time.monotonic() - began
        _have(served, subject, 1)
        _call(served, subject)
        [row] = _ready(served, subject)
        alone = _pss(row)
        threads = int(_field(Path(f"/proc/{row.pid}/status").read_text(encoding="ascii"), "Threads"))
        _have(served, subject, MANY)
        for _ in range(2 * MANY):
            _call(served, subject)
        rows = _ready(served, subject)
        later = sorted(rows, key=lambda one: one.spawn_started_ns)[-1]
        [tree] = (served.state_dir / "environments" / "trees").iterdir()
        return Weight(
            subject=subject,
            version=_installed(tree)[subject.package],
            packages=len(_installed(tree)),
            tree=_size(tree),
            up=up,
            ready=(later.ready_ns - later.spawn_started_ns) / 1e9,
            threads=threads,
            charged=row.memory_bytes,
            pss=alone,
            pss_of_many=sum(map(_pss, rows)) // len(rows),
        )


def _have(served: Daemon, subject: Subject, instances: int) -> None:
    """One more at a time: what starts together waits for each other."""
    for number in range(1, instances + 1):
        agent = next(row.agent for row in served.listing().instances if row.agent_name == subject.name)
        admin_client.ask(served.state_dir / "admin.sock", admin.Warm(agent=agent, instances=number))
        end = time.monotonic() + _UP_SECONDS
        while len(_ready(served, subject)) < number:
            if time.monotonic() > end:
                raise BenchmarkError(f"{subject.name}: {number} instances are not ready after {_UP_SECONDS:.0f} s")
            time.sleep(0.02)


def _ready(served: Daemon, subject: Subject) -> list[admin.InstanceRow]:
    return [row for row in served.listing().instances if row.agent_name == subject.name and row.state == "ready"]


def _call(served: Daemon, subject: Subject) -> None:
    connection = http.client.HTTPConnection(*served.address, timeout=60)
    headers = {"Authorization": f"Bearer {served.token}", "Content-Type": "application/json"}
    path = f"/v1/agents/{subject.name}/entrypoints/{subject.tag}:invoke"
    try:
        connection.request("POST", path, json.dumps(subject.arguments), headers)
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise BenchmarkError(f"{subject.name}: a call was answered {answer.status} {body[:300]!r}")


def _pss(row: admin.InstanceRow) -> int:
    texts = [Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii") for pid in (row.pid, row.reaper_pid)]
    return sum(int(_field(text, "Pss").split()[0]) * 1024 for text in texts)


def _field(text: str, name: str) -> str:
    return next(line.partition(":")[2].strip() for line in text.splitlines() if line.startswith(f"{name}:"))


def _installed(tree: Path) -> dict[str, str]:
    """Names and versions of the packages in an environment."""
    folders = [path.name.removesuffix(".dist-info").rpartition("-") for path in tree.glob("*.dist-info")]
    return {name.replace("_", "-").lower(): version for name, _, version in folders}


def _size(tree: Path) -> int:
    """What the files take on the disk."""
    return sum((Path(folder) / name).lstat().st_blocks * 512 for folder, _, names in os.walk(tree) for name in names)


def lines(weights: Iterator[Weight]) -> Iterator[str]:
    """One row after the other, as soon as it is there."""
    yield (
        "| framework | policy | packages | on disk | from nothing to ready | a start | threads "
        "| cgroup, one | PSS, one | PSS, each of five |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for one in weights:
        cells = (
            f"{one.subject.package} {one.version}", f"`{one.subject.policy}`", str(one.packages), _mib(one.tree),
            f"{one.up:.1f} s", f"{one.ready:.2f} s", str(one.threads), _mib(one.charged), _mib(one.pss),
            _mib(one.pss_of_many),
        )  # fmt: skip
        yield f"| {' | '.join(cells)} |"


def _mib(size: int) -> str:
    return f"{size / _MIB:.0f} MiB"


def main() -> int:
    """The exit status."""
    names = [subject.name for subject in SUBJECTS]
    parser = argparse.ArgumentParser(prog="benchmarks.frameworks", description="What real frameworks take.")
    parser.add_argument("name", nargs="*", choices=(*names, []), help="default: all")
    chosen = parser.parse_args().name or names
    try:
        require_root()
        for line in report.machine_lines(machine.look()):
            print(line)
        print()
        for line in lines(measure(subject) for subject in SUBJECTS if subject.name in chosen):
            print(line, flush=True)
    except BenchmarkError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
