"""The table and the JSON, from figures given literally."""

from __future__ import annotations

import dataclasses
import json

from benchmarks import machine, report
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
    bubblewrap_ns=(5 * MS, 5 * MS, 6 * MS),
    from_spare=(start(4, from_spare=True), start(5, from_spare=True), start(6, from_spare=True)),
    on_demand=(start(9, from_spare=False), start(11, from_spare=False), start(30, from_spare=False)),
)


def rounds(per_second: int, cpu: dict[str, float]) -> tuple[Round, ...]:
    load = Load(requests=per_second, seconds=1.0, p50_seconds=0.001, p99_seconds=0.0025)
    return (Round(load=load, cpu_ns_per_call=cpu),)


SIXTEEN = Rounds(
    connections=16,
    ours=rounds(18_000, {"gateway": 44_000.0, "runner": 15_000.0}),
    fastapi=rounds(10_000, {"server": 100_000.0}),
    aiohttp=rounds(25_000, {"server": 38_000.0}),
)


def test_steps_of_a_kind_are_added_up() -> None:
    """A launch has many mounts; what matters is what they take together."""
    assert launch_steps(start(5, from_spare=True)) == {"mount": 500_000, "seccomp": 400_000}


def test_the_cold_start_table_shows_ratios_and_whether_they_meet_their_targets() -> None:
    """Each against bubblewrap's median."""
    lines = list(report.cold_start_lines(RUNS))
    assert lines[2] == "    bubblewrap, /usr/bin/true          5.00 ms   6.00 ms"
    assert lines[3] == "    runagentd, from a spare            5.00 ms   6.00 ms    1.00  (0.80 to 1.00)   ≤ 1 × met"
    assert lines[4] == "    runagentd, on demand              11.00 ms  30.00 ms    2.20  (1.80 to 5.00)   ≤ 2 × missed"


def test_the_stages_of_a_cold_start_follow_each_other() -> None:
    """Medians of consecutive parts, and the longest steps first."""
    assert report.stages(RUNS.from_spare) == {
        "launch steps": 900_000,
        "supervisor, hand-over, import": 1_100_000,
        "ready, offered to the gateway, call sent": 2_000_000,
        "answer to the client": 1_000_000,
    }
    assert report.longest_steps(RUNS.from_spare) == [("mount", 500_000.0), ("seccomp", 400_000.0)]


def test_the_warm_call_table_shows_ratios_and_processor_time() -> None:
    """At 16 connections with the required target and the wanted one."""
    lines = list(report.warm_call_lines([SIXTEEN], "wrk"))
    assert lines[0] == "warm call: echo(text: str) -> str; 1 rounds each, in turns; load by wrk"
    assert lines[2] == "    FastAPI on uvicorn, in-process      10,000   1.00 ms   2.50 ms"
    assert lines[3] == (
        "    runagentd, sandboxed                18,000   1.00 ms   2.50 ms"
        "    1.80  (1.80 to 1.80)   ≥ 1.5 × met   ≥ 2 × missed"
    )
    assert lines[5] == (
        "      processor time a call, µs: FastAPI: server 100; runagentd: gateway 44, runner 15; aiohttp: server 38"
    )


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


def test_the_json_holds_every_value_that_was_measured() -> None:
    """So that a later run can be compared with this one."""
    found = json.loads(json.dumps(report.as_json(MACHINE, RUNS, [SIXTEEN], "wrk")))
    assert found["machine"]["cpu"] == "Some CPU"
    assert found["cold_start"]["bubblewrap"] == [5 * MS, 5 * MS, 6 * MS]
    assert found["cold_start"]["on_demand"]["runs"][0] == [6 * MS, 8 * MS, 9 * MS]
    assert found["cold_start"]["from_spare"]["ratio"] == {"of_medians": 1.0, "low": 0.8, "high": 1.0}
    assert found["warm_call"][0]["runagentd"][0]["load"]["requests"] == 18_000
    assert "cold_start" not in report.as_json(MACHINE, None, [SIXTEEN], "wrk")


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
