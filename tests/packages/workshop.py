"""A real builder with the real installer, for tests that have it install what they made; nothing is downloaded."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from runagentd import interpreters, kernel
from runagentd.egress.relay import Relays
from runagentd.interpreters import program_interpreter
from runagentd.log import Form, Log
from runagentd.plan.seccomp import builder_filter
from runagentd.plan.syscalls import shipped_table
from runagentd.supervise import cgroup, libseccomp, snapshot
from runagentd.supervise.build import Bounds, Builder, installer
from runagentd.uids import Leases
from runagentd.wire import build, packages
from runagentd.wire.runtime import PythonRuntime

MIB = 1024 * 1024
UID_BASE = 1_950_000_000
RULES = snapshot.Rules(
    what="the environment",
    entries_max=1000,
    entries_hint="name fewer packages",
    path_bytes_max=10**7,
    path_bytes_hint="",
    bytes_max=64 * MIB,
    bytes_hint="raise packages.size",
    owner=0,
    left_out=frozenset(),
    strict=True,
)


@dataclass
class Workshop:
    """A builder, and what it did."""

    builder: Builder
    place: Path
    wheels: Path
    uids: Leases
    host: cgroup.CgroupHost
    python: PythonRuntime
    told: list[build.Progress] = field(default_factory=list)
    relayed: list[packages.Relay] = field(default_factory=list)
    links: list[socket.socket] = field(default_factory=list)

    def install(
        self,
        requirements: str,
        *,
        source: bool = False,
        at: str = "",
        hosts: Sequence[tuple[str, int]] = (),
        size: int = 64 * MIB,
        files: int = 4000,
        seconds: float = 60,
        rules: snapshot.Rules = RULES,
    ) -> snapshot.Snapshot:
        """What `requirements` ask for, from the folder `wheels`, or from the index `at`."""

        async def take(site: int) -> snapshot.Snapshot:
            return snapshot.take(site, self.place, rules=rules)

        return self.run(
            self.job(requirements, source=source, at=at, hosts=hosts),
            take,
            Bounds(size=size, files=files, seconds=seconds),
        )

    def job(
        self, requirements: str, *, source: bool = False, at: str = "", hosts: Sequence[tuple[str, int]] = ()
    ) -> build.BuildJob:
        return build.BuildJob(
            files=(build.RequirementsFile(name="requirements.txt", content=requirements.encode()),),
            index=at,
            hosts=tuple(build.Host(name=name, port=port, address=name) for name, port in hosts),
            authorities=b"",
            wheels=not at,
            source=source,
            installer=installer(),
            loader=program_interpreter(installer()),
            interpreter=self.python.interpreter,
            target="/env",
        )

    def run(
        self, job: build.BuildJob, take: Callable[[int], Awaitable[snapshot.Snapshot]], bounds: Bounds
    ) -> snapshot.Snapshot:
        async def main() -> snapshot.Snapshot:
            wheels = os.open(self.wheels, os.O_RDONLY | os.O_DIRECTORY) if job.wheels else None
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self.links.append(ours)
            allowed = [packages.Target(host=host.name, port=host.port) for host in job.hosts]
            Relays(theirs, lambda: allowed, Log(sys.stderr, source="test", form=Form.TEXT)).start()
            try:
                return await self.builder.install(
                    job,
                    runtime=self.python,
                    wheels=wheels,
                    bounds=bounds,
                    progress=self.told.append,
                    take=take,
                )
            finally:
                asyncio.get_running_loop().remove_reader(theirs)
                theirs.close()
                self.links.pop().close()
                if wheels is not None:
                    os.close(wheels)

        return asyncio.run(main())

    @property
    def fetching(self) -> bool:
        """Whether it is known what is to be fetched: before, the installer looks into wheels for what they require."""
        return any(far.phase is build.Phase.FETCHING for far in self.told)

    def relay(self, message: packages.Relay, descriptors: Sequence[int]) -> None:
        self.relayed.append(message)
        socket.send_fds(self.links[-1], [packages.pack(message)], list(descriptors))

    def nothing_is_left(self) -> bool:
        """No cgroup, and no process with a uid of ours; the dead, whom their parent has not reaped, do not count."""
        ours, owners = range(UID_BASE, UID_BASE + 65536), set()
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                status = kernel.status_fields(process.name)
                if not status["State"].startswith("Z"):
                    owners |= {int(uid) for uid in status["Uid"].split()}
        return self.host.groups() == [] and not owners & set(ours)


@contextlib.contextmanager
def opened(tmp_path: Path) -> Iterator[Workshop]:
    """Nothing of any builder is left when it ends."""
    host = cgroup.open_host(secrets.token_hex(8), foreman=os.getpid())
    uids = Leases.open(secrets.token_hex(8), directory=str(tmp_path / "uids"), uid_base=UID_BASE)
    for name in ("jail", "wheels", "place"):
        (tmp_path / name).mkdir()
    tmp_path.chmod(0o755)
    builder = Builder(
        cgroups=host,
        leases=uids,
        program=lambda: libseccomp.compile(builder_filter(shipped_table())),
        jail=tmp_path / "jail",
        relay=lambda message, descriptors: shop.relay(message, descriptors),
        log=Log(sys.stderr, source="test", form=Form.TEXT),
    )
    shop = Workshop(
        builder=builder,
        place=tmp_path / "place",
        wheels=tmp_path / "wheels",
        uids=uids,
        host=host,
        python=interpreters.find(),
    )
    try:
        yield shop
        end = time.monotonic() + 5  # what was killed leaves its cgroup a moment before it is gone
        while not shop.nothing_is_left():
            assert time.monotonic() < end
            time.sleep(0.01)
    finally:
        host.remove()
        uids.close()
