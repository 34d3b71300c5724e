"""The launcher carries out what the plan says, in that order, and ends at the first refusal."""

from __future__ import annotations

import errno
import os
import resource

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runagentd import kernel
from runagentd.launch import steps
from runagentd.plan.build import AgentFolders, Identity, build, spare_steps
from runagentd.plan.model import Step, Verb, tokens
from runagentd.plan.seccomp import filter_for
from runagentd.plan.syscalls import shipped_table
from runagentd.policy.files import find
from tests.fakes import RecordingKernel
from tests.plan.facts import DEBIAN


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every effect of a step, recorded instead of done."""
    recorded: list[str] = []
    monkeypatch.setattr(steps, "kernel", RecordingKernel(kernel, recorded))
    for module, names in (
        (os, ("setgroups", "setresgid", "setresuid", "chdir", "setsid", "close")),
        (resource, ("setrlimit",)),
    ):
        for name in names:
            monkeypatch.setattr(module, name, RecordingKernel(module, recorded)._record(name))
    return recorded


def test_every_verb_of_a_plan_has_a_function() -> None:
    """The table of the launcher and the verbs of plans are the same set; some are those of whole processes."""
    assert set(steps.STEPS) == {str(verb) for verb in Verb} - {
        "reaper",
        "wait-for-reaper",
        "rehearse",
        "stand-by",
        "exec",
        "gate",
    }


def test_the_uid_goes_after_the_groups_and_before_the_capabilities(calls: list[str]) -> None:
    """Only a process with CAP_SETGID may empty its groups, and only one with CAP_SETUID change its uid."""
    launch = steps.Launch(descriptors={"user_namespace": 42})
    base = find("base")
    plan = build(
        base, DEBIAN, Identity(uid=1879113728, instance="0" * 16),
        AgentFolders(environments=(), persistent=(), absent=frozenset()), filter_for(base, shipped_table()),
    )  # fmt: skip
    wanted = {"clear-groups", "user-namespace", "identity", "capabilities", "no-new-privs", "not-dumpable"}
    for verb, *arguments in steps.parse(tokens(plan.steps)):
        if verb in wanted:
            steps.STEPS[verb](launch, *arguments)
    assert calls == [
        "setgroups([])",
        f"setns(42, {kernel.CLONE_NEWUSER})",
        "setresgid(65532, 65532, 65532)",
        "setresuid(65532, 65532, 65532)",
        "clear_capabilities(40)",
        "set_no_new_privs()",
        "set_dumpable(False)",
    ]


def test_the_old_root_is_gone_before_the_working_directory_is_chosen(calls: list[str]) -> None:
    """A working directory from before would pin the old root."""
    steps.STEPS["pivot"](steps.Launch(descriptors={}), "/app")
    assert calls == ["chdir('/new')", "pivot_root('.', '.')", "unmount('.')", "chdir('/app')"]


def test_each_namespace_of_a_spare_is_its_own_step(calls: list[str]) -> None:
    """One refusal then names the namespace that this host does not give."""
    launch = steps.Launch(descriptors={})
    for verb, *arguments in steps.parse(tokens(spare_steps(DEBIAN, in_advance=True))):
        if verb == "unshare":
            steps.STEPS[verb](launch, *arguments)
    assert calls == [
        f"unshare({flag})"
        for flag in (
            kernel.CLONE_NEWNS,
            kernel.CLONE_NEWIPC,
            kernel.CLONE_NEWUTS,
            kernel.CLONE_NEWNET,
            kernel.CLONE_NEWCGROUP,
        )
    ]


def test_a_refused_step_ends_the_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no "warn and continue": the error reaches the one who carries out the steps."""
    refused = RecordingKernel(kernel, [], {"set_no_new_privs": OSError(errno.EPERM, "refused")})
    monkeypatch.setattr(steps, "kernel", refused)
    with pytest.raises(OSError, match="refused"):
        steps.STEPS["no-new-privs"](steps.Launch(descriptors={}))


def test_a_descriptor_too_many_is_a_surprise() -> None:
    """An inherited directory would lead to the host (CVE-2024-21626)."""
    open_now = {int(name) for name in os.listdir("/proc/self/fd")}
    real = {descriptor for descriptor in open_now if steps._is_open(descriptor)}
    steps.check_descriptors(real)
    extra = os.open("/", os.O_RDONLY)
    try:
        with pytest.raises(steps.DescriptorSurprise):
            steps.check_descriptors(real)
    finally:
        os.close(extra)


@given(
    st.lists(st.lists(st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"])), max_size=4))
)
def test_steps_are_read_as_they_were_written(arguments: list[list[str]]) -> None:
    """Whatever text an argument holds."""
    written = [Step(verb=Verb.FILE, arguments=tuple(words)) for words in arguments]
    assert list(steps.parse(tokens(written))) == [["file", *words] for words in arguments]


@given(st.binary(max_size=200))
def test_bytes_that_are_no_steps_are_refused_with_a_value_error(data: bytes) -> None:
    """The plan comes on a sealed descriptor from our own supervisor; still nothing else may come out of here."""
    try:
        list(steps.parse(data))
    except ValueError:
        pass
