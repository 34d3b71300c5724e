"""Carry out the steps of a sandbox plan, one function per verb.

Runs as: root in a fresh process of the zygote's, for some milliseconds; from `identity` on as the instance's uid.
Reads from strangers: nothing. The steps come from the supervisor on a sealed descriptor.
Imports the standard library, runagentd.kernel and numbers of runagentd.wire only. Decides nothing: a choice belongs in
plan/build.py, where it can be tested without root. Any OSError ends the launch: no "warn and continue" here.
"""

from __future__ import annotations

import errno
import os
import random
import resource
import signal
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from runagentd import kernel
from runagentd.wire import launch as wire

NEW_ROOT = "/new"
"""An empty folder of the base jail; the instance's root is put together here."""


@dataclass(slots=True)
class Launch:
    """What the steps of one launch work on: descriptors by name, the mounts in the plan's order."""

    descriptors: dict[str, int]
    cgroup_entrances: list[int] = field(default_factory=list)
    mounts: list[int] = field(default_factory=list)
    returned: list[int] = field(default_factory=list)
    """what steps made for the supervisor (a filter's listener, a socket bound in here); sent with the next report"""

    def take(self, name: str) -> int:
        """The descriptor of that name, which is the caller's from now on."""
        return self.descriptors.pop(name)

    def read(self, name: str) -> bytes:
        """All of a memfd, which is closed."""
        descriptor = self.take(name)
        try:
            return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
        finally:
            os.close(descriptor)


class DescriptorSurprise(OSError):
    """The launcher holds a descriptor that it should not: nothing may start (CVE-2024-21626)."""


def parse(text: bytes) -> Iterator[list[str]]:
    """The steps of `plan.model.tokens`, each a list of words, the verb first; ValueError where there is no such step.

    One at a time: what is made of a spare's steps before the reaper parts is held twice, by that and by the runner.
    """
    position = 0

    def word() -> str:
        nonlocal position
        start, position = position, text.index(b"\0", position) + 1
        return text[start : position - 1].decode("utf-8")

    while position < len(text):
        count = int(word())
        if count < 1:
            raise ValueError("a step has no verb")
        yield [word() for _ in range(count)]


def _below(path: str) -> str:
    return NEW_ROOT + path


# ---- a spare


def join_cgroups(launch: Launch) -> None:
    # Writing "0" moves the writer. First thing of all, so that everything after it is counted; then closed, since
    # whoever holds such a descriptor can move itself (cgroups(7)).
    # A v2 cgroup is not among them: this process was born in it.
    for descriptor in launch.cgroup_entrances:
        os.write(descriptor, b"0")
        os.close(descriptor)
    launch.cgroup_entrances.clear()


def oom_score(launch: Launch, adjustment: str) -> None:
    # Not open(): its layers touch a hundred pages that this process shares with the zygote, and copying them is slow.
    descriptor = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, adjustment.encode("ascii"))
    finally:
        os.close(descriptor)


_NAMESPACES = {
    "mount": kernel.CLONE_NEWNS,
    "ipc": kernel.CLONE_NEWIPC,
    "uts": kernel.CLONE_NEWUTS,
    "network": kernel.CLONE_NEWNET,
    "cgroup": kernel.CLONE_NEWCGROUP,
}


def unshare(launch: Launch, *namespaces: str) -> None:
    flags = 0
    for name in namespaces:
        flags |= _NAMESPACES[name]
    kernel.unshare(flags)


def new_session(launch: Launch) -> None:
    # No controlling terminal, so no TIOCSTI (bubblewrap#142).
    os.setsid()


def hostname(launch: Launch, name: str) -> None:
    kernel.set_hostname(name)


def loopback(launch: Launch) -> None:
    kernel.loopback_up()


# ---- the root


def new_root(launch: Launch, size: str, inodes: str) -> None:
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    kernel.mount("root", NEW_ROOT, "tmpfs", flags, f"size={size},nr_inodes={inodes},mode=0755")


def directory(launch: Launch, path: str) -> None:
    os.mkdir(_below(path), 0o755)


def link(launch: Launch, path: str, target: str) -> None:
    os.symlink(target, _below(path))


def file(launch: Launch, path: str, content: str) -> None:
    os.makedirs(os.path.dirname(_below(path)), 0o755, exist_ok=True)
    descriptor = os.open(_below(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        os.write(descriptor, content.encode())
    finally:
        os.close(descriptor)


def tmpfs(launch: Launch, path: str, size: str, inodes: str, mode: str, owner: str) -> None:
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    options = f"size={size},nr_inodes={inodes},mode={mode},uid={owner},gid={owner}"
    kernel.mount("tmpfs", _below(path), "tmpfs", flags, options)


def mount(launch: Launch, number: str, target: str) -> None:
    descriptor = launch.mounts[int(number)]
    place = _below(target)
    if not os.path.lexists(place):
        _make_mount_point(place, folder=stat.S_ISDIR(os.fstat(descriptor).st_mode))
    kernel.move_mount(descriptor, place)
    os.close(descriptor)


def _make_mount_point(place: str, *, folder: bool) -> None:
    if folder:
        os.makedirs(place, 0o755)
    else:
        os.makedirs(os.path.dirname(place), 0o755, exist_ok=True)
        os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))


def proc(launch: Launch, path: str) -> None:
    flags = kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    # proc(5): subset=pid leaves out all that is not about processes; hidepid hides what may not be traced.
    kernel.mount("proc", _below(path), "proc", flags, "subset=pid,hidepid=ptraceable")


def read_only_root(launch: Launch) -> None:
    flags = kernel.MS_REMOUNT | kernel.MS_RDONLY | kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    kernel.mount("root", NEW_ROOT, "tmpfs", flags)


