"""Policy, host and identity become a plan: what is in it, in which order, and what is refused."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from runagentd.errors import HostError
from runagentd.plan.build import AgentFolders, Identity, build, neutral_mounts, spare_steps
from runagentd.plan.explain import lines
from runagentd.plan.model import MountKind, SandboxPlan, tokens
from runagentd.plan.seccomp import filter_for
from runagentd.plan.syscalls import shipped_table
from runagentd.policy.files import find, shipped_names
from runagentd.policy.model import CallIsolation, HostFolder, Policy, Spawn
from tests.plan.facts import DEBIAN

GOLDEN = Path(__file__).resolve().parents[1] / "plans"
WHO = Identity(uid=1879113728, instance="0" * 16)
NO_FOLDERS = AgentFolders(environments=(), persistent=(), absent=frozenset())


def plan_of(policy: Policy, folders: AgentFolders = NO_FOLDERS) -> SandboxPlan:
    return build(policy, DEBIAN, WHO, folders, filter_for(policy, shipped_table()))


@pytest.mark.parametrize("name", shipped_names())
def test_the_sandbox_of_each_shipped_policy_is_the_one_that_was_reviewed(name: str) -> None:
    """A loosened sandbox is a visible diff. RUNAGENTD_WRITE_GOLDEN=1 writes the files anew; read the diff then."""
    text = "\n".join(lines(spare_steps(DEBIAN, in_advance=True), neutral_mounts(DEBIAN), plan_of(find(name)))) + "\n"
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("RUNAGENTD_WRITE_GOLDEN") == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


def fresh(policy: Policy) -> Policy:
    return dataclasses.replace(policy, process=dataclasses.replace(policy.process, spawn=Spawn.EXEC))


def test_the_sandbox_of_a_fresh_interpreter_is_the_one_that_was_reviewed() -> None:
    """That of base, whose process becomes another one on the way."""
    plan = plan_of(fresh(find("base")))
    text = "\n".join(lines(spare_steps(DEBIAN, in_advance=True), neutral_mounts(DEBIAN), plan)) + "\n"
    path = GOLDEN / "base-exec.txt"
    if os.environ.get("RUNAGENTD_WRITE_GOLDEN") == "1":
        path.write_text(text)
    assert text == path.read_text()


def isolated(policy: Policy) -> Policy:
    return dataclasses.replace(policy, calls=dataclasses.replace(policy.calls, isolation=CallIsolation.CALL))


def test_the_sandbox_of_calls_that_share_nothing_is_the_one_that_was_reviewed() -> None:
    """That of base, with a read-only /app."""
    plan = plan_of(isolated(find("base")))
    text = "\n".join(lines(spare_steps(DEBIAN, in_advance=True), neutral_mounts(DEBIAN), plan)) + "\n"
    path = GOLDEN / "base-call.txt"
    if os.environ.get("RUNAGENTD_WRITE_GOLDEN") == "1":
        path.write_text(text)
    assert text == path.read_text()


def test_where_calls_share_nothing_an_agent_writes_into_what_is_emptied_and_what_is_kept() -> None:
    """/app is read-only twice, by its mount and by Landlock; persistent folders are what they are for."""
    folders = AgentFolders(environments=(), persistent=("chat_storage",), absent=frozenset())
    plan = plan_of(isolated(find("persistent")), folders)
    mounts = {mount.target: mount for mount in plan.mounts}
    assert (mounts["/app"].read_only, mounts["/app/chat_storage"].read_only) == (True, False)
    rules = next(step for step in plan.steps if step.verb == "landlock").arguments[3:]
    assert [rule.split(" ")[1] for rule in rules] == ["/", "/dev", "/app/chat_storage", "/tmp", "/dev/shm"]
    assert dict(plan.expected.mounts)["/app"] == "ro,nosuid,nodev,noexec"


def test_what_an_exec_would_undo_or_need_comes_after_it() -> None:
    """It makes a process dumpable again; Landlock and the filter would refuse it, and must refuse it to the agent."""
    plan = plan_of(fresh(find("base")))
    verbs = [str(step.verb) for step in plan.steps]
    after = ["exec", "not-dumpable", "check-descriptors", "landlock", "seccomp", "gate"]
    assert verbs[-len(after) :] == after
    before = verbs[: verbs.index("exec")]
    assert before[-4:] == ["capabilities", "no-new-privs", "not-dumpable", "descriptors"]
    assert plan.expected.command[:2] == ("/usr/bin/python3.11", "-I")
    forked = plan_of(find("base"))
    assert ("exec" in [str(step.verb) for step in forked.steps], forked.expected.command) == (False, ())


def test_privileges_go_in_the_order_in_which_they_can_go() -> None:
    """Groups, user namespace, uid, capabilities, no_new_privs, descriptors, Landlock, and the filter last."""
    verbs = [str(step.verb) for step in plan_of(find("base")).steps]
    order = [
        "pivot", "rlimit", "clear-groups", "user-namespace", "identity", "capabilities", "no-new-privs",
        "not-dumpable", "descriptors", "landlock", "seccomp", "gate",
    ]  # fmt: skip
    positions = [verbs.index(verb) for verb in order]
    assert positions == sorted(positions)
    assert verbs[-2:] == ["seccomp", "gate"]


def test_a_spare_joins_its_cgroups_before_anything_else() -> None:
    """What a spare does is counted from its first step on, and its cgroup namespace starts at its own cgroup."""
    steps = [step.describe() for step in spare_steps(DEBIAN, in_advance=True)]
    assert steps[0] == "join-cgroups"
    assert steps.index("join-cgroups") < steps.index("unshare cgroup")


def test_the_agents_own_folder_is_writable_but_gives_no_programs_and_no_native_libraries() -> None:
    """/app is a bounded overlay without exec; a .venv in it is read-only and may be executed."""
    folders = AgentFolders(environments=(".venv/lib/python3.11/site-packages",), persistent=(), absent=frozenset())
    mounts = {mount.target: mount for mount in plan_of(find("base"), folders).mounts}
    assert (mounts["/app"].kind, mounts["/app"].read_only, mounts["/app"].noexec) == (MountKind.APP, False, True)
    environment = mounts["/app/.venv/lib/python3.11/site-packages"]
    assert (environment.kind, environment.read_only, environment.noexec) == (MountKind.SNAPSHOT, True, False)


def test_an_environment_is_read_only_and_native_libraries_can_be_loaded_from_it() -> None:
    """Where an agent has none, there is no such place; and the look from outside looks for it."""
    folders = AgentFolders(environments=(), persistent=(), absent=frozenset(), installed=True)
    plan = plan_of(find("base"), folders)
    mount = next(mount for mount in plan.mounts if mount.target == "/env")
    assert (mount.kind, mount.read_only, mount.noexec) == (MountKind.ENVIRONMENT, True, False)
    assert dict(plan.expected.mounts)["/env"] == "ro,nosuid,nodev"
    assert "/env" not in dict(plan_of(find("base")).expected.mounts)


def test_persistent_folders_need_a_policy_that_grants_them() -> None:
    """base ignores an agent's persistent_folders; persistent mounts them."""
    folders = AgentFolders(environments=(), persistent=("chat_storage",), absent=frozenset())
    targets = {name: [mount.target for mount in plan_of(find(name), folders).mounts] for name in ("base", "persistent")}
    assert "/app/chat_storage" not in targets["base"]
    assert "/app/chat_storage" in targets["persistent"]


