"""`runagentctl doctor`: what this machine offers, what each shipped policy gets here, and a sandbox that proves it.

Runs as: root.
Reads from strangers: nothing; the agent in the throwaway sandbox is the one written below.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runagentd import interpreters, state
from runagentd.cli.explain_commands import EXAMPLE
from runagentd.config import load
from runagentd.errors import ConfigurationError, HostError
from runagentd.plan.build import AgentFolders, build
from runagentd.plan.facts import HostFacts
from runagentd.plan.seccomp import filter_for
from runagentd.plan.syscalls import shipped_table
from runagentd.policy.files import find, shipped_names
from runagentd.supervise import libseccomp
from runagentd.supervise.hostfacts import gather

_UP_SECONDS = 60.0

_AGENT = '''\
"""Looks around from inside a sandbox."""

import os
import socket


def _attempt(action):
    try:
        action()
    except OSError as error:
        return error.strerror
    return None


def look_around():
    """What this process is, and what it may not do."""
    with open("/proc/self/status") as file:
        status = dict(line.rstrip().split(":", 1) for line in file)
    return {
        "identity": {key: status[key].strip() for key in ("Uid", "CapEff", "NoNewPrivs", "Seccomp")},
        "refused": {
            "read /etc/shadow": _attempt(lambda: open("/etc/shadow")),
            "see another process": None if os.path.exists("/proc/1") else "hidden",
            "open a network socket": _attempt(lambda: socket.socket(socket.AF_INET)),
            "write to /usr": _attempt(lambda: open("/usr/x", "w")),
            "start a program": _attempt(lambda: os.execv("/proc/self/exe", ["python", "-c", ""])),
        },
    }
'''
_CONFIGURATION = {
    "agent_name": "doctor",
    "agent_architecture": {"entrypoints": [{"file": "agent.py", "module": "look_around", "tag": "look_around"}]},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the report."""

    what: str
    ok: bool
    detail: str


def doctor(*, config: Path | None, as_json: bool) -> int:
    """Print the report; 0 where everything is as it must be, else 1. `config` is the daemon's file, if it has one."""
    findings = []
    for finding in _examine(config):
        findings.append(finding)
        if not as_json:
            print(f"{'ok  ' if finding.ok else 'FAIL'} {finding.what}: {finding.detail}", flush=True)
    healthy = all(finding.ok for finding in findings)
    if as_json:
        rows = [{"what": one.what, "ok": one.ok, "detail": one.detail} for one in findings]
        print(json.dumps({"ok": healthy, "findings": rows}, indent=2))
    else:
        print("this machine can run sandboxes" if healthy else "not all is as it must be: see what begins with FAIL")
    return 0 if healthy else 1


def _examine(config: Path | None) -> Iterator[Finding]:
    facts = gather()
    yield from _kernel(facts)
    yield from _runtimes(config)
    yield _libseccomp()
    for name in shipped_names():
        yield _policy(name, facts)
    yield from _throwaway()


def _kernel(facts: HostFacts) -> Iterator[Finding]:
    release = ".".join(map(str, facts.release))
    newest = f"Linux {release}, {facts.machine}; 5.19 or newer is needed, 6.1 and newer were tried"
    yield Finding(what="kernel", ok=facts.release >= (5, 19, 0), detail=newest)
    cgroups = facts.cgroups.describe() if facts.cgroups is not None else facts.cgroup_problem
    yield Finding(what="cgroups", ok=facts.cgroups is not None, detail=cgroups)
    landlock = f"ABI {facts.landlock_abi}" if facts.landlock_abi else "not there"
    yield Finding(what="Landlock", ok=facts.landlock_abi >= 1, detail=landlock)
    for what, there in (
        ("overlayfs", facts.overlay),
        ("user namespaces", facts.user_namespaces),
        ("idmapped mounts", facts.idmapped_mounts),
    ):
        yield Finding(what=what, ok=there, detail="works" if there else "not there")
    actions = {"errno", "kill_process"} - set(facts.seccomp_actions)
    yield Finding(what="seccomp", ok=not actions, detail=" ".join(facts.seccomp_actions) or "not there")
    yield Finding(what="Python", ok=True, detail=f"{facts.python.release}, {facts.python.interpreter}")


