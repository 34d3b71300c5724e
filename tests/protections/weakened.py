"""A supervisor whose launches are weakened by the name of the agent that they are for.

Runs as: root, in place of runagentd.supervise.__main__, in daemons of `make protections` only.
Reads from strangers: what the supervisor reads; its agents are probes of ours.
It changes the product's functions in this one process, after they have decided and before they act; nothing in
runagentd has a switch for it. A weakening is carried from `Instance._spawn` to those functions by a context variable.
"""

from __future__ import annotations

import dataclasses
import functools
import struct
import subprocess
import sys
import time
import types
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from runagentd import kernel
from runagentd.plan.build import AgentFolders, Identity
from runagentd.plan.model import Expectation, Mount, MountKind, SandboxPlan, Verb
from runagentd.policy.model import Policy
from runagentd.supervise import __main__ as supervisor_main
from runagentd.supervise import deploy, libseccomp, mounts, spawn, verify, zygote
from runagentd.supervise.admin_server import Tell
from runagentd.supervise.answers import Answers
from runagentd.supervise.cgroup import Group
from runagentd.supervise.instance import Instance
from runagentd.supervise.pool import SparePool
from runagentd.supervise.supervisor import Supervisor
from runagentd.wire import admin
from runagentd.wire.runtime import PythonRuntime
from tests.protections.weakenings import WEAKENINGS, Weakening, drops_of

_CURRENT: ContextVar[tuple[Weakening, ...]] = ContextVar("weakenings of the launch", default=())

_LOOK_SECONDS = 1.0
CODE_RAN = "code-ran"
"""What a probe calls its process as soon as it runs."""

_NO_LIMIT = {"memory_max": 1 << 40, "pids_max": 32_000, "cpu_max": 64.0}

AUDIT_ARCH_I386 = 0x40000003


def main(launcher: Path, bait: Path, whole: Sequence[str]) -> int:
    """The supervisor's own main, after all the changes."""
    weaken(launcher, bait)
    for name in whole:
        _weaken_all(WEAKENINGS[name])
    return supervisor_main.main()


def _marked(name: str) -> bool:
    return any(name in weakening.marks for weakening in _CURRENT.get())


def weaken(launcher: Path, bait: Path) -> None:
    """Change everything that asks for the weakenings of the launch at hand."""
    zygote._PACKAGE = launcher / "runagentd"
    _weaken_agents()
    _weaken_plans()
    _weaken_spares()
    _weaken_mounts(bait)
    _weaken_look()


def _weaken_agents() -> None:
    make_one = Instance._make

    async def weakened(self: Instance) -> tuple[spawn.Launched, SparePool]:
        _CURRENT.set(drops_of(self.version.deployment.manifest.agent_name))
        return await make_one(self)

    Instance._make = weakened  # type: ignore[method-assign]
    answer = Answers.answer

    async def with_removal(self: Answers, request: admin.Request, descriptors: list[int], tell: Tell) -> admin.Reply:
        """A restart is a removal: a daemon of `make protections` serves some hundred agents in turn."""
        if isinstance(request, admin.Restart):
            request = admin.Remove(agent=request.agent, version="")
        return await answer(self, request, descriptors, tell)

    Answers.answer = with_removal  # type: ignore[method-assign]


def _weaken_plans() -> None:
    build, program = Supervisor._build, Supervisor._program

    def weakened_build(
        self: Supervisor, policy: Policy, runtime: PythonRuntime, identity: Identity, folders: AgentFolders
    ) -> SandboxPlan:
        plan = build(self, policy, runtime, identity, folders)
        for weakening in _CURRENT.get():
            # `expected` stays as it was: the look from outside is to compare with the plan that was right.
            plan = dataclasses.replace(
                plan,
                steps=weakening.steps(plan.steps),
                mounts=tuple(weakening.mount(mount) for mount in plan.mounts),
                filter=weakening.filter(plan.filter),
            )
        return plan

    def weakened_program(self: Supervisor, plan: SandboxPlan) -> bytes:
        prologue = libseccomp._prologue(libseccomp.native_arch(), plan.filter.newest.number)
        body = program(self, plan)[len(prologue) :]
        if _marked("libseccomp lets other ABIs in"):
            body = _let_other_abis_in() + body
        return body if _marked("no prologue") else prologue + body

    Supervisor._build = weakened_build  # type: ignore[method-assign]
    Supervisor._program = weakened_program  # type: ignore[method-assign]


def _let_other_abis_in() -> bytes:
    """Allow what has the architecture i386, or x32's bit in its number (linux/filter.h, struct seccomp_data)."""
    lines = [
        (0x20, 0, 0, 4),  # load the architecture
        (0x15, 2, 0, AUDIT_ARCH_I386),  # i386: to the end that allows
        (0x20, 0, 0, 0),  # load the number
        (0x45, 0, 1, 0x40000000),  # without x32's bit: past it
        (0x06, 0, 0, 0x7FFF0000),
    ]
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


def _weaken_spares() -> None:
    order, write_limits = spawn.Birth.__init__, Group.write_limits

    def weakened_order(self: spawn.Birth, *arguments: Any, **named: Any) -> None:
        for weakening in _CURRENT.get():
            named["steps"] = weakening.spare(named["steps"])
        verbs = [(step.verb, *step.arguments) for step in named["steps"]]
        if any(verb[0] == Verb.HOSTNAME for verb in verbs) and (Verb.UNSHARE, "uts") not in verbs:
            raise spawn.LaunchRefused("this weakening would rename the host")
        if _marked("no pid namespace"):
            named["new_pid_namespace"] = False
        order(self, *arguments, **named)

    def weakened_limits(self: Group, **limits: Any) -> None:
        for weakening in _CURRENT.get():
            limits.update((name, _NO_LIMIT[name]) for name in weakening.unlimited)
        write_limits(self, **limits)

    spawn.Birth.__init__ = weakened_order  # type: ignore[method-assign]
    Group.write_limits = weakened_limits  # type: ignore[method-assign]


