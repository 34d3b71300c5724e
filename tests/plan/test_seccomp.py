"""A policy becomes a filter that refuses by default, and a person can read it."""

from __future__ import annotations

import dataclasses
import errno
from pathlib import Path

import pytest

from runagentd.errors import ConfigurationError
from runagentd.plan.seccomp import (
    ALLOW,
    KILL_PROCESS,
    Action,
    Rule,
    SyscallFilter,
    Verdict,
    builder_filter,
    filter_for,
    lint,
    reaper_filter,
    refuse,
)
from runagentd.plan.syscalls import ALL_BITS, Condition, Newest, shipped_table
from tests.some_policy import some_policy

TABLE = shipped_table()
GOLDEN = Path(__file__).parent / "golden"
NEWEST = Newest(name="file_setattr", number=469, kernel="6.17")


def calls(filter: SyscallFilter) -> set[str]:
    return {rule.call for rule in filter.rules if rule.action == ALLOW}


def one_rule(**changes: object) -> SyscallFilter:
    rule = dataclasses.replace(Rule(call="socket", action=ALLOW), **changes)  # type: ignore[arg-type]  # fields by name
    return SyscallFilter(default=refuse(errno.EPERM), newest=NEWEST, rules=(rule,))


@pytest.mark.parametrize("name", ["base", "tools", "reaper", "builder"])
def test_the_filter_in_words_is_the_one_that_was_read_last(name: str) -> None:
    """A loosened filter is a visible difference in tests/plan/golden: read it before accepting it."""
    filters = {
        "base": filter_for(some_policy(), TABLE),
        "tools": filter_for(some_policy(exec=True, groups=("memfd", "landlock")), TABLE),
        "reaper": reaper_filter(TABLE),
        "builder": builder_filter(TABLE),
    }
    text = "\n".join(filters[name].describe()) + "\n"
    assert text == (GOLDEN / f"{name}.txt").read_text()


def test_a_policy_without_programs_lacks_the_two_calls_that_start_them_and_no_other() -> None:
    without, with_programs = filter_for(some_policy(exec=False), TABLE), filter_for(some_policy(exec=True), TABLE)
    assert calls(with_programs) - calls(without) == {"execve", "execveat"}
    assert "fork" in calls(without)


def test_a_selectable_group_is_absent_until_it_is_named() -> None:
    base, memfd = filter_for(some_policy(), TABLE), filter_for(some_policy(groups=("memfd",)), TABLE)
    assert calls(memfd) - calls(base) == {"memfd_create"}


def test_a_group_may_widen_a_filtered_call() -> None:
    words = "\n".join(filter_for(some_policy(groups=("landlock",)), TABLE).describe())
    assert "PR_SET_VMA or PR_SET_NO_NEW_PRIVS (always, syscalls.groups)" in words


def test_an_unknown_group_is_refused_with_the_names_that_exist() -> None:
    with pytest.raises(ConfigurationError) as caught:
        filter_for(some_policy(groups=("memdf",)), TABLE)
    assert str(caught.value) == (
        'policy some: syscalls.groups[0]: "memdf" is not a group of system calls\n'
        "hint: write one of: inotify, landlock, memfd, mlock, sched, splice"
    )


def test_a_group_that_is_always_on_cannot_be_granted() -> None:
    with pytest.raises(ConfigurationError, match='"rt" is in every filter already'):
        filter_for(some_policy(groups=("rt",)), TABLE)


POWER_OVER_OTHERS = """
    ptrace process_vm_readv process_vm_writev pidfd_getfd kcmp userfaultfd io_uring_setup bpf perf_event_open
    mount umount2 pivot_root move_mount open_tree fsopen fsmount mount_setattr chroot setns unshare setuid setgid
    setresuid setresgid setgroups capset keyctl add_key request_key mknod mknodat chown fchownat setxattr sync
    syncfs seccomp setrlimit name_to_handle_at open_by_handle_at memfd_secret memfd_create mq_open shmget msgget
    semget mincore vmsplice splice swapon reboot sethostname kexec_load init_module finit_module acct quotactl
    syslog modify_ldt mbind clock_settime settimeofday adjtimex iopl ioperm fanotify_init
"""


@pytest.mark.parametrize("call", POWER_OVER_OTHERS.split())
def test_a_call_with_power_over_others_is_in_no_policy_by_default(call: str) -> None:
    assert call not in calls(filter_for(some_policy(exec=True), TABLE))


def test_the_shipped_filters_are_sound() -> None:
    every_group = tuple(TABLE.selectable())
    assert lint(filter_for(some_policy(exec=True, groups=every_group), TABLE)) == []
    assert lint(reaper_filter(TABLE)) == []


def test_a_rule_that_says_what_the_default_says_is_refused() -> None:
    complaints = lint(one_rule(action=refuse(errno.EPERM)))
    assert complaints == ["socket: its action is the default one, so the rule says nothing"]


@pytest.mark.parametrize("action", [refuse(errno.EACCES), KILL_PROCESS, Action(Verdict.TRAP)])
def test_a_refusing_rule_never_looks_at_arguments(action: Action) -> None:
    """`refuse socket where the family is 40` lets 0x1_0000_0028 through to the rules behind it."""
    family = Condition(argument=0, mask=ALL_BITS, value=40)
    assert lint(one_rule(action=action, conditions=(family,))) == [
        "socket: a refusing rule looks at arguments, and lets through what it misreads"
    ]


@pytest.mark.parametrize("mask", [0xFFFFFFFF, 0x7E020080, 0x7FFFFFFF_FFFFFFFF, 0xFFFF_FFFF_0000])
def test_a_mask_without_the_whole_upper_half_is_refused(mask: int) -> None:
    condition = Condition(argument=0, mask=mask, value=0)
    assert lint(one_rule(conditions=(condition,))) == ["socket: argument 0 is compared without its upper half"]


def test_a_filter_that_allows_by_default_is_refused() -> None:
    filter = SyscallFilter(default=ALLOW, newest=NEWEST, rules=(Rule(call="ptrace", action=refuse(errno.EPERM)),))
    assert lint(filter) == ["the default action allows what nobody looked at"]


def test_a_rule_without_conditions_beside_one_with_conditions_is_refused() -> None:
    """The one with conditions would read like a protection and be none."""
    narrow = Rule(call="socket", action=ALLOW, conditions=(Condition(argument=0, mask=ALL_BITS, value=1),))
    wide = Rule(call="socket", action=ALLOW)
    filter = SyscallFilter(default=refuse(errno.EPERM), newest=NEWEST, rules=(narrow, wide))
    assert lint(filter) == ["socket: a rule without conditions makes those of another one void"]
