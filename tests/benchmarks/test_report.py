"""What is said of a machine and of starts, and the rows of both, from figures given literally."""

from __future__ import annotations

import dataclasses

from benchmarks import cold_start, machine, peers, report, warm_call
from benchmarks.cold_start import ColdStart, Runs, launch_steps
from benchmarks.load import Load
from benchmarks.machine import Machine
from benchmarks.warm_call import Round, Rounds
from runagentd.wire.admin import StepTime

MS = 1_000_000
MACHINE = Machine(
    date="2026-11-22 12:00 UTC",
    cpu="Some CPU",
    processors=2,
    virtual=True,
    memory_bytes=8 << 30,
    kernel="Linux 6.18.0",
    distribution="Debian GNU/Linux 12 (bookworm)",
    python="CPython 3.11.2",
    programs=("bubblewrap 0.8.0", "no wrk"),
    load=0.1,
)


def start(answered_ms: int, *, from_spare: bool) -> ColdStart:
    return ColdStart(
        asked=1_000_000,
        from_spare=from_spare,
        imported=(answered_ms - 3) * MS,
        called=(answered_ms - 1) * MS,
        answered=answered_ms * MS,
        steps=tuple(
            StepTime(step=step, microseconds=value)
            for step, value in (("mount", 300), ("seccomp", 400), ("mount", 200))
        ),
    )


RUNS = Runs(
    at_gate=(start(2, from_spare=True), start(3, from_spare=True), start(3, from_spare=True)),
    from_spare=(start(4, from_spare=True), start(5, from_spare=True), start(6, from_spare=True)),
    on_demand=(start(9, from_spare=False), start(11, from_spare=False), start(30, from_spare=False)),
    peers={peers.BWRAP: (5 * MS, 5 * MS, 6 * MS), peers.FLOOR: (MS, MS, 2 * MS)},
    missing={peers.RUNC: "not installed; apt-get install runc"},
)


def rounds(per_second: int, cpu: dict[str, float]) -> tuple[Round, ...]:
    load = Load(requests=per_second, seconds=1.0, p50_seconds=0.001, p99_seconds=0.0025)
    return (Round(load=load, cpu_ns_per_call=cpu),)


SIXTEEN = Rounds(
    case="16",
    by={
        warm_call.OURS: rounds(18_000, {"gateway": 44_000.0, "runner": 15_000.0}),
        peers.FASTAPI: rounds(10_000, {"server": 100_000.0}),
        peers.AIOHTTP: rounds(25_000, {"server": 38_000.0}),
    },
)


def test_steps_of_a_kind_are_added_up() -> None:
    """A launch has many mounts; what matters is what they take together."""
    assert launch_steps(start(5, from_spare=True)) == {"mount": 500_000, "seccomp": 400_000}


def test_each_kind_of_cold_start_has_a_row_beside_each_peer() -> None:
    """With its target where there is one; a peer that was not there is named with the reason, and nothing is met."""
    found = {(row.name, row.peer_name): row for row in cold_start.measured(RUNS).rows}
    assert len(found) == 15
    spare = found["cold start, from a spare", "bubblewrap, true"]
    assert (spare.ours, spare.peer, spare.ratio, spare.low, spare.high) == (5.0, 5.0, 1.0, 0.8, 1.0)
    assert (spare.target, spare.met) == ("<= 0.5", False)
    demand = found["cold start, on demand", "bubblewrap, true"]
    assert (demand.ratio, demand.target, demand.met) == (2.2, "<= 1.0", False)
    runc = found["cold start, from a spare", "runc, python3"]
    assert (runc.ours, runc.peer, runc.ratio, runc.target, runc.met) == (5.0, None, None, "<= 0.1", None)
    assert runc.note == "runc, python3: not installed; apt-get install runc"
    assert found["cold start, from a spare", "sandlock, true"].note == "sandlock, true: not measured"


