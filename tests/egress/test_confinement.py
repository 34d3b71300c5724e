"""What the egress process can and cannot do once it fetches, tried in a process that has confined itself as it does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runagentd import confinement
from tests import bpf
from tests.issuer import Issuer

ROOT = Path(__file__).resolve().parents[2]
UID = 1879179263 - 8
pytestmark = [pytest.mark.root]

ATTEMPTS = """
import errno, json, os, socket, sys, threading
import uvloop
from runagentd import kernel
from runagentd.egress.__main__ import confine
from runagentd.egress.fetch import FetchError, fetch
from runagentd.egress.keys import keys_of
from runagentd.wire.settings import IssuerSource

how, uid, url, ca, unix = sys.argv[1], int(sys.argv[2]), sys.argv[3], open(sys.argv[4], "rb").read(), sys.argv[5]
if how == "confined":
    confine(uid, uid)
found = {}

def attempt(name, act):
    try:
        act()
        found[name] = "done"
    except OSError as error:
        found[name] = errno.errorcode[error.errno]

def source(jwks):
    return IssuerSource(
        name="a", source="s", issuer=url, jwks=jwks, algorithms=("RS256",), ca=ca, refresh=3600, stale=86400
    )

def resolve():
    # A certificate for another name is what is refused then, so somebody was connected to.
    try:
        uvloop.run(fetch(source(url.replace("127.0.0.1", "localhost"))))
    except FetchError as error:
        if "ertificate" not in str(error):
            raise OSError(errno.EHOSTUNREACH, str(error)) from error

attempt("fetch keys", lambda: keys_of(uvloop.run(fetch(source(""))), ("RS256",)))
attempt("look a name up", resolve)
attempt("start a thread", lambda: threading.Thread(target=int).start())
attempt("make a pair of sockets", lambda: [end.close() for end in socket.socketpair()])
attempt("listen", lambda: socket.socket().bind(("127.0.0.1", 0)))
attempt("talk to a socket with a path", lambda: socket.socket(socket.AF_UNIX).connect(unix))
attempt("talk to the kernel over netlink", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close())
attempt("see every packet", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close())
attempt("start a process", lambda: os._exit(0) if os.fork() == 0 else os.wait())
attempt("become a program", lambda: os.execv("/proc/self/fd/999", ["x"]))
attempt("leave a namespace", lambda: kernel.unshare(kernel.CLONE_NEWNET))
print(json.dumps(found))
"""
STILL = ("fetch keys", "look a name up", "start a thread", "make a pair of sockets")


@pytest.fixture
def issuer(tmp_path: Path) -> Iterator[Issuer]:
    one = Issuer(tmp_path / "issuer")
    yield one
    one.close()


def attempts(issuer: Issuer, tmp_path: Path, how: str) -> dict[str, str]:
    """What became of each."""
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(tmp_path / "s"))
    os.chmod(tmp_path / "s", 0o777)
    unix.listen()
    try:
        done = subprocess.run(
            [sys.executable, "-c", ATTEMPTS, how, str(UID), issuer.url, str(issuer.ca), str(tmp_path / "s")],
            cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    finally:
        unix.close()
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)  # Any: JSON
    return found


def test_a_confined_egress_process_fetches_and_does_nothing_else(issuer: Issuer, tmp_path: Path) -> None:
    """It listens nowhere, starts nothing, and reaches no socket but the internet's."""
    found = attempts(issuer, tmp_path, "confined")
    assert {name: value for name, value in found.items() if value != "EPERM"} == dict.fromkeys(STILL, "done")
    assert len(found) == 11


def test_without_the_confinement_it_could(issuer: Issuer, tmp_path: Path) -> None:
    """The same attempts: else the test above would show nothing."""
    found = attempts(issuer, tmp_path, "free")
    for name in (
        *STILL, "listen", "talk to a socket with a path", "talk to the kernel over netlink", "see every packet",
        "start a process", "leave a namespace",
    ):  # fmt: skip
        assert found[name] == "done", name
    assert "EPERM" not in found.values()


@pytest.mark.parametrize(("machine", "arch", "column"), [("x86_64", 0xC000003E, 0), ("aarch64", 0xC00000B7, 1)])
def test_sockets_are_of_the_families_that_are_listed(machine: str, arch: int, column: int) -> None:
    """As an interpreter of our own runs the filter, for both architectures; the other calls are as without families."""
    program = confinement.program(machine, allowed=("socket", "connect"), threads=True, families=(2, 10))
    plain = confinement.program(machine, allowed=("socket", "connect"), threads=True)
    call = confinement.REFUSED["socket"][column] or 0
    for family in range(64):
        assert bpf.outcome(program, arch, call, [family]) == ("allow" if family in (2, 10) else "EPERM"), family
    for number in set(range(600)) - {call}:
        assert bpf.outcome(program, arch, number) == bpf.outcome(plain, arch, number), number
