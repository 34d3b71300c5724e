"""Policy, host and identity become a plan: every decision about a sandbox is made here, and nowhere later.

Runs as: the supervisor and runagentctl. Pure.
Reads from strangers: nothing; the folders that an agent's manifest names were checked to be plain relative paths.
The order of the steps and the reason for each place: docs/sandbox.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from runagentd.errors import HostError
from runagentd.plan import landlock
from runagentd.plan.facts import HostFacts
from runagentd.plan.model import (
    AGENT_UID,
    APP,
    ENVIRONMENT,
    Expectation,
    Limits,
    Mount,
    MountKind,
    SandboxPlan,
    Step,
    Verb,
)
from runagentd.plan.seccomp import SyscallFilter
from runagentd.policy.model import CallIsolation, Policy, Runtime, Spawn
from runagentd.wire import launch as wire
from runagentd.wire.runtime import RuntimeLink

_MIB = 1024 * 1024
_ROOT_INODES = 512

# landlock(7): bits of the rights to files.
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_MAKE_CHAR, _MAKE_BLOCK, _REFER, _TRUNCATE, _IOCTL_DEV = 1 << 6, 1 << 11, 1 << 13, 1 << 14, 1 << 15

_WRITABLE = "rw,nosuid,nodev,noexec"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who an instance is on the host: chosen by the supervisor, never by an agent."""

    uid: int
    instance: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentFolders:
    """What of an agent's own folder needs mounts of its own."""

    environments: tuple[str, ...]
    """relative folders with libraries, read-only and executable"""
    persistent: tuple[str, ...]
    """relative folders that are kept across instances, where the policy grants it"""
    absent: frozenset[str]
    """optional folders of the policy's files.read that this host does not have"""
    installed: bool = False
    """whether it has an environment of its own"""


def spare_steps(facts: HostFacts, *, in_advance: bool) -> tuple[Step, ...]:
    """The part of a launch that knows no policy: the slow part, done before anybody waits for it.

    `in_advance` says that nobody does: there is time to go through a start once.
    """
    return (
        # First of all: what follows is counted against the instance.
        Step(verb=Verb.JOIN_CGROUPS, origin="resources"),
        # While /proc is still writable. Under memory pressure an agent goes before the host's own services.
        Step(verb=Verb.OOM_SCORE, arguments=("500",)),
        Step(verb=Verb.UNSHARE, arguments=("mount",)),
        Step(verb=Verb.UNSHARE, arguments=("ipc",)),
        Step(verb=Verb.UNSHARE, arguments=("uts",)),
        Step(verb=Verb.UNSHARE, arguments=("network",), origin="network.mode"),
        # After the move into the cgroup, or the instance would see its path (crun, cgroup_path_leak).
        Step(verb=Verb.UNSHARE, arguments=("cgroup",)),
        Step(verb=Verb.NEW_SESSION),
        # Pid 1 and the runner part as soon as their namespaces are there: the fork is slow and knows no policy, and
        # what is written to memory before it is held twice (0.4 MB from here to the end of the root).
        Step(verb=Verb.REAPER, arguments=(str(AGENT_UID), str(facts.last_capability))),
        Step(verb=Verb.HOSTNAME, arguments=("agent",)),
        Step(verb=Verb.LOOPBACK, origin="network.mode"),
        *_neutral_root_steps(facts),
        *([Step(verb=Verb.REHEARSE, origin="spares")] if in_advance else []),
        # After the rehearsal: whatever that did to the state of a generator is gone.
        Step(verb=Verb.RESEED),
        # The reaper gives up its privileges meanwhile. Nothing is a spare, or goes on to be an instance, before it has.
        Step(verb=Verb.WAIT_FOR_REAPER),
        *([Step(verb=Verb.STAND_BY, origin="spares")] if in_advance else []),
    )