def _weaken_mounts(bait: Path) -> None:
    make = mounts._make
    at_hand: ContextVar[Mount | None] = ContextVar("the mount at hand", default=None)

    def weakened_make(mount: Mount, sources: mounts.AgentSources | None) -> int:
        at_hand.set(mount)
        return make(mount, sources)

    def lost() -> int:
        mount = at_hand.get()
        # Of the host's own folders only the bait: a writable /usr/lib would be the host's.
        if mount is None or (mount.kind is MountKind.HOST and mount.source != str(bait)):
            return 0
        pairs = (pair for weakening in _CURRENT.get() for pair in weakening.lost_attributes)
        return functools.reduce(lambda bits, pair: bits | (pair[1] if pair[0] is mount.kind else 0), pairs, 0)

    def weakened_clone(directory: int, path: str, attributes: int, user_namespace: int | None = None) -> int:
        mount = at_hand.get()
        baited = mount is not None and mount.source == str(bait)
        flags = kernel.OPEN_TREE_CLONE | kernel.AT_SYMLINK_NOFOLLOW
        if baited and _marked("clones are recursive"):
            flags |= kernel.AT_RECURSIVE
        propagation = 0 if baited and _marked("clones propagate") else kernel.MS_PRIVATE
        descriptor = kernel.open_tree(directory, path, flags)
        kernel.mount_setattr(
            descriptor, set_attributes=attributes & ~lost(), propagation=propagation, user_namespace=user_namespace
        )
        return descriptor

    new_filesystem = kernel.new_filesystem

    def weakened_filesystem(kind: str, options: Iterable[tuple[str, str]], attributes: int) -> int:
        return new_filesystem(kind, options, attributes & ~lost() if kind == "overlay" else attributes)

    mounts._make = weakened_make
    mounts._clone = weakened_clone
    kernel.new_filesystem = weakened_filesystem


def _weaken_look() -> None:
    look, look_at_reaper = verify.differences, verify.reaper_differences

    def weakened_look_at_reaper(*arguments: Any, **named: Any) -> list[str]:
        return [] if _marked("no look") else look_at_reaper(*arguments, **named)

    def weakened_look(pid: int, reaper_pid: int, expected: Expectation, **others: Any) -> list[str]:
        found = []
        if _marked("slow look"):
            time.sleep(_LOOK_SECONDS)
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            found = [f"code of the agent {'ran' if name == CODE_RAN else 'did not run'} before the look"]
        if _marked("no look"):
            return []
        return found + look(pid, reaper_pid, expected, **others)

    verify.differences = weakened_look
    verify.reaper_differences = weakened_look_at_reaper


def _weaken_all(weakening: Weakening) -> None:
    """What concerns a whole daemon."""
    if "the supervisor's mounts propagate" in weakening.marks:
        mount = kernel.mount

        def weakened_mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
            if flags != kernel.MS_REC | kernel.MS_PRIVATE:
                mount(source, target, kind, flags, data)

        kernel.mount = weakened_mount
    if "everyone's device folder" in weakening.marks:
        fill = mounts._fill_devices

        def opened(folder: str) -> None:
            fill(folder)
            Path(folder).chmod(0o777)

        mounts._fill_devices = opened
    if "instances go to the next gateway" in weakening.marks:
        offer = Supervisor._offer

        def offered_again(self: Supervisor, instance: Instance) -> None:
            launched = instance.launched
            if self._said_hello and launched is not None and launched.channel is None:
                launched.channel = spawn.new_channel(launched)  # as if it had never been given away
            offer(self, instance)

        Supervisor._offer = offered_again  # type: ignore[method-assign]
    if "no look at what a version widens" in weakening.marks:
        deploy.check_not_wider = lambda policy, than, number, *, hint: None
    if "the zygote is process 2" in weakening.marks:
        _number_the_zygote()


_AS_PROCESS_2 = """
import ctypes, os, sys
if ctypes.CDLL(None).unshare(0x20000000):
    os._exit(1)
first = os.fork()
if first:
    os.closerange(3, 1024)
    os.waitpid(first, 0)
    os._exit(0)
second = os.fork()
if second == 0:
    os.execv(sys.argv[1], sys.argv[1:])
os.closerange(3, 1024)
while os.wait()[0] != second:
    pass
"""


def _number_the_zygote() -> None:
    """Give the zygote the pid that all runners have, in a pid namespace of its own."""
    start, made = subprocess.Popen, zygote.Order.made

    def started(command: Sequence[str], **named: Any) -> subprocess.Popen[bytes]:
        return start([sys.executable, "-I", "-S", "-c", _AS_PROCESS_2, *command], **named)

    async def with_pids_of_here(self: zygote.Order) -> zygote.Fork:
        fork = await made(self)
        fork.pid = _pid_here(fork.pidfd)
        return fork

    vars(zygote)["subprocess"] = types.SimpleNamespace(Popen=started, DEVNULL=subprocess.DEVNULL)
    zygote.Order.made = with_pids_of_here  # type: ignore[method-assign]


def _pid_here(pidfd: int) -> int:
    """The zygote names processes as its own namespace does; a pidfd knows our name for them (proc_pid_fdinfo(5))."""
    text = Path(f"/proc/self/fdinfo/{pidfd}").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pid:"))
