"""`runagentd serve` with a weakened supervisor, on a host that was made as tempting as a host can be.

Runs as: root, in a mount namespace of its own, as the foreman.
Reads from strangers: nothing.
Whatever a protection would keep from an agent is there to be had: limits without bounds, a supplementary group,
a key, and the bait: a folder with a set-user-ID program, a device, and files that only some may read.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import stat
import struct
import sys
from pathlib import Path

from runagentd import kernel
from runagentd.cli import runagentd
from runagentd.foreman import serve
from tests.escape.attempts import kernel as calls
from tests.protections.weakenings import GATEWAY, WEAKENINGS

ROOT = Path(__file__).resolve().parents[2]
_MS_SHARED = 1 << 20

GROUP = 4242
"""A supplementary group of the daemon's, as a careless operator may give it."""
_KEYCTL_JOIN, _KEY_OF_SESSION = 1, -3 & 0xFFFFFFFF
_START = "import sys; sys.path.insert(0, %r); from tests.protections.%s import main; sys.exit(main(%s))"


def main() -> int:
    """`--launcher FOLDER --bait FOLDER [--whole NAME]…`, then the arguments of runagentd."""
    parser = argparse.ArgumentParser(prog="python -m tests.protections.daemon")
    parser.add_argument("--launcher", type=Path, required=True)
    parser.add_argument("--bait", type=Path, required=True)
    parser.add_argument("--whole", action="append", default=[])
    own, rest = parser.parse_known_args()
    _tempt(own.bait)
    python = serve._python

    def weakened(package: str) -> list[str]:
        if package == "gateway" and GATEWAY & {mark for name in own.whole for mark in WEAKENINGS[name].marks}:
            return [sys.executable, "-I", "-c", _START % (str(ROOT), "weakened_gateway", repr(own.whole))]
        if package != "supervise":
            return python(package)
        arguments = f"Path({str(own.launcher)!r}), Path({str(own.bait)!r}), {own.whole!r}"
        return [sys.executable, "-I", "-c", "from pathlib import Path; " + _START % (str(ROOT), "weakened", arguments)]

    serve._python = weakened
    sys.argv = ["runagentd", *rest]
    return runagentd.main()


def _tempt(bait: Path) -> None:
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.mount("none", "/", "none", kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("bait", str(bait), "tmpfs", 0, "size=8m,mode=0755")
    # A later mount below it would appear in every copy that is not private.
    kernel.mount("none", str(bait), "none", _MS_SHARED)
    for name in ("late", "below", "open"):
        (bait / name).mkdir(mode=0o755)
    (bait / "open").chmod(0o777)
    kernel.mount("below", str(bait / "below"), "tmpfs", 0, "size=64k,mode=0755")
    (bait / "below" / "file").write_text("not part of the grant\n")
    _file(bait / "of-root", 0o600, b"root alone may read this\n")
    _file(bait / "of-the-group", 0o640, b"the group may read this\n")
    os.chown(bait / "of-the-group", 0, GROUP)
    os.mknod(bait / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    os.chmod(bait / "zero", 0o666)
    _file(bait / "set-uid", 0o4755, program_that_tells_its_uid())
    os.setgroups([GROUP])
    for name in ("NOFILE", "CORE", "MEMLOCK", "MSGQUEUE", "SIGPENDING", "RTPRIO", "NICE"):
        _raise(getattr(resource, f"RLIMIT_{name}"), {"NOFILE": 65536, "RTPRIO": 99, "NICE": 40}.get(name, 1 << 30))
    calls.call("keyctl", _KEYCTL_JOIN, 0)
    calls.call("add_key", b"user", b"key-of-the-daemon", b"secret", 6, _KEY_OF_SESSION)


def _raise(number: int, limit: int) -> None:
    """As far as we may: beyond the hard limit needs CAP_SYS_RESOURCE, which containers often lack."""
    try:
        resource.setrlimit(number, (limit, limit))
    except ValueError:
        _, hard = resource.getrlimit(number)
        resource.setrlimit(number, (hard, hard))


def _file(path: Path, mode: int, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(mode)


def program_that_tells_its_uid() -> bytes:
    """An ELF program of a few instructions that exits with its effective uid, modulo 256 (elf(5))."""
    if platform.machine() == "x86_64":
        # mov eax, geteuid; syscall; mov edi, eax; mov eax, exit; syscall
        machine, code = 62, bytes.fromhex("b86b000000 0f05 89c7 b83c000000 0f05".replace(" ", ""))
    else:
        # mov x8, geteuid; svc 0; mov x8, exit; svc 0
        words = (0xD2800000 | 175 << 5 | 8, 0xD4000001, 0xD2800000 | 93 << 5 | 8, 0xD4000001)
        machine, code = 183, struct.pack("<4I", *words)
    base, headers = 0x400000, 64 + 56
    size = headers + len(code)
    elf = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    elf += struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, base + headers, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    elf += struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x1000)
    return elf + code


if __name__ == "__main__":
    sys.exit(main())