def build(
    policy: Policy, facts: HostFacts, identity: Identity, folders: AgentFolders, filter: SyscallFilter
) -> SandboxPlan:
    """The plan of one instance. `filter` is the policy's own, of `seccomp.filter_for`: it is made once and for many.

    Raises HostError where this kernel cannot do what every plan needs. That the policy agrees with itself was checked
    when it was loaded.
    """
    _check(facts)
    mounts = _mounts(policy, facts, folders)
    # What the spare's root has already, where the policy wants that root.
    begun = () if policy.files.runtime is Runtime.SYSTEM else neutral_mounts(facts)
    own = tuple(mount for mount in mounts if mount not in begun)
    steps = (
        *([] if begun else _begin_root(mounts, facts.python.links)),
        *_root_steps(policy, identity, () if not begun else own),
        *_limit_steps(policy),
        *_identity_steps(facts),
        *_process_steps(policy, facts),
        *_runner_steps(policy, facts, folders),
    )
    return SandboxPlan(
        steps=steps,
        mounts=own,
        limits=Limits(
            memory_max=policy.resources.memory_max,
            pids_max=policy.resources.pids_max,
            cpu_max=policy.resources.cpu_max,
            cpu_weight=policy.resources.cpu_weight,
        ),
        filter=filter,
        expected=_expectation(policy, facts, identity, mounts),
    )


def _check(facts: HostFacts) -> None:
    if facts.landlock_abi < 1:
        raise HostError(
            "this kernel has no Landlock, the second layer of every sandbox",
            "use Linux 5.13 or newer, with landlock in the boot parameter lsm=",
        )


def neutral_mounts(facts: HostFacts) -> tuple[Mount, ...]:
    """What is mounted into the root of every spare, before a policy is known: the Python runtime and the devices."""
    return (*(_host_mount(path) for path in facts.python.paths), _DEVICES)


def _mounts(policy: Policy, facts: HostFacts, folders: AgentFolders) -> tuple[Mount, ...]:
    if policy.files.runtime is Runtime.SYSTEM:
        runtime = ["/usr", *(path for path in facts.python.paths if not _is_below(path, "/usr"))]
        neutral = (*(_host_mount(path) for path in runtime), _DEVICES)
    else:
        neutral = neutral_mounts(facts)
    hosts = []
    for folder in policy.files.read:
        if folder.path not in folders.absent:
            hosts.append(_host_mount(folder.path))
    persistent = folders.persistent if policy.files.persistent else ()
    app = Mount(
        kind=MountKind.APP,
        source=".",
        target=APP,
        # What a call writes over a file of the agent's could not be taken back from inside.
        read_only=_isolated(policy),
        noexec=True,
        size=policy.files.app_size,
        inodes=policy.files.app_inodes,
        folders=persistent,
    )
    # Native libraries can be loaded from here, for the agent cannot write here; from /app itself they cannot.
    environments = [
        Mount(kind=MountKind.SNAPSHOT, source=path, target=f"{APP}/{path}", read_only=True, noexec=False)
        for path in folders.environments
    ]
    kept = [
        Mount(kind=MountKind.PERSISTENT, source=path, target=f"{APP}/{path}", read_only=False, noexec=True)
        for path in persistent
    ]
    # The supervisor copied what is in it, file by file; the agent cannot write there.
    installed = [Mount(kind=MountKind.ENVIRONMENT, source=".", target=ENVIRONMENT, read_only=True, noexec=False)]
    return (*neutral, *hosts, app, *environments, *(installed if folders.installed else ()), *kept)


_DEVICES = Mount(kind=MountKind.DEVICES, source="", target="/dev", read_only=True, noexec=True)


def _host_mount(path: str) -> Mount:
    return Mount(kind=MountKind.HOST, source=path, target=path, read_only=True, noexec=False)


def _isolated(policy: Policy) -> bool:
    return policy.calls.isolation is CallIsolation.CALL


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + "/")


_ORIGINS = {
    MountKind.HOST: "files.runtime, files.read",
    MountKind.APP: "files.app_size",
    MountKind.SNAPSHOT: "always",
    MountKind.ENVIRONMENT: "always",
    MountKind.PERSISTENT: "files.persistent",
    MountKind.DEVICES: "always",
}


def _neutral_root_steps(facts: HostFacts) -> list[Step]:
    return _begin_root(neutral_mounts(facts), facts.python.links)


