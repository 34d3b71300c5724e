"""A daemon with a weakened supervisor, agents that are launched weaker, and what they can then do.

Runs as: root, in the test process.
Reads from strangers: what our own probes answer.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runagentd.foreman import admin_client
from runagentd.foreman.serve import _open_folder
from runagentd.wire import admin
from tests.protections.weakenings import WEAKENINGS, agent_name
from tests.system.daemon import ROOT, Daemon, serve

_SECONDS = 40.0
_PACKAGE_PARTS = ("launch", "runner", "wire")
_AGENT_MODULES = (
    "tests/__init__.py",
    "tests/escape/__init__.py",
    "tests/protections/probes.py",
    "tests/protections/traces.py",
)

POLICIES = {
    "base": "",
    "bait": '[files]\nread = ["{bait}"]\n',
    "kept": "[files]\npersistent = true\n",
    "slow": "[resources]\ncpu_max = 0.05\n",
    "fresh": '[process]\nspawn = "exec"\n',
    "caller": '[calls]\nisolation = "principal"\n',
    "call": '[calls]\nisolation = "call"\ndeadline = "10s"\n',
}
"""What each policy has beyond base."""


class Refused(Exception):
    """The launch was refused; the text says by whom and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What was observed. `held` is whether that is what must be observed while every protection is in place."""

    word: str
    detail: str
    held: bool


class Place:
    """A folder with all that weakened daemons need: policies, an agent, a launcher, and where the bait will be."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bait = folder / "bait"
        self.launcher = folder / "launcher"
        for path in (self.bait, folder / "policies"):
            path.mkdir()
        for name, text in POLICIES.items():
            content = f'version = 1\nextends = "base"\n{text.format(bait=self.bait)}'
            (folder / "policies" / f"{name}.toml").write_text(content)
        copy_launcher(self.launcher, ())

    def policy(self, name: str) -> str:
        return name if name == "base" else str(self.folder / "policies" / f"{name}.toml")

    def agent(self, name: str) -> Path:
        """A folder with the agent of `entry`, under that name."""
        folder = Path(tempfile.mkdtemp(dir=self.folder, prefix="agent-"))
        for module in _AGENT_MODULES:
            _copy(ROOT / module, folder / module)
        (folder / "tests/protections/__init__.py").touch()
        shutil.copytree(
            ROOT / "tests/escape/attempts",
            folder / "tests/escape/attempts",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        _copy(ROOT / "tests/protections/entry.py", folder / "main.py")
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        libraries = folder / ".venv/lib" / f"python{version}" / "site-packages"
        libraries.mkdir(parents=True)
        (libraries / "library.py").write_text("")
        (folder / ".venv/pyvenv.cfg").write_text(f"version = {version}.0\n")
        tags = ("attempt", "plant", "look", "leave", "find", "draw", "seeds")
        configuration = {
            "agent_name": name,
            "agent_architecture": {"entrypoints": [{"file": "main.py", "module": tag, "tag": tag} for tag in tags]},
            "env_vars": {"BAIT": str(self.bait)},
            "persistent_folders": ["kept"],
        }
        (folder / "runagent.config.json").write_text(json.dumps(configuration))
        return folder


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def copy_launcher(folder: Path, whole: Sequence[str]) -> None:
    """The package as the zygote gets it, with the verbs of `launcher` beside the product's."""
    package = folder / "runagentd"
    package.mkdir(parents=True)
    for path in (ROOT / "runagentd").glob("*.py"):
        shutil.copyfile(path, package / path.name)
    for part in _PACKAGE_PARTS:
        shutil.copytree(ROOT / "runagentd" / part, package / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(ROOT / "tests/protections/launcher.py", package / "launch" / "weakened.py")
    with (package / "launch" / "steps.py").open("a") as file:
        file.write("\n\nfrom runagentd.launch import weakened\n\nSTEPS.update(weakened.STEPS)\n")
    for name in whole:
        for module, there, by in WEAKENINGS[name].launcher:
            text = (package / "launch" / module).read_text()
            if text.count(there) != 1:
                raise AssertionError(f"{name}: runagentd/launch/{module} does not have {there!r} once")
            (package / "launch" / module).write_text(text.replace(there, by))


@contextlib.contextmanager
def place() -> Iterator[Place]:
    """A `Place`, until the block ends. Not below /tmp, where a policy cannot show anything."""
    folder = Path(tempfile.mkdtemp(prefix="runagentd-protections-", dir="/var/tmp"))
    try:
        folder.chmod(0o755)
        yield Place(folder)
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def trial(where: Place, whole: Sequence[str] = ()) -> Iterator[Trial]:
    """A daemon whose supervisor weakens launches; `whole` names weakenings of all of it."""
    launcher = where.launcher
    if any(WEAKENINGS[name].launcher for name in whole):
        launcher = Path(tempfile.mkdtemp(dir=where.folder, prefix="launcher-"))
        copy_launcher(launcher, whole)
    command = [
        sys.executable, "-m", "tests.protections.daemon",
        "--launcher", str(launcher), "--bait", str(where.bait),
        *(word for name in whole for word in ("--whole", name)),
    ]  # fmt: skip
    # `serve` wants an agent; the look would refuse it where the whole daemon is weaker.
    idle = where.agent(agent_name(frozenset({"look"}), 0))
    with ExitStack() as stack:
        try:
            daemon = stack.enter_context(serve([idle], options=("--spares", "0", "--standbys", "0"), command=command))
        except AssertionError as error:
            raise Refused(str(error)) from error
        yield Trial(where, daemon)


class Trial:
    """A running daemon of that kind."""

    def __init__(self, where: Place, daemon: Daemon) -> None:
        self.place = where
        self.daemon = daemon
        self._numbers = itertools.count(1)
        self._token = self.daemon.token_of("protections")

    @contextlib.contextmanager
    def agent(self, drops: frozenset[str], policy: str) -> Iterator[RunningAgent]:
        """An agent that was launched without `drops`, until the block ends; Refused where it does not start."""
        name = agent_name(drops, next(self._numbers))
        folder = self.place.agent(name)
        reply = self._ask_with_folder(folder, self.place.policy(policy))
        shutil.rmtree(folder)
        if not reply.ok:
            raise Refused("; ".join(problem.what for problem in reply.problems) or reply.report.decode())
        try:
            yield RunningAgent(self, reply.agent)
        finally:
            admin_client.ask(self.daemon.state_dir / "admin.sock", admin.Restart(agent=reply.agent))

    def deploy_again(self, agent: RunningAgent, policy: str) -> admin.Deployed:
        """As `runagentctl deploy` does: the same agent's folder under another policy."""
        folder = self.place.agent(agent.row.agent_name)
        try:
            return self._ask_with_folder(folder, self.place.policy(policy), keep=True)
        finally:
            shutil.rmtree(folder)

    def _ask_with_folder(self, folder: Path, policy: str, *, keep: bool = False) -> admin.Deployed:
        descriptor = _open_folder(folder)
        try:
            with admin_client.connect(self.daemon.state_dir / "admin.sock") as connection:
                connection.settimeout(_SECONDS)
                choice = admin.PolicyChoice(agent="", policy=policy)
                # From another folder than before: that it may take the agent over is not what is looked at.
                request = admin.Deploy(folder=str(folder), policies=(choice,), keep=keep, take_over=keep)
                admin_client.send(connection, request, [descriptor])
                reply = admin_client.receive(connection)
        finally:
            os.close(descriptor)
        if not isinstance(reply, admin.Deployed):
            raise AssertionError(f"the supervisor answered {reply}")
        return reply

    def call(self, agent: str, tag: str, arguments: dict[str, Any], *, token: str = "") -> tuple[int, Any]:
        path = f"/v1/agents/{agent}/entrypoints/{tag}:invoke"
        return self.daemon.request("POST", path, body=arguments, token=token or self._token, timeout=_SECONDS)


class RunningAgent:
    """One agent, and through it whatever it can do."""

    def __init__(self, trial: Trial, identity: str) -> None:
        self.trial = trial
        self.id = identity

    @property
    def row(self) -> admin.InstanceRow:
        """What the supervisor says of its instance."""
        return self.trial.daemon.row(self.id)

    def attempt(self, name: str) -> Outcome:
        """One attempt or probe, inside."""
        return self.ask("attempt", name=name)

    def ask(self, tag: str, *, token: str = "", **arguments: str) -> Outcome:
        """One of the entrypoints that answer an observation; a call that fails is "broken"."""
        status, answer = self.trial.call(self.id, tag, arguments, token=token)
        if status != 200:
            word = str(answer.get("cause") or "ended")  # why the instance ended, where it did
            answer = {"word": word, "detail": json.dumps(answer), "expect": [word]}
        return Outcome(word=answer["word"], detail=answer["detail"], held=answer["word"] in answer["expect"])
