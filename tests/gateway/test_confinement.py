"""What the gateway cannot do once it serves, tried in a process that has confined itself as the gateway does."""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runagentd import confinement
from runagentd.supervise import libseccomp
from tests import bpf

ROOT = Path(__file__).resolve().parents[2]
UID = 1879179263 - 7

ATTEMPTS = """
import ctypes, errno, json, os, platform, socket, sys
from runagentd import confinement, kernel
from runagentd.gateway.confinement import confine

there, address = socket.create_server(("127.0.0.1", 0)), ("127.0.0.1", int(sys.argv[1]))
accepted = socket.create_connection(address)
fresh = {name: socket.socket(family, kind) for name, family, kind in (
    ("tcp", socket.AF_INET, socket.SOCK_STREAM), ("tcp6", socket.AF_INET6, socket.SOCK_STREAM),
    ("udp", socket.AF_INET, socket.SOCK_DGRAM), ("unix", socket.AF_UNIX, socket.SOCK_STREAM))}
if sys.argv[2] == "confined":
    confine(int(sys.argv[3]), int(sys.argv[3]))
found = {}

def attempt(name, act):
    try:
        act()
        found[name] = "done"
    except OSError as error:
        found[name] = errno.errorcode[error.errno]

libc = ctypes.CDLL(None, use_errno=True)
number = {name: both[platform.machine() == "aarch64"] for name, both in confinement.REFUSED.items()}

def call(*arguments):
    if libc.syscall(*arguments) == -1:
        raise OSError(ctypes.get_errno(), "")

attempt("connect over TCP", lambda: fresh["tcp"].connect(address))
attempt("connect over TCP, IPv6", lambda: fresh["tcp6"].connect(("::ffff:127.0.0.1", address[1])))
attempt("connect over UDP", lambda: fresh["udp"].connect(address))
attempt("connect to a Unix socket", lambda: fresh["unix"].connect(sys.argv[4]))
attempt("connect an accepted socket elsewhere (AF_UNSPEC)", lambda: (
    call(number["connect"], accepted.fileno(), bytes(16), 16)))
attempt("connect by sending (MSG_FASTOPEN)", lambda: (
    there.shutdown(socket.SHUT_RDWR), there.sendto(b"x", 0x20000000, address)))
attempt("connect by sending a message (MSG_FASTOPEN)", lambda: there.sendmsg([b"x"], [], 0x20000000, address))
attempt("make a socket", lambda: socket.socket().close())
attempt("listen elsewhere", lambda: fresh["tcp"].bind(("127.0.0.1", 0)))
attempt("start a process", lambda: os._exit(0) if os.fork() == 0 else os.wait())
attempt("become a program", lambda: os.execv("/proc/self/fd/999", ["x"]))
attempt("trace", lambda: call(number["ptrace"], 0, 0, 0, 0))
attempt("leave a namespace", lambda: kernel.unshare(kernel.CLONE_NEWNET))
attempt("io_uring", lambda: call(number["io_uring_setup"], 1, 0))
attempt("send to who has connected", lambda: accepted.sendto(b"x", socket.MSG_NOSIGNAL, address))
attempt("make a pair of sockets", lambda: [end.close() for end in socket.socketpair()])
print(json.dumps(found))
"""


def attempts(tmp_path: Path, how: str) -> dict[str, Any]:
    """What became of each. Any: JSON."""
    listener = socket.create_server(("127.0.0.1", 0))
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(tmp_path / "s"))
    os.chmod(tmp_path / "s", 0o777)
    unix.listen()
    try:
        done = subprocess.run(
            [sys.executable, "-c", ATTEMPTS, str(listener.getsockname()[1]), how, str(UID), str(tmp_path / "s")],
            cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
    finally:
        listener.close()
        unix.close()
    found: dict[str, Any] = json.loads(done.stdout)
    return found


STILL = ("send to who has connected", "make a pair of sockets")


def test_a_confined_gateway_connects_to_nothing_and_starts_nothing(tmp_path: Path) -> None:
    """Neither by connect(2) nor by the ways around it; what it needs still works."""
    found = attempts(tmp_path, "confined")
    assert [name for name in found if name in STILL] == list(STILL)
    assert {name: found[name] for name in STILL} == dict.fromkeys(STILL, "done")
    assert {name: value for name, value in found.items() if value != "EPERM"} == dict.fromkeys(STILL, "done")


def test_without_the_confinement_it_could(tmp_path: Path) -> None:
    """The same attempts: else the test above would show nothing."""
    found = attempts(tmp_path, "free")
    for name in (
        "connect over TCP", "connect over UDP", "connect to a Unix socket", "make a socket", "start a process",
        "connect an accepted socket elsewhere (AF_UNSPEC)", "leave a namespace",
    ):  # fmt: skip
        assert found[name] == "done", name
    assert "EPERM" not in found.values()


def test_the_numbers_are_those_of_libseccomp() -> None:
    """On the architecture that this machine has."""
    column = {"x86_64": 0, "aarch64": 1}[platform.machine()]
    for name, numbers in {**confinement.REFUSED, **confinement._ABSENT}.items():
        assert numbers[column] == libseccomp.resolve(name), name
    for name, sending in confinement._SENDING.items():
        assert sending[column] == libseccomp.resolve(name), name


@pytest.mark.parametrize(("machine", "arch", "column"), [("x86_64", 0xC000003E, 0), ("aarch64", 0xC00000B7, 1)])
def test_the_program_refuses_what_is_listed_and_allows_all_else(machine: str, arch: int, column: int) -> None:
    """As an interpreter of our own runs it, for both architectures."""
    program = confinement.program(machine)
    refused = {numbers[column] for numbers in confinement.REFUSED.values()} - {None}
    for number in range(600):
        expected = "ENOSYS" if number == 435 else "EPERM" if number in refused else "allow"
        assert bpf.outcome(program, arch, number) == expected, number
    for call, flags in ((confinement._SENDING["sendto"], 3), (confinement._SENDING["sendmsg"], 2)):
        arguments = [0] * 6
        arguments[flags] = 0x20004000
        assert bpf.outcome(program, arch, call[column], arguments) == "EPERM"
        arguments[flags] = 0x4000
        assert bpf.outcome(program, arch, call[column], arguments) == "allow"
    assert bpf.outcome(program, 0x40000003, 1) == "kill-process"
    if machine == "x86_64":
        assert bpf.outcome(program, arch, 0x40000000 | 42) == "kill-process"


def test_a_machine_without_numbers_is_not_served_unconfined() -> None:
    """Fail closed."""
    with pytest.raises(KeyError):
        confinement.program("riscv64")


@pytest.mark.parametrize("status", [{"Seccomp": "0"}, {"Seccomp": "2"}])
def test_it_refuses_to_serve_without_its_filter(status: dict[str, str]) -> None:
    """Not by what /proc says alone: this process can leave its namespaces."""
    with pytest.raises(PermissionError):
        confinement.look_at_filter(status)
