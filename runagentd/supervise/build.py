"""Have packages installed by a builder that is thrown away, and look at what it made only when nothing of it is left.

Runs as: the supervisor, root.
Reads from strangers: answers of a builder that may be captured, of the form of `wire.build`. The tree that it leaves
is hostile, and is for `snapshot` to copy.
Whatever happens on the way, no process, mount, cgroup or uid of a builder outlives the call; a supervisor that is
killed leaves one that ends by itself (its lifeline), and a cgroup that the next supervisor sweeps.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import subprocess
import sysconfig
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from runagentd import kernel
from runagentd.errors import HostError
from runagentd.log import Log
from runagentd.supervise.cgroup import CgroupHost, Group
from runagentd.supervise.waiting import readable
from runagentd.supervise.zygote import package
from runagentd.uids import Leases
from runagentd.wire import build, packages, record
from runagentd.wire.runtime import PythonRuntime

_START = (
    "import sys; sys.path.append(sys.argv[1]); from runagentd.builder.__main__ import main; "
    "sys.exit(main(sys.argv[2:]))"
)
_MEMORY = 1024 * 1024 * 1024
"""For the processes themselves, beside what they write: the staging folder is memory, too."""
_TASKS = 256
_WEIGHT = 50
"""Half of an agent's: a build is to be noticed by nobody who is called."""

T = TypeVar("T")


class BuildFailed(Exception):
    """There is no environment; `words` are the installer's own, or ours."""

    def __init__(self, words: str, *, full: bool = False) -> None:
        super().__init__(words)
        self.words = words
        self.full = full


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What one build may take: bytes and files of the staging folder, seconds."""

    size: int
    files: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where one build goes on, and what it may take."""

    uid: int
    group: Group
    stage: int
    runtime: PythonRuntime
    wheels: int | None
    bounds: Bounds


