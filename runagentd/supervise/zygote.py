"""The supervisor's end of the zygote: start it, ask it for spares, notice when it is gone.

Runs as: the supervisor.
Reads from strangers: nothing; the zygote and what it forks are ours until an instance's gate opens.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import functools
import itertools
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from runagentd import kernel
from runagentd.plan.model import AGENT_UID
from runagentd.supervise import verify
from runagentd.wire import launch as wire
from runagentd.wire.runtime import PythonRuntime

_REPLY_SECONDS = 10.0
_START = "import sys; sys.path.append(sys.argv[1]); from runagentd.launch.base_jail import main; main(sys.argv[2:])"
_PACKAGE = Path(__file__).resolve().parent.parent


def package() -> Path:
    """The modules that every instance is made with."""
    return _PACKAGE


class ZygoteGone(Exception):
    """The zygote ended, or did not answer in time; a new one will be started."""


@dataclass(slots=True)
class Fork:
    """A process that the zygote made."""

    pid: int
    pidfd: int


class Order:
    """A process that the zygote was asked for; `made` or `forget` must be called, once."""

    def __init__(self, future: asyncio.Future[Fork], over: Callable[[], object]) -> None:
        self._future = future
        self._over = over

    async def made(self) -> Fork:
        """The process. ZygoteGone or OSError where there is none."""
        try:
            async with asyncio.timeout(_REPLY_SECONDS):
                return await self._future
        except TimeoutError as error:
            raise ZygoteGone("the zygote does not answer") from error
        finally:
            self._over()

    def forget(self) -> None:
        """Nobody waits for it any more: what is made, or was made meanwhile, is killed."""
        self._over()
        if self._future.done() and not self._future.cancelled() and self._future.exception() is None:
            _kill_and_close(self._future.result().pidfd)
        self._future.cancel()


class Zygote:
    """One zygote process. It joins the cgroups whose cgroup.procs `procs` are open on; `on_end` is called once.

    OSError where its interpreter cannot be started.
    """

    def __init__(self, python: PythonRuntime, jail: Path, procs: Sequence[int], on_end: Callable[[], None]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        links = [f"{link.path}={link.target}" for link in python.links]
        command = [
            python.interpreter, "-I", "-S", "-E", "-B", "-c",
            _START, str(_PACKAGE.parent),
            str(theirs.fileno()), ",".join(map(str, procs)), str(jail), str(_PACKAGE), python.interpreter,
            *python.paths, "--", *links,
        ]  # fmt: skip
        with theirs:
            try:
                self._process = subprocess.Popen(
                    command,
                    env={},
                    stdin=subprocess.DEVNULL,
                    stdout=sys.stderr.fileno(),
                    pass_fds=[theirs.fileno(), *procs],
                )
            except BaseException:
                ours.close()
                raise
        ours.setblocking(False)
        self._socket = ours
        self._on_end = on_end
        self._tokens = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Fork]] = {}
        self._closed = False
        self.layout = ""
        """where its memory lies, and that of every fork of it; known once it has made one"""
        asyncio.get_running_loop().add_reader(ours, self._receive)

    @property
    def pid(self) -> int:
        return self._process.pid

    @functools.cached_property
    def apart_from(self) -> frozenset[str]:
        """The namespaces of the zygote, which it has for good, and of the supervisor."""
        return verify.namespaces(os.getpid()) | verify.namespaces(self.pid)

    def fork(
        self,
        descriptors: Sequence[int],
        *,
        entrances: Sequence[int],
        v2_directory: int | None,
        mounts: Sequence[int],
        new_pid_namespace: bool,
    ) -> Order:
        """Order a spare: `descriptors` are those of wire.SPARE_DESCRIPTORS. All stay the caller's."""
        v2 = [] if v2_directory is None else [v2_directory]
        given = [*descriptors, *v2, *entrances, *mounts]
        return self._order(wire.FORK, given, int(new_pid_namespace), len(v2), len(entrances))

    async def user_namespace(self, uid: int) -> int:
        """The descriptor of a new user namespace that maps the agent's id to `uid`. ZygoteGone or OSError."""
        lifeline, writer = os.pipe()
        try:
            holder = await self._order(wire.HOLD, [lifeline], 0, 0, 0).made()
            try:
                return _map_user_namespace(holder.pid, holder.pidfd, uid)
            finally:
                _kill_and_close(holder.pidfd)
        finally:
            os.close(lifeline)
            os.close(writer)

    def _order(self, kind: int, descriptors: Sequence[int], new_pid_namespace: int, v2: int, v1: int) -> Order:
        token = next(self._tokens)
        future: asyncio.Future[Fork] = asyncio.get_running_loop().create_future()
        request = wire.REQUEST.pack(wire.REQUEST_MAGIC, kind, new_pid_namespace, v2, v1, token)
        self._waiting[token] = future
        try:
            self._socket.sendmsg([request], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))])
        except OSError as error:
            del self._waiting[token]
            raise ZygoteGone("the zygote does not answer") from error
        return Order(future, lambda: self._waiting.pop(token, None))

    def close(self) -> None:
        """End the zygote; spares and instances that it forked live on."""
        if self._closed:
            return
        self._closed = True
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        self._process.kill()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ZygoteGone("the zygote ended"))
        self._on_end()

    def reaped(self, pid: int) -> bool:
        """Whether `pid` was the zygote's; called where the supervisor reaps."""
        if pid != self._process.pid:
            return False
        self._process.returncode = 0  # already waited for: Popen must not wait again
        self.close()
        return True

    def _receive(self) -> None:
        try:
            message, ancillary, _, _ = self._socket.recvmsg(
                wire.REPLY.size, socket.CMSG_SPACE(8), socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError:
            message, ancillary = b"", []
        if len(message) != wire.REPLY.size:
            self.close()
            return
        descriptors = kernel.received_descriptors(ancillary)
        if not self.layout:
            # Not sooner: until it answers it may still be the process that builds its jail.
            with contextlib.suppress(OSError):
                self.layout = verify.layout(self.pid)
        _, number, token, pid = wire.REPLY.unpack(message)
        future = self._waiting.get(token)
        if future is None or future.done():
            # Nobody waits any more: what was made must not live on.
            for descriptor in descriptors:
                _kill_and_close(descriptor)
        elif number:
            for descriptor in descriptors:
                os.close(descriptor)
            future.set_exception(OSError(number, f"the zygote could not fork: {os.strerror(number)}"))
        else:
            future.set_result(Fork(pid, descriptors[0]))


def _kill_and_close(pidfd: int) -> None:
    """End a process, if it has not ended by itself meanwhile."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)


def _map_user_namespace(holder_pid: int, holder_pidfd: int, uid: int) -> int:
    """Map the agent's id to `uid` and to nothing else (user_namespaces(7)); gives the namespace's descriptor."""
    process = os.open(f"/proc/{holder_pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        maps = {
            name: os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=process)
            for name in ("setgroups", "uid_map", "gid_map")
        }
        try:
            # Only now is it sure that these files belong to the holder and not to a later process of its pid.
            signal.pidfd_send_signal(holder_pidfd, 0)
            os.write(maps["setgroups"], b"deny")
            line = f"{AGENT_UID} {uid} 1\n".encode()
            os.write(maps["uid_map"], line)
            os.write(maps["gid_map"], line)
        finally:
            for descriptor in maps.values():
                os.close(descriptor)
        namespace = os.open("ns/user", os.O_RDONLY | os.O_CLOEXEC, dir_fd=process)
        signal.pidfd_send_signal(holder_pidfd, 0)
        return namespace
    finally:
        os.close(process)
