"""The zygote: a warm interpreter that forks spares, and nothing else.

Runs as: root with five capabilities, exec'd with an empty environment inside a read-only base jail; one thread.
Reads from strangers: nothing. Requests are 32 bytes and descriptors from the supervisor; it never maps a plan.
It must never hold a secret or a tenant's data, have pid 1 or 2, or a second thread (docs/sandbox.md).
"""

from __future__ import annotations

import array
import gc
import importlib
import os
import select
import signal
import socket
import ssl
import sys
import types
from typing import NoReturn

from runagentd import kernel
from runagentd.launch import rehearsal as launch_rehearsal
from runagentd.launch import spare, steps
from runagentd.runner import rehearsal
from runagentd.wire import launch as wire

PRELOADED = (
    "asyncio", "base64", "collections.abc", "concurrent.futures", "contextlib", "contextvars", "copy", "csv",
    "dataclasses", "datetime", "decimal", "enum", "fractions", "functools", "hashlib", "html", "inspect", "io",
    "itertools", "json", "logging", "math", "operator", "os.path", "pathlib", "pickle", "queue", "random", "re",
    "secrets", "shutil", "signal", "sqlite3", "ssl", "statistics", "string", "struct", "subprocess", "tempfile",
    "textwrap", "threading", "time", "traceback", "typing", "unicodedata", "urllib.parse", "uuid", "zoneinfo",
)  # fmt: skip
"""What agents import most, of the standard library only: an import costs milliseconds here and nothing in a fork."""

_DESCRIPTORS_MAX = 128
_LOST_STATUS = 70


class ZygoteUnfit(Exception):
    """The zygote is not in a state in which it may fork."""


def main(control: int) -> NoReturn:
    """Serve requests from the supervisor on `control` until it closes."""
    if os.getpid() <= 2:
        # OpenSSL notices a fork by comparing pids: a zygote with the pid that its children get gives them all the
        # same keys (measured).
        raise ZygoteUnfit("the zygote must not have the pid that its children get")
    for name in PRELOADED:
        importlib.import_module(name)
    sys.modules["__main__"] = types.ModuleType("__main__")
    kernel.set_process_name("zygote")
    os.umask(0o022)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    own_pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    rehearsal.rehearse_often()
    launch_rehearsal.rehearse_often()
    # Its generators are made with the first random bytes, which takes a millisecond. Each fork seeds them anew: by the
    # step `reseed`, and OpenSSL by itself when it sees another pid.
    ssl.RAND_bytes(1)
    gc.disable()
    gc.freeze()  # pages of objects that live for ever stay shared with the children (measured: 2.2 MB for 5.2)
    children = kernel.signal_descriptor([signal.SIGCHLD])
    poll = select.poll()
    with socket.socket(fileno=control) as connection:
        poll.register(connection, select.POLLIN)
        poll.register(children, select.POLLIN)
        known = _open_descriptors()
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == children:
                    os.read(children, 128)
                    _reap()
                else:
                    _serve(connection, own_pid_namespace, known)


def _serve(connection: socket.socket, own_pid_namespace: int, known: set[int]) -> None:
    try:
        _answer(connection, own_pid_namespace, known)
    except (BrokenPipeError, ConnectionResetError):
        # The supervisor was killed meanwhile, and that is no fault of ours: what was forked for it ends with its
        # lifeline, which has no writer any more.
        os._exit(0)


def _answer(connection: socket.socket, own_pid_namespace: int, known: set[int]) -> None:
    message, ancillary, flags, _ = connection.recvmsg(
        wire.REQUEST.size, socket.CMSG_SPACE(_DESCRIPTORS_MAX * 4), socket.MSG_CMSG_CLOEXEC
    )
    if not message:
        os._exit(0)
    descriptors = kernel.received_descriptors(ancillary)
    if len(message) != wire.REQUEST.size or flags & socket.MSG_CTRUNC:
        raise ZygoteUnfit("the supervisor sent something that is not a request")
    magic, kind, new_pid_namespace, has_v2, v1, token = wire.REQUEST.unpack(message)
    wanted = 1 if kind == wire.HOLD else len(wire.SPARE_DESCRIPTORS) + has_v2 + v1
    if magic != wire.REQUEST_MAGIC or kind not in (wire.FORK, wire.HOLD) or len(descriptors) < wanted:
        raise ZygoteUnfit("the supervisor sent something that is not a request")
    if len(os.listdir("/proc/self/task")) != 1:
        raise ZygoteUnfit("the zygote has more than one thread")
    pidfds: list[int] = []
    try:
        if kind == wire.HOLD:
            pid, pidfd = _hold_user_namespace(descriptors[0])
        else:
            pid, pidfd = _fork_spare(descriptors, own_pid_namespace, bool(new_pid_namespace), has_v2, v1)
        pidfds.append(pidfd)
        reply = wire.REPLY.pack(wire.REPLY_MAGIC, 0, token, pid)
    except OSError as error:
        reply = wire.REPLY.pack(wire.REPLY_MAGIC, error.errno or 1, token, 0)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", pidfds))] if pidfds else []
    connection.sendmsg([reply], rights)
    for descriptor in (*pidfds, *descriptors):
        os.close(descriptor)
    if _open_descriptors() != known:
        raise ZygoteUnfit("the zygote's descriptors changed")


