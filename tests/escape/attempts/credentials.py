"""Attempts to become somebody else, and facts about who we are.

Runs as: see `frame`.
Reads from strangers: nothing.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable

from tests.escape.attempts import kernel
from tests.escape.attempts.frame import Function, Nothing, attempt, attempts

AREA = "credentials"


def _ids(change: Callable[..., None], *arguments: object) -> Function:
    def change_ids() -> str:
        change(*arguments)
        return f"now {os.getresuid()}, {os.getresgid()}, {os.getgroups()}"

    return change_ids


attempts(
    AREA,
    "EPERM",
    [
        ("set_uid_0", "become root", _ids(os.setuid, 0)),
        ("set_uid_to_a_neighbours", "become another instance", _ids(os.setuid, 1879048193)),
        ("set_resuid", "root as saved uid, for later", _ids(os.setresuid, -1, -1, 0)),
        ("set_reuid", "swap real and effective uid", _ids(os.setreuid, 0, 0)),
        ("set_gid_0", "root's group", _ids(os.setgid, 0)),
        ("set_resgid", "the same, as saved gid", _ids(os.setresgid, -1, -1, 0)),
        ("set_groups", "disk, shadow, docker", _ids(os.setgroups, [6, 42])),
        ("set_our_own_uid", "set*id at all, to what we are", _ids(os.setuid, os.getuid())),
    ],
)


@attempt(AREA, "EPERM")
def set_fsuid() -> str:
    """setfsuid changes whose files we open; it never fails, but a filter can refuse it."""
    return f"was {kernel.call('setfsuid', 0)}"


@attempt(AREA, "EPERM")
def set_capabilities() -> str:
    """capset: take what is permitted, or leave the filter to refuse even that."""
    header = struct.pack("<Ii", 0x20080522, 0)
    kernel.call("capset", header, struct.pack("<6I", 1, 1, 0, 0, 0, 0))
    return "set"


attempts(
    AREA,
    "EPERM",
    [
        (name, idea, (lambda option, *arguments: lambda: f"prctl answered {kernel.prctl(option, *arguments)}")(*call))
        for name, idea, call in (
            ("keep_capabilities", "PR_SET_KEEPCAPS: keep them over a change of uid", (8, 1)),
            ("set_securebits", "PR_SET_SECUREBITS: how uid 0 is treated", (28, 0)),
            ("raise_an_ambient_capability", "PR_CAP_AMBIENT: a capability for programs to come", (47, 4)),
            ("become_dumpable", "PR_SET_DUMPABLE: let siblings read our memory", (4, 1)),
            ("let_anybody_trace_us", "PR_SET_PTRACER: Yama's permission", (0x59616D61, 2**64 - 1)),
            ("adopt_orphans", "PR_SET_CHILD_SUBREAPER: collect processes in the reaper's place", (36, 1)),
            ("ask_for_a_parent_death_signal", "PR_SET_PDEATHSIG survives what nobody expects it to", (1, 9)),
            ("switch_seccomp", "PR_SET_SECCOMP with a mode that is not there", (22, 0)),
            ("allow_speculation", "PR_SET_SPECULATION_CTRL: switch Spectre's mitigations off", (53, 0, 2)),
            ("trap_the_clock", "PR_SET_TSC: make rdtsc fail or work", (26, 1)),
            ("share_a_core", "PR_SCHED_CORE: who runs beside us on the same core", (62, 1)),
            ("hide_the_upper_half", "PR_SET_DUMPABLE with a bit that the kernel does not read", (kernel.HALF | 4, 1)),
        )
    ],
    sees="open EINVAL ENXIO ENODEV",
    # The errnos are words about the option itself, each after any permission check.
)


def _status(*fields: str) -> dict[str, str]:
    with open("/proc/self/status", encoding="utf-8") as file:
        rows = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    return {field: rows.get(field, "") for field in fields}


@attempt(AREA, "nothing")
def find_a_capability() -> str:
    """A forgotten capability is half of root: all five sets must be empty."""
    sets = _status("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
    if {int(value, 16) for value in sets.values()} == {0}:
        raise Nothing("all five sets are empty")
    return str(sets)


@attempt(AREA, "nothing")
def find_no_new_privs_unset() -> str:
    """Without no_new_privs a set-user-ID program is a way up."""
    found = _status("NoNewPrivs")
    if found == {"NoNewPrivs": "1"}:
        raise Nothing("NoNewPrivs 1")
    return str(found)


@attempt(AREA, "nothing")
def find_no_filter() -> str:
    """Seccomp must be on, in filter mode."""
    found = _status("Seccomp")
    if found == {"Seccomp": "2"}:
        raise Nothing("Seccomp 2")
    return str(found)


@attempt(AREA, "nothing")
def find_a_group() -> str:
    """A supplementary group is a permission that nobody thought of."""
    if not os.getgroups() and 0 not in os.getresuid() + os.getresgid():
        raise Nothing("no groups, not root")
    return f"{os.getgroups()} {os.getresuid()}"


@attempt(AREA, "nothing")
def find_root_in_our_user_namespace() -> str:
    """One uid is mapped, and it is not root: neither inside nor outside."""
    with open("/proc/self/uid_map", encoding="ascii") as file:
        rows = [tuple(map(int, line.split())) for line in file]
    if len(rows) == 1 and rows[0][2] == 1 and 0 not in rows[0][:2]:
        raise Nothing(f"only {rows[0]}")
    return str(rows)


@attempt(AREA, "nothing")
def find_securebits_unlocked() -> str:
    """SECBIT_NOROOT and its lock say that uid 0 means nothing."""
    bits = kernel.prctl(27)
    if bits & 0x2F == 0x2F:
        raise Nothing(f"{bits:#x}: noroot, no setuid fix-up, no ambient raise, all locked")
    return f"{bits:#x}"


@attempt(AREA, "EPERM", sees="open")
def put_on_another_filter() -> str:
    """A filter of our own with SECCOMP_RET_USER_NOTIF could answer for system calls of our children."""
    allow = ctypes.create_string_buffer(struct.pack("<HBBI", 6, 0, 0, 0x7FFF0000))
    kernel.call("prctl", 38, 1, 0, 0, 0) if os.geteuid() else None
    kernel.call("seccomp", 1, 0, struct.pack("<HxxxxxxQ", 1, ctypes.addressof(allow)))
    return "put on"