def pivot(launch: Launch, working_directory: str) -> None:
    os.chdir(NEW_ROOT)
    kernel.pivot_root(".", ".")
    # The old root is stacked below the new one: without this it stays reachable as "/..".
    kernel.unmount(".")
    # After all mounts: a working directory from before would pin the old root (systemd, apply_working_directory).
    os.chdir(working_directory)


# ---- limits and identity


def rlimit(launch: Launch, name: str, value: str) -> None:
    number = int(value)
    resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (number, number))


def keyring(launch: Launch) -> None:
    kernel.join_session_keyring()


def clear_groups(launch: Launch) -> None:
    os.setgroups([])


def user_namespace(launch: Launch) -> None:
    # The mount, network, pid and ipc namespaces belong to the outer user namespace: even all capabilities in this one
    # have no power over them. The descriptor is closed with all others, in `descriptors`.
    kernel.setns(launch.descriptors["user_namespace"], kernel.CLONE_NEWUSER)


def identity(launch: Launch, uid: str) -> None:
    os.setresgid(int(uid), int(uid), int(uid))
    os.setresuid(int(uid), int(uid), int(uid))


def capabilities(launch: Launch, last: str) -> None:
    kernel.clear_capabilities(int(last))


def no_new_privs(launch: Launch) -> None:
    kernel.set_no_new_privs()


def not_dumpable(launch: Launch) -> None:
    # Nothing may read this process through /proc or ptrace(2) it, a sibling of the same uid included.
    kernel.set_dumpable(False)


STANDARD = {0: "stdin", 1: "stdout", 2: "stderr"}
NUMBERED = {3: "channel", 4: "supply", 5: "ready", 6: "job", 7: "socket", 8: "filter"}
"""Where each descriptor of a launch ends up; nothing else may be open when the runner stands at its gate."""
FRESH = {wire.CODE_DESCRIPTOR: "code", wire.THEN_DESCRIPTOR: "then", wire.DONE_DESCRIPTOR: "done"}
"""And those that a fresh interpreter has besides, until it has read them."""

_HIGH = 64


def descriptors(launch: Launch, *more: str) -> None:
    """Put the descriptors where they belong, close all others, and look whether that is true.

    `more` names those of FRESH that are there already.

    As late as possible: an inherited directory would lead to the host through /proc/self/fd (CVE-2024-21626).
    """
    import fcntl

    launch.descriptors["stdin"] = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    places = {**STANDARD, **NUMBERED, **{number: name for number, name in FRESH.items() if name in more}}
    high = {}
    for number, name in places.items():
        high[number] = fcntl.fcntl(launch.take(name), fcntl.F_DUPFD_CLOEXEC, _HIGH)
    for number, descriptor in high.items():
        os.dup2(descriptor, number, inheritable=number in STANDARD)
        launch.descriptors[places[number]] = number
    kernel.close_range(max(places) + 1)
    check_descriptors(set(places))


def check_descriptors(expected: set[int]) -> None:
    """DescriptorSurprise unless exactly these are open; the listing's own descriptor comes and goes."""
    listing = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = {int(name) for name in os.listdir(listing)} - {listing}
        # os.listdir works on a duplicate, which the listing also shows while it is open.
        found = {descriptor for descriptor in found if descriptor in expected or _is_open(descriptor)}
    finally:
        os.close(listing)
    if found != expected:
        raise DescriptorSurprise(errno.EBADF, f"open descriptors {sorted(found)}, expected {sorted(expected)}")


def check_open(launch: Launch) -> None:
    """The look again, in an interpreter that was exec'd: it may have opened files of its own."""
    check_descriptors({*STANDARD, *NUMBERED})


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


# ---- the runner alone


def reseed(launch: Launch) -> None:
    # Instances are forks of one zygote: without this they would share their random numbers (measured).
    # Imported here, where the zygote has it already: a fresh interpreter has no use for it, and 12 ms to lose.
    import ssl

    ssl.RAND_add(os.urandom(48), 48.0)
    random.seed()


def landlock(launch: Launch, filesystem: str, network: str, scoped: str, *rules: str) -> None:
    ruleset = kernel.landlock_create_ruleset(filesystem=int(filesystem), network=int(network), scoped=int(scoped))
    try:
        for rule in rules:
            access, _, path = rule.partition(" ")
            target = os.open(path, os.O_PATH | os.O_CLOEXEC)
            try:
                kernel.landlock_allow_path(ruleset, target, int(access))
            finally:
                os.close(target)
        kernel.landlock_restrict_self(ruleset)
    finally:
        os.close(ruleset)


def seccomp(launch: Launch) -> None:
    program = launch.read("filter")
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # Last of all, so that the filter need not allow what the launch itself needed.
    kernel.load_seccomp_filter(program)


Function = Callable[..., None]

STEPS: dict[str, Function] = {
    "join-cgroups": join_cgroups,
    "oom-score": oom_score,
    "unshare": unshare,
    "new-session": new_session,
    "hostname": hostname,
    "loopback": loopback,
    "new-root": new_root,
    "directory": directory,
    "link": link,
    "file": file,
    "tmpfs": tmpfs,
    "mount": mount,
    "proc": proc,
    "read-only-root": read_only_root,
    "pivot": pivot,
    "rlimit": rlimit,
    "keyring": keyring,
    "clear-groups": clear_groups,
    "user-namespace": user_namespace,
    "identity": identity,
    "capabilities": capabilities,
    "no-new-privs": no_new_privs,
    "not-dumpable": not_dumpable,
    "descriptors": descriptors,
    "check-descriptors": check_open,
    "reseed": reseed,
    "landlock": landlock,
    "seccomp": seccomp,
}
"""All verbs but `reaper`, `wait-for-reaper`, `rehearse`, `stand-by`, `exec` and `gate`: launch.spare, launch.fresh."""
