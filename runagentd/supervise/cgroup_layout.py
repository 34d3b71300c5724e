"""Find the cgroup hierarchies of a host in two texts of its /proc. Pure.

Runs as: the supervisor and runagentctl.
Reads from strangers: nothing; the kernel wrote both texts.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass

from runagentd.errors import HostError
from runagentd.plan.facts import CgroupLayout, Hierarchy

NEEDED = ("memory", "pids", "cpu")
LEAF = "supervisor"
"""Where the daemon's own processes live on v2, below the cgroup that is delegated to it: DelegateSubgroup=supervisor in
its unit (systemd.resource-control(5)), or made by an earlier start. What is made for instances lies beside it."""

_WANTED_V1 = (*NEEDED, "cpuacct")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mount:
    version: int
    root: str
    place: str
    options: frozenset[str]
    controllers: frozenset[str]


def detect(mountinfo: str, self_cgroup: str) -> CgroupLayout:
    """The hierarchies to use, from /proc/self/mountinfo and /proc/self/cgroup. HostError names a missing controller.

    A v1 hierarchy wins where it holds a controller, for then the v2 hierarchy cannot have it (cgroups(7)); the v2
    hierarchy is joined wherever it is mounted, even without controllers, for its cgroup.kill and `populated`.
    """
    mounts = _mounts(mountinfo)
    v1_paths, v2_path = _own_paths(self_cgroup)
    v2 = _below(mounts, 2, None, v2_path) if v2_path is not None else None
    found: dict[str, list[str]] = {}
    on_v2: list[str] = []
    places: dict[str, str] = {}
    for controller in _WANTED_V1:
        if controller in v1_paths:
            place = _below(mounts, 1, controller, v1_paths[controller])
            if place is None:
                if controller in NEEDED:
                    raise _missing(controller, "it belongs to a v1 hierarchy that is not mounted, or not writable")
                continue
            mount, own = place
            found.setdefault(own, []).append(controller)
            places[own] = mount
        elif controller in NEEDED:
            if v2 is None:
                raise _missing(controller, "no hierarchy with it is mounted")
            on_v2.append(controller)
    hierarchies = [
        Hierarchy(version=1, controllers=tuple(controllers), mount=places[own], own=own)
        for own, controllers in found.items()
    ]
    if v2 is not None:
        mount, own = v2
        if on_v2 and own != mount and posixpath.basename(own) == LEAF:
            own = posixpath.dirname(own)
        hierarchies.append(Hierarchy(version=2, controllers=tuple(on_v2), mount=mount, own=own))
    return CgroupLayout(hierarchies=tuple(hierarchies))


def _missing(controller: str, reason: str) -> HostError:
    return HostError(
        f"the cgroup controller '{controller}' is missing: {reason}",
        f"mount it, for example below /sys/fs/cgroup, or boot without cgroup_disable={controller}",
    )


def _own_paths(self_cgroup: str) -> tuple[dict[str, str], str | None]:
    """Our own cgroup per v1 controller, and in the v2 hierarchy: cgroups(7), "/proc/PID/cgroup"."""
    v1: dict[str, str] = {}
    v2 = None
    for line in self_cgroup.splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            v2 = path
        else:
            v1.update(dict.fromkeys(controllers.split(","), path))
    return v1, v2


def _mounts(mountinfo: str) -> list[_Mount]:
    """The cgroup lines of proc_pid_mountinfo(5)."""
    found = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        left, right = before.split(" "), after.split(" ")
        if len(right) < 3 or right[0] not in ("cgroup", "cgroup2"):
            continue
        found.append(
            _Mount(
                version=2 if right[0] == "cgroup2" else 1,
                root=_unescape(left[3]),
                place=_unescape(left[4]),
                options=frozenset(left[5].split(",")),
                controllers=frozenset(right[2].split(",")),
            )
        )
    return found


def _below(mounts: list[_Mount], version: int, controller: str | None, own: str) -> tuple[str, str] | None:
    """(mount point, directory of our own cgroup) in the first writable mount that shows it."""
    for mount in mounts:
        if mount.version != version or "rw" not in mount.options:
            continue
        if controller is not None and controller not in mount.controllers:
            continue
        # A mount may show a part only: a container's, or one made in a cgroup namespace.
        relative = posixpath.relpath(own, mount.root)
        if relative == ".":
            return mount.place, mount.place
        if not relative.startswith(".."):
            return mount.place, posixpath.join(mount.place, relative)
    return None


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), text)
