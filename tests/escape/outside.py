"""The positive controls: the same attempts where no sandbox is, so that "blocked" inside means something.

Runs as: root, in one throwaway process per control, each in namespaces and on file systems of its own.
Reads from strangers: nothing.

Controls work, and must not harm the machine: each one sees a throwaway copy of the root (an overlay whose upper layer
is a small tmpfs), its own /proc, /dev, /tmp and /app, its own network with nothing but loopback, and process ids that
reach nobody else. What it writes, mounts or kills is gone with it. It is bounded in time, memory and processes.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import stat
import struct
import sys
import tempfile
import time

from tests.escape.attempts import everything, kernel, siblings
from tests.escape.attempts.frame import Attempt, Function, Observation, in_fork, kill, observe

ATTEMPTS = everything.ATTEMPTS

_PRIVATE, _REC, _BIND, _DETACH = 1 << 18, 1 << 14, 1 << 12, 2
_NAMESPACES = ("mnt", "pid", "net", "ipc", "uts")
CANARY = {"CANARY_OF_THE_HOST": "canary-7f3a"}


def control(name: str) -> Observation:
    """What the control of one attempt observes; call it as root, in a process with one thread."""
    one = ATTEMPTS[name]
    if one.control is None:
        raise ValueError(f"{name} has no control: {one.no_control}")
    return _outside(one.control, one.shares)


def control_of_pair(name: str) -> Observation:
    """The same for two siblings: one process leaves something, another one finds it."""
    pair = siblings.PAIRS[name]

    def together() -> str:
        reader, writer = os.pipe()

        def leave() -> None:
            pair.plant()
            os.write(writer, b"planted")
            time.sleep(20)

        other = in_fork(leave)
        os.close(writer)
        try:
            if not os.read(reader, 16):
                raise RuntimeError("nothing was planted")
            return pair.look()
        finally:
            kill(other)

    return _outside(together, ())


def _outside(work: Function, shares: tuple[str, ...]) -> Observation:
    place = tempfile.mkdtemp(prefix="runagentd-control-")
    reader, writer = os.pipe()
    middle = os.fork()
    if middle == 0:
        try:
            os.close(reader)
            _in_namespaces(work, shares, place, writer)
        except BaseException as error:
            _say(writer, Observation(word="broken", detail=f"the world could not be made: {error!r}"))
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as answer:
        said = answer.read()
    kill(middle)
    os.waitpid(middle, 0)
    os.rmdir(place)
    if not said:
        return Observation(word="broken", detail="the control ended without a word")
    word, detail = json.loads(said)
    return Observation(word=word, detail=detail)


def _say(descriptor: int, observation: Observation) -> None:
    os.write(descriptor, json.dumps([observation.word, observation.detail]).encode())


def _in_namespaces(work: Function, shares: tuple[str, ...], place: str, writer: int) -> None:
    os.setsid()
    resource.setrlimit(resource.RLIMIT_CPU, (30, 30))
    flags = 0
    for namespace in _NAMESPACES:
        if namespace not in shares:
            flags |= kernel.CLONE_FLAGS[namespace]
    kernel.call("unshare", flags)
    first = os.fork()
    if first:
        os.close(writer)
        os.waitpid(first, 0)
        return
    # Pid 1 of the new namespace: whatever happens below, the kernel ends all of it with this process.
    signal.alarm(45)
    _private_root(place)
    if "net" not in shares:
        _loopback_up()
    os.environ.update(CANARY, HOME="/app")
    _say(writer, observe(work))


def _mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    kernel.call("mount", source.encode(), target.encode(), kind.encode(), flags, options.encode())


def _private_root(place: str) -> None:
    _mount("none", "/", "", _PRIVATE | _REC)
    _mount("world", place, "tmpfs", 0, "size=320m,mode=0755")
    for folder in ("upper", "work", "root"):
        os.mkdir(f"{place}/{folder}")
    root = f"{place}/root"
    _mount("root", root, "overlay", 0, f"lowerdir=/,upperdir={place}/upper,workdir={place}/work")
    for folder in ("proc", "sys", "dev", "tmp", "app"):
        os.makedirs(f"{root}/{folder}", exist_ok=True)
    _mount("proc", f"{root}/proc", "proc")
    _mount("sys", f"{root}/sys", "sysfs")
    for folder in ("dev", "tmp", "app"):
        _mount(folder, f"{root}/{folder}", "tmpfs", 0, "size=192m")
    os.mkdir(f"{root}/dev/shm")
    for name, minor in (("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)):
        os.mknod(f"{root}/dev/{name}", stat.S_IFCHR | 0o666, os.makedev(1, minor))
    os.chdir(root)
    kernel.call("pivot_root", b".", b".")
    kernel.call("umount2", b".", _DETACH)
    os.chdir("/app")


def _loopback_up() -> None:
    import fcntl
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh", b"lo", 1).ljust(40, b"\0")
        fcntl.ioctl(any_socket.fileno(), 0x8914, request)  # SIOCSIFFLAGS, IFF_UP (netdevice(7))


def judge(one: Attempt, observed: Observation) -> str:
    """ "works", "lacking" (this kernel was built without it), or "fails"."""
    if observed.word in one.sees:
        return "works"
    return "lacking" if observed.word in one.lacks else "fails"


def main(names: list[str]) -> None:
    """One line of JSON for each control: name, word, detail. `--pairs` runs those of the siblings."""
    if names == ["--pairs"]:
        found = ((name, control_of_pair(name)) for name in siblings.PAIRS)
    else:
        wanted = names or [one.name for one in ATTEMPTS.values() if one.control is not None]
        found = ((name, control(name)) for name in wanted)
    for name, observed in found:
        print(json.dumps([name, observed.word, observed.detail]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