def _runtimes(config: Path | None) -> Iterator[Finding]:
    """The other interpreters that agents may ask for, each for itself: one that is unfit hides no other."""
    if config is None:
        return
    try:
        named = load.load(config).interpreters
    except ConfigurationError as error:
        yield Finding(what="configuration", ok=False, detail=str(error).replace("\n", "; "))
        return
    for each in named:
        try:
            found = interpreters.inspect(each.version, each.path)
        except interpreters.Unfit as unfit:
            yield Finding(what=f"Python {each.version}", ok=False, detail="; ".join((str(unfit), *unfit.hints)))
        else:
            yield Finding(what=f"Python {each.version}", ok=True, detail=f"{found.release}, {found.interpreter}")


def _libseccomp() -> Finding:
    try:
        return Finding(what="libseccomp", ok=True, detail=".".join(map(str, libseccomp.version())))
    except HostError as error:
        return Finding(what="libseccomp", ok=False, detail=str(error).replace("\n", "; "))


def _policy(name: str, facts: HostFacts) -> Finding:
    what = f"policy {name}"
    try:
        folders = AgentFolders(environments=(), persistent=(), absent=frozenset())
        policy = find(name)
        plan = build(policy, facts, EXAMPLE, folders, filter_for(policy, shipped_table()))
    except (ConfigurationError, HostError) as error:
        return Finding(what=what, ok=False, detail=str(error).replace("\n", "; "))
    limits = plan.limits
    detail = f"{len(plan.steps)} steps, {limits.memory_max // (1024 * 1024)} MiB"
    detail += f", {limits.pids_max} tasks, {limits.cpu_max:g} processor{'' if limits.cpu_max == 1 else 's'}"
    return Finding(what=what, ok=True, detail=detail)


def _throwaway() -> Iterator[Finding]:
    """Serve the agent above on a state directory of its own, call it once, and stop.

    Without the daemon's configuration, which was looked at by itself: with its [tls] or [limits] we were a client that
    has no certificate, and one more caller.
    """
    with tempfile.TemporaryDirectory(prefix="runagentd-doctor-", dir=state.SCRATCH) as place:
        folder, ready, config = Path(place, "agent"), Path(place, "ready.json"), Path(place, "runagentd.toml")
        folder.mkdir()
        config.touch(0o600)  # whatever the umask: `serve` takes none that others can write
        (folder / "agent.py").write_text(_AGENT)
        (folder / "runagent.config.json").write_text(json.dumps(_CONFIGURATION))
        command = [sys.executable, "-m", "runagentd.cli.runagentd", "serve", str(folder), "--port", "0"]
        command += ["--state-dir", f"{place}/state", "--ready-file", str(ready), "--config", str(config)]
        with open(f"{place}/log", "wb") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            began = time.monotonic()
            while not ready.exists() and process.poll() is None and time.monotonic() - began < _UP_SECONDS:
                time.sleep(0.01)
            if not ready.exists():
                last = Path(place, "log").read_text(errors="replace").strip().splitlines()[-3:]
                yield Finding(what="a throwaway sandbox", ok=False, detail="did not start: " + " / ".join(last))
                return
            seconds = time.monotonic() - began
            yield Finding(what="a throwaway sandbox", ok=True, detail=f"daemon and agent up in {seconds:.1f} s")
            yield from _look_around(json.loads(ready.read_text()))
        finally:
            process.terminate()
            process.wait(15)


def _look_around(up: dict[str, str]) -> Iterator[Finding]:
    request = urllib.request.Request(
        f"{up['url']}/v1/agents/doctor/entrypoints/look_around:invoke",
        data=b"{}",
        headers={"Authorization": f"Bearer {up['token']}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        seen = json.load(answer)
    identity = seen["identity"]
    harmless = identity["CapEff"] == "0" * 16 and identity["NoNewPrivs"] == "1" and identity["Seccomp"] == "2"
    shown = ", ".join(f"{key} {value.split()[0]}" for key, value in identity.items())
    yield Finding(what="its process", ok=harmless, detail=shown)
    for what, refusal in seen["refused"].items():
        yield Finding(what=f"it tries to {what}", ok=refusal is not None, detail=refusal or "it can")
