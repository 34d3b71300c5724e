"""The zygote, as far as it can be looked at without a jail."""

from __future__ import annotations

import array
import os
import socket

import pytest

from runagentd.launch import zygote
from runagentd.wire import launch as wire

pytestmark = [pytest.mark.root, pytest.mark.kernel]


def test_a_supervisor_that_is_killed_meanwhile_is_an_end_without_a_word(capfd: pytest.CaptureFixture[str]) -> None:
    """A traceback would stand in the middle of a log of JSON, and look like a fault of the zygote's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    lifeline, writer = os.pipe()
    request = wire.REQUEST.pack(wire.REQUEST_MAGIC, wire.HOLD, 0, 0, 0, 1)
    ours.sendmsg([request], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [lifeline]))])
    ours.close()
    child = os.fork()
    if child == 0:
        try:
            os.close(writer)
            zygote._serve(theirs, -1, zygote._open_descriptors())
        finally:
            os._exit(1)
    theirs.close()
    os.close(lifeline)
    os.close(writer)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert capfd.readouterr() == ("", "")
