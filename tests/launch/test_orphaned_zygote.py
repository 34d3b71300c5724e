"""The zygote's loop, in a process of its own, when its supervisor is gone."""

from __future__ import annotations

import array
import os
import socket
import subprocess
import sys
from collections.abc import Callable

import pytest

from runagentd.wire import launch as wire

LOOP = """
import os, socket, sys
from runagentd.launch import zygote
zygote._hold_user_namespace = lambda lifeline: (os.getpid(), os.pidfd_open(os.getpid()))
own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
connection = socket.socket(fileno=int(sys.argv[1]))
known = zygote._open_descriptors()
print("ready", flush=True)
sys.stdin.readline()
while True:
    zygote._serve(connection, own, known)
"""
"""What `zygote.main` does after its imports; nothing is made, for that is not what is looked at."""


def ask(ours: socket.socket) -> None:
    """Order the holder of a user namespace."""
    lifeline, writer = os.pipe()
    request = wire.REQUEST.pack(wire.REQUEST_MAGIC, wire.HOLD, 0, 0, 0, 7)
    ours.sendmsg([request], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [lifeline]))])
    os.close(lifeline)
    os.close(writer)


def nothing(ours: socket.socket, go_on: Callable[[], None]) -> None:
    go_on()


def before_the_reply(ours: socket.socket, go_on: Callable[[], None]) -> None:
    ask(ours)


def after_the_reply(ours: socket.socket, go_on: Callable[[], None]) -> None:
    ask(ours)
    go_on()
    assert ours.recv(wire.REPLY.size, socket.MSG_PEEK)


@pytest.mark.parametrize("supervisor", [nothing, before_the_reply, after_the_reply])
def test_a_supervisor_that_is_killed_ends_the_zygote_without_a_word(
    supervisor: Callable[[socket.socket, Callable[[], None]], None],
) -> None:
    """At whatever moment of an order: a traceback would look as if the zygote had been what failed."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-c", LOOP, str(theirs.fileno())]
    with subprocess.Popen(
        command,
        pass_fds=[theirs.fileno()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        theirs.close()
        stdin, stdout, stderr = process.stdin, process.stdout, process.stderr
        assert stdin is not None
        assert stdout is not None
        assert stderr is not None
        assert stdout.readline() == b"ready\n"
        gone_on = False

        def go_on() -> None:
            nonlocal gone_on
            gone_on = True
            stdin.write(b"\n")
            stdin.flush()

        supervisor(ours, go_on)
        ours.close()
        if not gone_on:
            go_on()
        assert process.wait(10) == 0
        assert stderr.read() == b""
