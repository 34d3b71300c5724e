"""Start the supervisor: take what was inherited, close the doors behind it, serve.

Runs as: root. Under systemd or the foreman alike; descriptors come as LISTEN_FDS: admin, lifeline,
settings (SOCK_SEQPACKET, see `wire.settings`) and egress (SOCK_SEQPACKET, see `wire.packages`).
Reads from strangers: nothing here.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import functools
import os
import resource
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from runagentd import inherited, kernel, received, state
from runagentd.errors import UNFIT_STATUS, HostError
from runagentd.log import Log, add_options, from_options
from runagentd.plan.syscalls import shipped_table
from runagentd.supervise import cgroup, hostfacts, libseccomp
from runagentd.supervise.mounts import MountMaker
from runagentd.supervise.store import Store
from runagentd.supervise.supervisor import Options, Supervisor
from runagentd.uids import Leases
from runagentd.wire import packages, record
from runagentd.wire.settings import SupervisorSettings

# What is left of root's powers.
# CHOWN, DAC_OVERRIDE, FOWNER: snapshots and persistent folders. KILL: instances have other uids.
# SETUID, SETGID, SETPCAP: uid maps, and the zygote and the loader, who give them up. SYS_CHROOT: the loader's root.
# NET_BIND_SERVICE: port 443 on lo of a builder.
# SYS_ADMIN: mounts and namespaces. NET_ADMIN: lo of an instance, large socket buffers. MKNOD: the devices in /dev.
# SYS_PTRACE: the namespace of the holder of a user namespace, and mountinfo of a runner that is not dumpable.
CAPABILITIES = (
    kernel.CAP_CHOWN,
    kernel.CAP_DAC_OVERRIDE,
    kernel.CAP_FOWNER,
    kernel.CAP_KILL,
    kernel.CAP_SETGID,
    kernel.CAP_SETUID,
    kernel.CAP_SETPCAP,
    kernel.CAP_NET_BIND_SERVICE,
    kernel.CAP_NET_ADMIN,
    kernel.CAP_SYS_CHROOT,
    kernel.CAP_SYS_PTRACE,
    kernel.CAP_SYS_ADMIN,
    kernel.CAP_MKNOD,
)


def main() -> int:
    """Run the supervisor; the exit status is 0 after a clean end, 1 where this host cannot run it."""
    parser = argparse.ArgumentParser(prog="runagentd-supervisor")
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--loader-uid", type=int, required=True)
    parser.add_argument("--spares", type=int, default=1)
    parser.add_argument("--standbys", type=int, default=0)
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--sweep", action="store_true", help="only remove what a supervisor that was killed has left")
    add_options(parser)
    arguments = parser.parse_args()
    descriptors = inherited.descriptors(os.environ)
    os.environ.clear()
    log = from_options(arguments, source="supervisor")
    try:
        if arguments.sweep:
            _sweep(arguments.state_dir)
        else:
            asyncio.run(_serve(arguments, descriptors, log))
    except HostError as error:
        log.error("the supervisor cannot start", problem=str(error))
        return UNFIT_STATUS
    return 0


def _sweep(place: Path) -> None:
    cgroups = cgroup.open_host(state.open_existing(place).id)
    cgroups.sweep()
    cgroups.remove()


async def _serve(arguments: argparse.Namespace, descriptors: dict[str, int], log: Log) -> None:
    directory = state.open_existing(arguments.state_dir)
    if "admin" not in descriptors:
        raise HostError("the supervisor was not given its admin socket", "start it by 'runagentd serve' or systemd")
    libseccomp.version()
    store = Store(directory.path)
    # About ten descriptors an instance: the soft limit of 1,024 would end at a hundred.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    facts = hostfacts.gather(directory.path)
    if not facts.idmapped_mounts:
        # Snapshots lie there with root's ownership and appear inside with the agent's (mount_setattr(2)).
        raise HostError(
            f"{directory.path}: this file system has no idmapped mounts",
            "put the state directory on ext4, XFS or Btrfs; tmpfs has them since Linux 6.3",
        )
    # An empty network namespace, never a seccomp filter: that would be inherited by every instance below.
    kernel.unshare(kernel.CLONE_NEWNET)
    kernel.keep_capabilities(CAPABILITIES, kernel.last_capability())
    kernel.set_child_subreaper()
    mounts = MountMaker(str(directory.path / "scratch"))
    cgroups = cgroup.open_host(directory.id)
    cgroups.sweep()
    egress = socket.socket(fileno=descriptors["egress"]) if "egress" in descriptors else None
    supervisor = Supervisor(
        state=directory,
        store=store,
        options=Options(
            loader_uid=arguments.loader_uid,
            spares=arguments.spares,
            standbys=arguments.standbys,
            fresh=arguments.fresh,
        ),
        facts=facts,
        cgroups=cgroups,
        leases=Leases.open(directory.id),
        mounts=mounts,
        syscalls=shipped_table(),
        admin_listener=socket.socket(fileno=descriptors["admin"]),
        relay=functools.partial(_relay, egress),
        log=log,
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, supervisor.stop)
    if "lifeline" in descriptors:
        # The foreman is gone: nobody would restart us, and nobody would end us.
        loop.add_reader(descriptors["lifeline"], supervisor.stop)
    if "settings" in descriptors:
        _take_settings(socket.socket(fileno=descriptors["settings"]), supervisor, log)
    await supervisor.run()


def _relay(egress: socket.socket | None, message: packages.Relay, descriptors: Sequence[int]) -> None:
    """OSError where nobody takes it."""
    if egress is None:
        raise OSError(errno.ENOTCONN, "there is no egress process")
    socket.send_fds(egress, [packages.pack(message)], list(descriptors), socket.MSG_DONTWAIT)


def _take_settings(link: socket.socket, supervisor: Supervisor, log: Log) -> None:
    """Those of now are there already; others come when the operator's file is read again."""
    loop = asyncio.get_running_loop()
    link.setblocking(False)

    def take() -> None:
        try:
            found = received.receive(link, SupervisorSettings)
        except (record.RecordError, OSError) as error:
            log.error("new settings cannot be read; those before stay", problem=str(error))
            return
        if found is None:
            loop.remove_reader(link)  # the foreman is gone, and the lifeline says so, too
            return
        settings, files = found
        for descriptor in files.values():
            os.close(descriptor)
        supervisor.configure(settings)

    take()
    loop.add_reader(link, take)


if __name__ == "__main__":
    sys.exit(main())
