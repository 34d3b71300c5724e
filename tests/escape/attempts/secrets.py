"""Attempts to learn what was not meant for us: environments, memory, descriptors, names.

Runs as: see `frame`.
Reads from strangers: nothing.
"""

from __future__ import annotations

import ctypes
import os
import re
import socket
import stat
import sys

from tests.escape.attempts import network
from tests.escape.attempts.frame import Nothing, attempt

AREA = "secrets"

# Each pattern is written so that it does not match its own text, which lies in this process's memory as well.
_SECRETS = {
    "a variable of the host's environment": rb"canary-(?=7f3a)",
    "a private key": rb"-----BEGIN (?=[A-Z ]{0,16}PRIVATE KEY-----)",
    "a token": rb"eyJ[A-Za-z0-9_-]{16,}\.(?=eyJ[A-Za-z0-9_-]{16,}\.)",
}


@attempt(AREA, "nothing")
def read_the_hosts_environment() -> str:
    """What the daemon was started with must not arrive here."""
    expected = {"PATH", "HOME", "LANG", "TMPDIR", "USER", "LOGNAME", "LC_CTYPE", network.LISTENER}
    found = {name for name in os.environ if name not in expected}
    if not found:
        raise Nothing(f"only {', '.join(sorted(os.environ))}")
    return ", ".join(sorted(found))


@attempt(AREA, "nothing EACCES")
def read_what_we_were_started_with() -> str:
    """/proc/self/environ is the environment at exec, whatever was changed since."""
    with open("/proc/self/environ", "rb") as file:
        found = file.read()
    if not found.strip(b"\0"):
        raise Nothing("empty")
    return f"{len(found)} bytes"


def search_memory() -> list[str]:
    """Which kinds of secret lie in our own memory: what a launcher had before it forked is still in its children."""
    found = set()
    with open("/proc/self/maps", encoding="utf-8") as file:
        rows = [line.split() for line in file]
    for row in rows:
        start, end = (int(part, 16) for part in row[0].split("-"))
        # By address: /proc/self/mem cannot be opened by a process that is not dumpable.
        if row[1].startswith("rw") and end - start < 1 << 28:
            text = ctypes.string_at(start, end - start)
            found |= {name for name, pattern in _SECRETS.items() if re.search(pattern, text)}
    return sorted(found)


@attempt(AREA, "nothing")
def search_our_memory() -> str:
    """A fork has all that its parent had: keys, tokens, environment."""
    found = search_memory()
    if not found:
        raise Nothing("no environment, key or token")
    return ", ".join(found)


def _descriptors() -> dict[int, str]:
    """Each open descriptor and what it is, in words that do not change from run to run."""
    found = {}
    listing = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY)
    for name in sorted(os.listdir(listing), key=int):
        number = int(name)
        try:
            mode, target = os.fstat(number).st_mode, os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if number != listing and not target.startswith("/proc/"):
            kind = "socket" if stat.S_ISSOCK(mode) else "pipe" if stat.S_ISFIFO(mode) else target
            found[number] = kind
    os.close(listing)
    return found


EXPECTED_DESCRIPTORS = {0: "/dev/null", 1: "pipe", 2: "pipe", 3: "socket", 4: "socket"}


def _with_a_leak() -> str:
    os.open("/etc", os.O_RDONLY)
    return find_a_forgotten_descriptor()


@attempt(AREA, "nothing", in_runner=True, control=_with_a_leak)
def find_a_forgotten_descriptor() -> str:
    """A descriptor that should have been closed is a way out: CVE-2024-21626 was one. The list must be exact."""
    found = _descriptors()
    if found == EXPECTED_DESCRIPTORS:
        raise Nothing("stdin, stdout, stderr, the channel and the supply of channels")
    return str(found)


@attempt(AREA, "nothing", control=_with_a_leak)
def find_a_descriptor_in_a_child() -> str:
    """A child of the agent's has no business with the runner's channel."""
    found = {number: kind for number, kind in _descriptors().items() if number > 2}
    # Our own answer goes through one pipe.
    if list(found.values()) in ([], ["pipe"]):
        raise Nothing(str(found))
    return str(found)


@attempt(AREA, "nothing", no_control="outside, standard output may be anything")
def find_a_terminal_or_folder_as_standard_stream() -> str:
    """A terminal can be typed into, and a folder leads somewhere."""
    for number in (0, 1, 2):
        path = f"/proc/self/fd/{number}"
        if os.path.isdir(path) or os.readlink(path).startswith("/app"):
            return f"descriptor {number} is {os.readlink(path)}"
        if stat.S_ISCHR(os.stat(path).st_mode) and os.isatty(number):
            return f"descriptor {number} is a terminal"
    raise Nothing("pipes and /dev/null")


@attempt(AREA, "nothing", shares="net")
def learn_the_hosts_name() -> str:
    """The machine's name is information about the network that it is in."""
    found = os.uname().nodename, socket.gethostname()
    if found == ("agent", "agent"):
        raise Nothing("the name is agent")
    return str(found)


@attempt(AREA, "nothing")
def learn_the_hosts_accounts() -> str:
    """/etc/passwd must have one entry, which is ours."""
    with open("/etc/passwd", encoding="utf-8") as file:
        names = [line.split(":")[0] for line in file]
    if names == ["agent"]:
        raise Nothing("only agent")
    return ", ".join(names[:10])


@attempt(AREA, "nothing")
def learn_the_hosts_neighbours() -> str:
    """/etc/hosts and /etc/resolv.conf name other machines."""
    found = [
        path for path in ("/etc/resolv.conf", "/etc/fstab", "/etc/ssh", "/etc/ssl/private") if os.path.exists(path)
    ]
    with open("/etc/hosts", encoding="utf-8") as file:
        found += [line.strip() for line in file if line.split()[1:2] not in ([], ["localhost"])]
    if not found:
        raise Nothing("only localhost")
    return ", ".join(found)


def _with_a_trace() -> str:
    sys.modules["runagentd"] = sys
    return find_traces_of_the_daemon_in_python()


@attempt(AREA, "nothing", control=_with_a_trace)
def find_traces_of_the_daemon_in_python() -> str:
    """Nothing of the runner may show to the agent's own Python."""
    loaded = [name for name in sys.modules if name.partition(".")[0] == "runagentd"]
    paths = [path for path in sys.path if "runagentd" in path]
    if not loaded and not paths:
        raise Nothing("no module and no path")
    return f"{loaded} {paths}"
