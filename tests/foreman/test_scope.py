"""When `serve` starts itself again in a scope of systemd's, and when it says what to do instead."""

from __future__ import annotations

import dataclasses

import pytest

from runagentd.errors import HostError
from runagentd.foreman.scope import Surroundings, command, needs_scope, own_path

SESSION = "0::/user.slice/user-0.slice/session-1.scope\n"
SCOPE = "0::/system.slice/run-r1.scope\n"
UNIT = "0::/system.slice/agents.service\n"
LEAF = "0::/system.slice/run-r1.scope/supervisor\n"
HYBRID = "9:name=systemd:/\n8:pids:/\n4:memory:/one\n2:cpuacct:/\n1:cpu:/\n0::/\n"
MEMORY_ON_V2 = "3:pids:/\n1:cpu,cpuacct:/\n0::/one\n"

LOGIN_SHELL = Surroundings(
    self_cgroup=SESSION,
    systemd=True,
    delegated=False,
    alone=False,
    started_by_systemd=False,
    entered=False,
    systemd_run="/usr/bin/systemd-run",
)

OURS = dataclasses.replace(LOGIN_SHELL, self_cgroup=SCOPE, delegated=True, alone=True)


def test_a_login_shell_s_cgroup_is_not_ours() -> None:
    """The case of a fresh machine: root logged in, and types the command."""
    assert needs_scope(LOGIN_SHELL)


def test_a_shell_in_a_delegated_scope_is_no_better() -> None:
    """`systemd-run --scope -p Delegate=yes bash`, then the command: the shell is there too, and is not moved."""
    assert needs_scope(dataclasses.replace(OURS, alone=False))


@pytest.mark.parametrize(
    "here",
    [
        pytest.param(OURS, id="a scope of our own"),
        pytest.param(dataclasses.replace(OURS, entered=True), id="started in one for this"),
        pytest.param(dataclasses.replace(OURS, self_cgroup=UNIT, started_by_systemd=True), id="a unit with Delegate="),
        pytest.param(dataclasses.replace(OURS, self_cgroup=UNIT, alone=False), id="a script in such a unit"),
        pytest.param(dataclasses.replace(OURS, self_cgroup=LEAF, alone=False), id="in a leaf of what is delegated"),
        pytest.param(dataclasses.replace(LOGIN_SHELL, systemd=False), id="nobody there to ask"),
        pytest.param(dataclasses.replace(LOGIN_SHELL, self_cgroup=HYBRID), id="controllers on v1"),
        pytest.param(dataclasses.replace(LOGIN_SHELL, self_cgroup=""), id="no cgroups at all"),
    ],
)
def test_otherwise_it_stays_where_it_is(here: Surroundings) -> None:
    """What is wrong with that place, if anything, the supervisor finds out."""
    assert not needs_scope(here)


@pytest.mark.parametrize(
    ("here", "message"),
    [
        pytest.param(
            dataclasses.replace(LOGIN_SHELL, started_by_systemd=True),
            "the unit that started runagentd has no cgroup of its own to divide\n"
            "hint: write 'Delegate=yes' in the [Service] section of the unit, then 'systemctl daemon-reload'",
            id="a unit without Delegate=",
        ),
        pytest.param(
            dataclasses.replace(LOGIN_SHELL, entered=True),
            "systemd-run did not give runagentd a cgroup of its own to divide\n"
            "hint: start it in one, for example by a unit with 'Delegate=yes'; RUNAGENTD_SCOPE must not be set",
            id="a scope that did not help",
        ),
        pytest.param(
            dataclasses.replace(LOGIN_SHELL, systemd_run=None),
            "runagentd needs a cgroup of its own, and systemd-run, which gives one, is missing\n"
            "hint: put systemd-run on PATH, or start runagentd by a unit with 'Delegate=yes'",
            id="no systemd-run",
        ),
    ],
)
def test_where_a_scope_cannot_help_it_says_what_would(here: Surroundings, message: str) -> None:
    """One sentence and what to do, instead of an endless row of scopes."""
    with pytest.raises(HostError) as refusal:
        needs_scope(here)
    assert str(refusal.value) == message


@pytest.mark.parametrize(
    ("self_cgroup", "path"),
    [
        (SESSION, "/user.slice/user-0.slice/session-1.scope"),
        (MEMORY_ON_V2, "/one"),
        (HYBRID, None),
        ("8:pids:/\n", None),
        ("1:name=systemd:/a:b\n0::/x:y\n", "/x:y"),
    ],
)
def test_the_v2_hierarchy_counts_where_it_has_a_controller_that_limits(self_cgroup: str, path: str | None) -> None:
    """One is enough: a limit there needs a cgroup of our own."""
    assert own_path(self_cgroup) == path


def test_the_command_is_the_same_one_in_a_delegated_scope() -> None:
    """`--` before it, so that no word of ours is an option of systemd-run's."""
    assert command("/usr/bin/systemd-run", "/x/.venv/bin/python", ["runagentd", "serve", "--port", "0"]) == [
        "/usr/bin/systemd-run",
        "--scope",
        "--quiet",
        "--collect",
        "--description=runagentd",
        "--property=Delegate=yes",
        "--property=TasksMax=infinity",
        "--",
        "/x/.venv/bin/python",
        "runagentd",
        "serve",
        "--port",
        "0",
    ]
