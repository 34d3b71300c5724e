"""Look at a runner from outside, before any agent code runs: is it what the plan says?

Runs as: the supervisor.
Reads from strangers: nothing yet: the process it looks at is still ours, and stands at its gate.
What the launch says of itself is not enough: a step that silently did nothing would pass.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from runagentd import kernel
from runagentd.plan.model import Expectation

_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")


def namespaces(pid: int) -> frozenset[str]:
    """The namespaces of a process, as the kernel names them: `net:[4026531840]` (namespaces(7))."""
    return frozenset(os.readlink(f"/proc/{pid}/ns/{name}") for name in _NAMESPACES)


def reaper_differences(
    pid: int, status: Iterable[tuple[str, str]], *, apart_from: frozenset[str], in_cgroups: Callable[[int], bool]
) -> list[str]:
    """What /proc says of a spare's reaper that is not as planned: one line each. It cannot change itself any more.

    `status` are fields of /proc/PID/status; `apart_from` are the namespaces of the supervisor and the zygote, of which
    the instance may have none. Raises OSError where the process is gone.
    """
    found = _status_differences("the reaper", kernel.status_fields(pid), status)
    inside = _shared(namespaces(pid), apart_from)
    found += [f"the reaper shares its {name} namespace with the daemon" for name in inside]
    if not in_cgroups(pid):
        found.append("the reaper is not in its cgroups")
    return found


def differences(
    pid: int,
    reaper_pid: int,
    expected: Expectation,
    *,
    apart_from: frozenset[str],
    reapers_namespaces: frozenset[str],
    zygotes_layout: str,
    in_cgroups: Callable[[int], bool],
) -> list[str]:
    """What /proc says of process `pid` that the plan does not: one line each, none if all is as planned.

    The reaper was looked at when the spare was made (`reaper_differences`), its namespaces were noted then.
    Raises OSError where the process is gone.
    """
    status = kernel.status_fields(pid)
    found = _status_differences("the runner", status, expected.status)
    if status.get("PPid") != str(reaper_pid):
        found.append("its parent is not the instance's reaper")
    own = kernel.status_fields()["NSpid"].split()
    inside = status.get("NSpid", "").split()
    if len(inside) != len(own) + 1 or inside[-1] != "2":
        found.append("it is not pid 2 of a pid namespace of its own")
    its = namespaces(pid)
    found += [f"it shares its {name} namespace with the daemon" for name in _shared(its, apart_from)]
    if not in_cgroups(pid):
        found.append("it is not in its cgroups")
    if its != reapers_namespaces:
        found.append("its namespaces are not those of its reaper")
    if os.stat(f"/proc/{pid}/environ").st_uid != 0:
        # Of a process that is not dumpable such files are root's (proc(5)).
        found.append("it is dumpable")
    if expected.command:
        found += _differences_of_command(pid, expected.command, zygotes_layout)
    with open(f"/proc/{pid}/limits", encoding="ascii") as file:
        found += _limit_differences(file.read(), expected.limits)
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        found += _mount_differences(file.read(), expected.mounts)
    return found


def layout(pid: int) -> str:
    """Where a process's memory lies: its stack, the one part whose place proc_pid_stat(5) tells by itself.

    Chosen at each exec (Documentation/admin-guide/sysctl/kernel.rst, randomize_va_space), and kept by a fork.
    """
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        # The name, in brackets, may hold anything; field 28, startstack, is the 26th after it.
        return file.read().rpartition(")")[2].split()[25]


def _differences_of_command(pid: int, command: tuple[str, ...], zygotes_layout: str) -> list[str]:
    with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
        arguments = tuple(file.read().split("\0")[:-1])
    found = [] if arguments == command else ["its arguments are not those of the plan"]
    its = layout(pid)
    if not zygotes_layout or its in ("0", zygotes_layout):
        found.append("its address layout is the zygote's")
    return found


def _shared(its: frozenset[str], apart_from: frozenset[str]) -> list[str]:
    return sorted(name.partition(":")[0] for name in its & apart_from)


def _status_differences(who: str, status: dict[str, str], expected: Iterable[tuple[str, str]]) -> list[str]:
    return [
        f"{key} of {who} is {status.get(key)!r}, expected {value!r}"
        for key, value in expected
        if status.get(key) != value
    ]


def _limit_differences(limits: str, expected: tuple[tuple[str, str], ...]) -> list[str]:
    """proc_pid_limits(5): the name, the soft limit, the hard limit, in columns."""
    found = []
    for name, value in expected:
        line = next((line for line in limits.splitlines() if line.startswith(name + " ")), "")
        if line[len(name) :].split()[:2] != [value, value]:
            found.append(f"{name} is {' and '.join(line[len(name) :].split()[:2]) or 'missing'}, expected {value}")
    return found


def _mount_differences(mountinfo: str, expected: tuple[tuple[str, str], ...]) -> list[str]:
    """proc_pid_mountinfo(5): field 5 is the mount point, field 6 its options, field 7 on are optional until "-".

    The last field has the options of the file system itself, such as the size of a tmpfs; both kinds are looked for.
    """
    actual: list[tuple[str, set[str], bool]] = []
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        propagates = fields[6] != "-"
        # A file system may be read-only where one of its mounts is not, and the other way round: `ro` and `rw` of a
        # mount are those of field 6 alone.
        own = {option for option in fields[-1].split(",") if "=" in option}
        point = fields[4].replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
        actual.append((point, own | set(fields[5].split(",")), propagates))
    found = []
    if sorted(point for point, _, _ in actual) != sorted(point for point, _ in expected):
        extra = {point for point, _, _ in actual} ^ {point for point, _ in expected}
        found.append(f"the mounts are not those of the plan: {', '.join(sorted(extra)) or 'one is there twice'}")
    options_of = {point: options for point, options, _ in actual}
    for point, options in expected:
        missing = set(options.split(",")) - options_of.get(point, set())
        if missing:
            found.append(f"the mount at {point} lacks {','.join(sorted(missing))}")
    found += [f"the mount at {point} propagates" for point, _, propagates in actual if propagates]
    return found