def _begin_root(mounts: tuple[Mount, ...], links: tuple[RuntimeLink, ...]) -> list[Step]:
    """A new root with `mounts`, and with what is there whatever the policy. A second one covers the first."""
    return [
        Step(verb=Verb.NEW_ROOT, arguments=(str(_MIB), str(_ROOT_INODES))),
        *_mount_steps(mounts),
        *(Step(verb=Verb.LINK, arguments=(link.path, link.target), origin="files.runtime") for link in links),
        Step(verb=Verb.DIRECTORY, arguments=("/tmp",)),
        *(Step(verb=Verb.FILE, arguments=(path, content)) for path, content in _ETC.items()),
        Step(verb=Verb.DIRECTORY, arguments=("/proc",)),
        Step(verb=Verb.PROC, arguments=("/proc",)),
    ]


def _mount_steps(mounts: tuple[Mount, ...]) -> list[Step]:
    return [
        Step(verb=Verb.MOUNT, arguments=(str(number), mount.target), origin=_ORIGINS[mount.kind])
        for number, mount in enumerate(mounts)
    ]


def _root_steps(policy: Policy, identity: Identity, mounts: tuple[Mount, ...]) -> list[Step]:
    files = policy.files
    owner = str(identity.uid)
    return [
        *_mount_steps(mounts),
        Step(
            verb=Verb.TMPFS,
            arguments=("/tmp", str(files.tmp_size), str(files.tmp_inodes), "0700", owner),
            origin="files.tmp_size, files.tmp_inodes",
        ),
        Step(
            verb=Verb.TMPFS,
            arguments=("/dev/shm", str(files.shm_size), str(files.shm_inodes), "0700", owner),
            origin="files.shm_size, files.shm_inodes",
        ),
        Step(verb=Verb.READ_ONLY_ROOT),
        Step(verb=Verb.PIVOT, arguments=(APP,)),
    ]