def test_an_absent_optional_folder_is_left_out_and_every_host_folder_is_read_only() -> None:
    """files.read never gives more than reading."""
    base = find("base")
    files = dataclasses.replace(
        base.files, read=(HostFolder(path="/srv/data", optional=False), HostFolder(path="/srv/gone", optional=True))
    )
    folders = AgentFolders(environments=(), persistent=(), absent=frozenset({"/srv/gone"}))
    mounts = [m for m in plan_of(dataclasses.replace(base, files=files), folders).mounts if m.kind is MountKind.HOST]
    assert "/srv/data" in [mount.target for mount in mounts]
    assert "/srv/gone" not in [mount.target for mount in mounts]
    assert all(mount.read_only for mount in mounts)


def test_a_kernel_without_landlock_is_refused() -> None:
    """There is no sandbox without its second layer."""
    base = find("base")
    with pytest.raises(HostError, match="no Landlock"):
        build(base, dataclasses.replace(DEBIAN, landlock_abi=0), WHO, NO_FOLDERS, filter_for(base, shipped_table()))


def test_exec_is_granted_by_landlock_and_seccomp_together_or_not_at_all() -> None:
    """Both layers follow process.exec."""
    texts = {}
    for name in ("base", "tools"):
        plan = plan_of(find(name))
        rules = next(step for step in plan.steps if step.verb == "landlock").arguments[3:]
        root = next(int(rule.split(" ")[0]) for rule in rules if rule.endswith(" /"))
        calls = {rule.call for rule in plan.filter.rules if rule.action.verdict.name == "ALLOW"}
        texts[name] = (bool(root & 1), "execve" in calls)
    assert texts == {"base": (False, False), "tools": (True, True)}


def test_a_steps_arguments_cannot_pose_as_another_step() -> None:
    """Content with newlines and digits stays one argument, and NUL is refused."""
    from runagentd.launch.steps import parse
    from runagentd.plan.model import Step, Verb

    step = Step(verb=Verb.FILE, arguments=("/etc/x", "1\nseccomp\n2"))
    assert list(parse(tokens([step, Step(verb=Verb.GATE)]))) == [["file", "/etc/x", "1\nseccomp\n2"], ["gate"]]
    with pytest.raises(ValueError, match="NUL"):
        tokens([Step(verb=Verb.FILE, arguments=("/etc/x", "a\0b"))])