def test_the_stages_of_a_cold_start_follow_each_other() -> None:
    """Medians of consecutive parts, and the longest steps first."""
    assert report.stages(RUNS.from_spare) == {
        "launch steps": 900_000,
        "supervisor, hand-over, import": 1_100_000,
        "ready, offered to the gateway, call sent": 2_000_000,
        "answer to the client": 1_000_000,
    }
    assert report.longest_steps(RUNS.from_spare) == [("mount", 500_000.0), ("seccomp", 400_000.0)]


def test_a_warm_call_has_a_row_beside_each_server() -> None:
    """Calls a second with the target at 16 connections; the ones that did not start are named."""
    found = {
        (row.name, row.peer_name): row
        for row in warm_call.measured([SIXTEEN], {peers.LITSERVE: "not installed: no wheel"}).rows
    }
    fastapi = found["warm call, 16 connections", "FastAPI on uvicorn"]
    assert (fastapi.ours, fastapi.peer, fastapi.ratio, fastapi.target, fastapi.met) == (
        18_000.0, 10_000.0, 1.8, ">= 2.5", False,
    )  # fmt: skip
    assert found["warm call, 16 connections", "aiohttp, bare"].ratio == 0.72
    assert found["warm call, 16 connections", "LitServe"].note == "LitServe: not installed: no wheel"
    assert found["warm call, 16 connections", "BentoML"].note == "BentoML: not measured"
    assert found["warm call, 16 connections", "RunAgent's own server"].target == ">= 100"


def test_a_server_that_does_not_stand_the_load_is_named_in_that_row_alone() -> None:
    """The rest of the part goes on."""
    fallen = dataclasses.replace(SIXTEEN, failed={peers.BENTOML: "3 of 9 requests failed under load"})
    rows = warm_call.measured([fallen], {peers.BENTOML: "never"}).rows
    [row] = [row for row in rows if row.peer_name == "BentoML"]
    assert (row.ours, row.ratio, row.note) == (18_000.0, None, "BentoML: 3 of 9 requests failed under load")


def test_processor_time_is_told_by_process_and_beside_fastapi() -> None:
    """Microseconds a call."""
    found = {row.name: row for row in warm_call.measured([SIXTEEN], {}).rows}
    assert found["processor time a call, gateway"].ours == 44.0
    assert found["processor time a call, runner"].ours == 15.0
    every = found["processor time a call, all processes"]
    assert (every.ours, every.peer, every.peer_name, every.ratio) == (59.0, 100.0, "FastAPI on uvicorn", 0.59)


def test_the_machine_is_named_and_a_busy_one_says_so() -> None:
    """Figures without their machine say nothing."""
    assert list(report.machine_lines(MACHINE)) == [
        "2026-11-22 12:00 UTC   Some CPU, 2 processors (virtual), 8192 MiB",
        "Linux 6.18.0, Debian GNU/Linux 12 (bookworm), CPython 3.11.2",
        "bubblewrap 0.8.0, no wrk",
    ]
    busy = dataclasses.replace(MACHINE, load=1.5)
    assert list(report.machine_lines(busy))[3] == (
        "note: the load average was 1.50 before the first run, so others were at work here"
    )


def test_the_processor_is_read_from_cpuinfo() -> None:
    """The first of several; where an architecture names none, nothing is made up."""
    text = "processor\t: 0\nmodel name\t: AMD  EPYC\nflags\t\t: fpu hypervisor\n\nprocessor\t: 1\nmodel name\t: other\n"
    assert machine.cpu_model(text) == "AMD EPYC"
    assert machine.cpu_flags(text) == {"fpu", "hypervisor"}
    assert machine.cpu_model("processor\t: 0\nBogoMIPS\t: 50.00\n") == ""


def test_the_distribution_is_read_from_os_release() -> None:
    """os-release(5), quoted or not."""
    assert machine.pretty_name('NAME=x\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n') == (
        "Debian GNU/Linux 12 (bookworm)"
    )
    assert machine.pretty_name("PRETTY_NAME=Alpine\n") == "Alpine"
    assert machine.pretty_name("") == "Linux"