_ETC = {
    "/etc/passwd": f"agent:x:{AGENT_UID}:{AGENT_UID}:agent:{APP}:/usr/sbin/nologin\n",
    "/etc/group": f"agent:x:{AGENT_UID}:\n",
    "/etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}


# CORE 1 and not 0: where core_pattern is a pipe the kernel ignores 0 and starts the host's handler as root; 1 is its
# sign for "no core at all" (core(5), fs/coredump.c).
_FIXED_LIMITS = {"CORE": 1, "MEMLOCK": 64 * 1024, "MSGQUEUE": 0, "SIGPENDING": 256, "RTPRIO": 0, "NICE": 0}

# As /proc/PID/limits names them (proc_pid_limits(5)).
_NAMES_OF_LIMITS = {
    "CORE": "Max core file size",
    "FSIZE": "Max file size",
    "MEMLOCK": "Max locked memory",
    "MSGQUEUE": "Max msgqueue size",
    "NICE": "Max nice priority",
    "NOFILE": "Max open files",
    "RTPRIO": "Max realtime priority",
    "SIGPENDING": "Max pending signals",
}


def _limit_steps(policy: Policy) -> list[Step]:
    return [
        Step(verb=Verb.RLIMIT, arguments=("NOFILE", str(policy.process.nofile)), origin="process.nofile"),
        Step(verb=Verb.RLIMIT, arguments=("FSIZE", str(policy.process.fsize)), origin="process.fsize"),
        *(Step(verb=Verb.RLIMIT, arguments=(name, str(value))) for name, value in _FIXED_LIMITS.items()),
        Step(verb=Verb.KEYRING),
    ]


def _identity_steps(facts: HostFacts) -> list[Step]:
    return [
        # Groups first: inside the user namespace nobody may change them any more.
        Step(verb=Verb.CLEAR_GROUPS),
        Step(verb=Verb.USER_NAMESPACE),
        Step(verb=Verb.IDENTITY, arguments=(str(AGENT_UID),)),
        # After the uid: a process of another uid than 0 keeps what the user namespace gave it.
        Step(verb=Verb.CAPABILITIES, arguments=(str(facts.last_capability),)),
        Step(verb=Verb.NO_NEW_PRIVS),
        Step(verb=Verb.NOT_DUMPABLE),
    ]


def _process_steps(policy: Policy, facts: HostFacts) -> list[Step]:
    if policy.process.spawn is Spawn.FORK:
        return [Step(verb=Verb.DESCRIPTORS)]
    origin = "process.spawn"
    return [
        Step(verb=Verb.DESCRIPTORS, arguments=("code", "then"), origin=origin),
        # Before Landlock and the filter, which then need not allow it to anybody.
        Step(verb=Verb.EXEC, arguments=_command(facts), origin=origin),
        # execve(2) makes a process dumpable again.
        Step(verb=Verb.NOT_DUMPABLE, origin=origin),
        Step(verb=Verb.CHECK_DESCRIPTORS, origin=origin),
    ]


def _command(facts: HostFacts) -> tuple[str, ...]:
    return (facts.python.interpreter, *wire.FRESH_ARGUMENTS)


def _runner_steps(policy: Policy, facts: HostFacts, folders: AgentFolders) -> list[Step]:
    return [
        Step(
            verb=Verb.LANDLOCK, arguments=_landlock(policy, facts, folders), origin="files, process.exec, network.mode"
        ),
        Step(verb=Verb.SECCOMP, origin="syscalls.groups, process.exec, network.mode"),
        Step(verb=Verb.GATE),
    ]


def _landlock(policy: Policy, facts: HostFacts, folders: AgentFolders) -> tuple[str, ...]:
    filesystem, network, scoped = landlock.handled(facts.landlock_abi)
    read = _READ_FILE | _READ_DIR
    write = filesystem & ~(_EXECUTE | _MAKE_CHAR | _MAKE_BLOCK | _IOCTL_DEV)
    everywhere = read | (_EXECUTE if policy.process.exec else 0)
    kept = folders.persistent if policy.files.persistent else ()
    own = [f"{APP}/{folder}" for folder in kept] if _isolated(policy) else [APP]
    rules = [(everywhere, "/"), (_READ_FILE | _WRITE_FILE, "/dev")]
    rules += [(write, path) for path in (*own, "/tmp", "/dev/shm")]
    return (str(filesystem), str(network), str(scoped), *(f"{access} {path}" for access, path in rules))


def expected_status(uid: int) -> tuple[tuple[str, str], ...]:
    """What /proc/PID/status must say of a runner and of a reaper, whatever the policy."""
    ids, nothing = "\t".join([str(uid)] * 4), "0" * 16
    return (
        ("Uid", ids),
        ("Gid", ids),
        ("Groups", ""),
        ("CapInh", nothing),
        ("CapPrm", nothing),
        ("CapEff", nothing),
        ("CapBnd", nothing),
        ("CapAmb", nothing),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
        ("Threads", "1"),
    )


def _expectation(policy: Policy, facts: HostFacts, identity: Identity, mounts: tuple[Mount, ...]) -> Expectation:
    files, owner = policy.files, f"uid={identity.uid},gid={identity.uid}"
    expected = [("/", f"ro,nosuid,nodev,noexec,size=1024k,nr_inodes={_ROOT_INODES}")]
    for mount in mounts:
        options = "ro" if mount.read_only else "rw"
        options += ",nosuid" if mount.kind is MountKind.DEVICES else ",nosuid,nodev"
        options += ",noexec" if mount.noexec else ""
        expected.append((mount.target, options))
    # The kernel shows sizes in KiB, as whole pages: the sizes of policies are whole pages (policy.keys).
    expected += [
        ("/tmp", f"{_WRITABLE},{owner},size={files.tmp_size // 1024}k,nr_inodes={files.tmp_inodes}"),
        ("/dev/shm", f"{_WRITABLE},{owner},size={files.shm_size // 1024}k,nr_inodes={files.shm_inodes}"),
        ("/proc", "ro,nosuid,nodev,noexec,hidepid=ptraceable,subset=pid"),
    ]
    limits = {**_FIXED_LIMITS, "NOFILE": policy.process.nofile, "FSIZE": policy.process.fsize}
    return Expectation(
        status=expected_status(identity.uid),
        mounts=tuple(expected),
        command=_command(facts) if policy.process.spawn is Spawn.EXEC else (),
        limits=tuple((_NAMES_OF_LIMITS[name], str(value)) for name, value in sorted(limits.items())),
    )
