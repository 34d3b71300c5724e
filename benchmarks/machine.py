"""The machine that was measured, by name: figures without it say nothing.

Runs as: `make bench`.
Reads from strangers: nothing; /proc and /etc of this host.
"""

from __future__ import annotations

import datetime
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("aiohttp", "uvloop")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Everything that a reader needs to judge whether their own figures should be alike."""

    date: str
    cpu: str
    processors: int
    virtual: bool
    memory_bytes: int
    kernel: str
    distribution: str
    python: str
    programs: tuple[str, ...]
    load: float
    """average of the last minute, before the first measurement: above 0.2 a processor, others were at work"""

    @property
    def busy(self) -> bool:
        return self.load > 0.2 * self.processors


def look() -> Machine:
    """This machine, now."""
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    return Machine(
        date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        cpu=cpu_model(cpuinfo) or platform.machine(),
        processors=len(os.sched_getaffinity(0)),
        virtual="hypervisor" in cpu_flags(cpuinfo),
        memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        kernel=f"{platform.system()} {platform.release()}",
        distribution=pretty_name(Path("/etc/os-release").read_text(encoding="utf-8")),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        programs=(
            *(_version_of(command) for command in (("bwrap", "--version"), ("wrk", "--version"))),
            *(_package(name) for name in _PACKAGES),
        ),
        load=load_average(),
    )


def load_average() -> float:
    """Of the last minute."""
    return os.getloadavg()[0]


def cpu_model(cpuinfo: str) -> str:
    """The first "model name" of /proc/cpuinfo; empty where the architecture has none."""
    return _field(cpuinfo, "model name")


def cpu_flags(cpuinfo: str) -> frozenset[str]:
    return frozenset(_field(cpuinfo, "flags").split())


def _field(cpuinfo: str, name: str) -> str:
    for line in cpuinfo.splitlines():
        key, colon, value = line.partition(":")
        if colon and key.strip() == name:
            return " ".join(value.split())
    return ""


def pretty_name(os_release: str) -> str:
    """PRETTY_NAME of os-release(5)."""
    for line in os_release.splitlines():
        key, _, value = line.partition("=")
        if key == "PRETTY_NAME":
            return value.strip().strip("\"'")
    return "Linux"


def _package(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return f"no {name}"


def _version_of(command: Sequence[str]) -> str:
    """The first two words that a program says of itself, or that it is not there."""
    if shutil.which(command[0]) is None:
        return f"no {command[0]}"
    # wrk has no exit status 0 for its version.
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    words = (done.stdout or done.stderr).split()
    return " ".join(words[:2]) if words else command[0]