class Builder:
    """Starts builders. `relay` tells the egress process where connections are to lead; the descriptors stay ours.

    `program` gives the filter; it is made when there is something to build, for most daemons build nothing.
    """

    def __init__(
        self,
        *,
        cgroups: CgroupHost,
        leases: Leases,
        program: Callable[[], bytes],
        jail: Path,
        relay: Callable[[packages.Relay, Sequence[int]], None],
        log: Log,
    ) -> None:
        self._cgroups = cgroups
        self._leases = leases
        self._program = program
        self._jail = jail
        self._relay = relay
        self._log = log

    async def install(
        self,
        job: build.BuildJob,
        *,
        runtime: PythonRuntime,
        wheels: int | None,
        bounds: Bounds,
        progress: Callable[[build.Progress], None],
        take: Callable[[int], Awaitable[T]],
    ) -> T:
        """Install, and give the folder that was made, open, to `take`; gives what that gives.

        The builder runs on `runtime`, which is what the packages are for.

        `wheels` is a folder with wheels, open. BuildFailed; OSError or HostError where no builder can be made.
        """
        uid = self._leases.lease()
        try:
            group = self._cgroups.create(f"build-{secrets.token_hex(4)}")
        except BaseException:
            self._leases.release(uid)
            raise
        stage, ended = -1, False
        started: list[subprocess.Popen[bytes]] = []
        try:
            cores = float(os.cpu_count() or 1)
            group.write_limits(memory_max=bounds.size + _MEMORY, pids_max=_TASKS, cpu_max=cores, cpu_weight=_WEIGHT)
            stage = _new_stage(uid, bounds, source=job.source)
            try:
                place = _Place(uid=uid, group=group, stage=stage, runtime=runtime, wheels=wheels, bounds=bounds)
                await self._run(job, place, progress, started)
            finally:
                # Nothing writes to the folder any more when it is looked at, whoever wrote there.
                ended = await asyncio.shield(asyncio.to_thread(group.end))
                for process in started:
                    process.poll()  # reaps it, unless the supervisor's own reaping was faster
            if not ended:
                raise HostError("a builder does not end, so nothing of it is taken over")
            site = _open_site(stage)
            try:
                return await take(site)
            finally:
                os.close(site)
        finally:
            if stage >= 0:
                # Its memory becomes free, which takes as long as there is much of it.
                await asyncio.shield(asyncio.to_thread(os.close, stage))
            if ended or await asyncio.shield(asyncio.to_thread(group.end)):
                self._leases.release(uid)
            else:
                self._log.error("something of a builder is left", cgroup=group.name)

    async def _run(
        self,
        job: build.BuildJob,
        place: _Place,
        progress: Callable[[build.Progress], None],
        started: list[subprocess.Popen[bytes]],
    ) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        lifeline, writer = os.pipe()
        try:
            ours.setblocking(False)
            with theirs:
                started.append(self._start(job, place, theirs.fileno(), lifeline))
            async with asyncio.timeout(place.bounds.seconds):
                await self._answers(job, ours, lifeline, place.group, progress)
        except TimeoutError as error:
            raise BuildFailed(f"installing took more than {place.bounds.seconds:g} s and was ended") from error
        finally:
            ours.close()
            os.close(lifeline)
            os.close(writer)

    def _start(self, job: build.BuildJob, place: _Place, report: int, lifeline: int) -> subprocess.Popen[bytes]:
        given = {
            "job": kernel.sealed_memfd("job", record.encode(job)),
            "filter": kernel.sealed_memfd("filter", self._program()),
        }
        procs: list[int] = []
        try:
            if place.wheels is not None:
                # A clone, for a folder of this mount namespace means nothing in the builder's.
                given["wheels"] = _read_only_clone(place.wheels)
            procs = place.group.procs_fds()
            numbers = {**given, "stage": place.stage, "report": report, "lifeline": lifeline}
            # A compiler and its headers are spread over all of /usr.
            paths = [*place.runtime.paths]
            if job.source:
                paths = ["/usr", *(path for path in paths if not path.startswith("/usr/"))]
                # On Debian `cc` is a link to there.
                paths += ["/etc/alternatives"] if os.path.isdir("/etc/alternatives") else []
            command = [
                place.runtime.interpreter, "-I", "-S", "-E", "-B", "-c", _START, str(package().parent),
                "--uid", str(place.uid), "--jail", str(self._jail), "--file-bytes", str(place.bounds.size),
                *(word for name, number in numbers.items() for word in (f"--{name}", str(number))),
                *(word for number in procs for word in ("--procs", str(number))),
                *(word for path in paths for word in ("--path", path)),
                *(word for link in place.runtime.links for word in ("--link", f"{link.path}={link.target}")),
            ]  # fmt: skip
            return subprocess.Popen(
                command,
                env={},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # nothing of a process that reads strangers' files goes to a terminal
                pass_fds=[*numbers.values(), *procs],
                start_new_session=True,
            )
        finally:
            for descriptor in (*given.values(), *procs):
                os.close(descriptor)

    async def _answers(
        self,
        job: build.BuildJob,
        link: socket.socket,
        lifeline: int,
        group: Group,
        progress: Callable[[build.Progress], None],
    ) -> None:
        """Returns when it says that all is installed."""
        listens = False
        while True:
            await readable(link.fileno())
            try:
                data, descriptors, _, _ = socket.recv_fds(
                    link, build.MESSAGE_BYTES_MAX + 1, build.HOSTS_MAX, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                continue
            try:
                if not data:
                    out_of_memory = group.oom_kills() > 0
                    raise BuildFailed("it ran out of memory" if out_of_memory else "the builder ended without a word")
                match _parsed(data):
                    case build.Listening() if job.hosts and len(descriptors) == len(job.hosts) and not listens:
                        listens = True
                        targets = tuple(packages.Target(host=host.name, port=host.port) for host in job.hosts)
                        self._relay(packages.Relay(targets=targets), [lifeline, *descriptors])
                    case build.Listening():
                        raise BuildFailed("the builder listens for other hosts than it was told to")
                    case build.Progress() as far:
                        progress(far)
                    case build.NotBuilt() as failed:
                        raise BuildFailed(failed.words[: build.WORDS_MAX], full=failed.full)
                    case build.Built():
                        return
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)


def _parsed(data: bytes) -> build.Answer:
    try:
        return build.parse(data)
    except record.RecordError as error:
        raise BuildFailed("the builder said what is no answer") from error


def _new_stage(uid: int, bounds: Bounds, *, source: bool) -> int:
    """A file system of its own, for the kernel keeps to its size and to the number of its files; a mount, detached."""
    options = [("size", str(bounds.size)), ("nr_inodes", str(bounds.files)), ("mode", "0700")]
    options += [("uid", str(uid)), ("gid", str(uid))]
    attributes = kernel.MOUNT_ATTR_NOSUID | kernel.MOUNT_ATTR_NODEV
    return kernel.new_filesystem("tmpfs", options, attributes | (0 if source else kernel.MOUNT_ATTR_NOEXEC))


def _open_site(stage: int) -> int:
    try:
        return os.open(build.SITE, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=stage)
    except OSError as error:
        raise BuildFailed("the builder left no folder with packages") from error


def _read_only_clone(folder: int) -> int:
    attributes = kernel.MOUNT_ATTR_NOSUID | kernel.MOUNT_ATTR_NODEV | kernel.MOUNT_ATTR_RDONLY
    descriptor = kernel.open_tree(folder, ".", kernel.OPEN_TREE_CLONE)
    try:
        kernel.mount_setattr(
            descriptor, set_attributes=attributes | kernel.MOUNT_ATTR_NOEXEC, propagation=kernel.MS_PRIVATE
        )
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def installer() -> str:
    """Where uv lies; HostError where this installation lacks it."""
    path = Path(sysconfig.get_path("scripts")) / "uv"
    if not path.is_file():
        raise HostError(f"{path} is missing", "install runagentd with its dependencies")
    return str(path.resolve())