def _fork_spare(
    descriptors: list[int], own_pid_namespace: int, new_pid_namespace: bool, has_v2: int, v1: int
) -> tuple[int, int]:
    """Fork the future reaper, in its v2 cgroup where there is one; gives its pid and pidfd."""
    named = len(wire.SPARE_DESCRIPTORS)
    v2, entrances = descriptors[named : named + has_v2], descriptors[named + has_v2 :][:v1]
    if v2 and kernel.thread_id_address():
        flags = kernel.CLONE_NEWPID if new_pid_namespace else 0
        pid, pidfd = kernel.fork_alone(flags=flags, cgroup=v2[0])
    else:
        entrances += [os.open("cgroup.procs", os.O_WRONLY | os.O_CLOEXEC, dir_fd=directory) for directory in v2]
        pid, pidfd = _fork(own_pid_namespace, new_pid_namespace)
        if pid:
            for descriptor in entrances[len(entrances) - len(v2) :]:
                os.close(descriptor)
    if pid == 0:
        try:
            for directory in v2:
                os.close(directory)
            spare.run(
                steps.Launch(
                    descriptors=dict(zip(wire.SPARE_DESCRIPTORS, descriptors[:named], strict=True)),
                    cgroup_entrances=entrances,
                    mounts=descriptors[named + has_v2 + v1 :],
                )
            )
        finally:
            os._exit(_LOST_STATUS)  # nothing may unwind from here into the zygote's loop, which would then run twice
    return pid, pidfd


def _fork(own_pid_namespace: int, new_pid_namespace: bool) -> tuple[int, int]:
    """fork(2), and a pidfd in the parent. unshare(2) moves the next child only, setns(2) undoes it."""
    pid = -1
    if new_pid_namespace:
        kernel.unshare(kernel.CLONE_NEWPID)
    try:
        pid = os.fork()
    finally:
        if new_pid_namespace and pid:
            kernel.setns(own_pid_namespace, kernel.CLONE_NEWPID)
    # Before anybody could have reaped it: we are its parent and have not waited.
    return pid, os.pidfd_open(pid) if pid else -1


def _hold_user_namespace(lifeline: int) -> tuple[int, int]:
    """Fork a process in a user namespace that waits to be killed, so that the supervisor can map that namespace."""
    if kernel.thread_id_address():
        pid, pidfd = kernel.fork_alone(flags=kernel.CLONE_NEWUSER)
        if pid == 0:
            _wait_to_be_killed(lifeline)
        return pid, pidfd
    ready, made = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            kernel.unshare(kernel.CLONE_NEWUSER)
            os.write(made, b"1")
            _wait_to_be_killed(lifeline)
        finally:
            os._exit(0)
    os.close(made)
    try:
        if os.read(ready, 1) != b"1":
            os.waitpid(pid, 0)
            raise OSError(1, "no user namespace")
    finally:
        os.close(ready)
    return pid, os.pidfd_open(pid)


def _wait_to_be_killed(lifeline: int) -> NoReturn:
    """Until the supervisor does it, or is gone itself."""
    try:
        os.read(lifeline, 1)
    finally:
        os._exit(0)


def _reap() -> None:
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return


def _open_descriptors() -> set[int]:
    listing = os.listdir("/proc/self/fd")
    found = set()
    for name in listing:
        try:
            os.fstat(int(name))
        except OSError:
            continue
        found.add(int(name))
    return found
