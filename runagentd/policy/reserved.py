"""The places of the host that no policy can show to an agent, and those that a sandbox fills itself.

Runs as: the supervisor and runagentctl. Pure.
Reads from strangers: nothing; paths that an operator wrote in files.read.
By text alone. A symbolic link or a bind mount that leads to such a place is the plan's to refuse.
"""

from __future__ import annotations

_AUTHORITY = "sockets are authority over the host, however read-only their mount is (unix(7))"
_OWN = "the sandbox makes its own"

_SUBTREES: tuple[tuple[str, str, str], ...] = (
    # connect(2) asks for write permission on the socket, not for a writable mount: the container daemons' sockets,
    # D-Bus and systemd's notify socket all live here, and all of them obey whoever connects.
    ("/run", "sockets of the host's services lie in /run", _AUTHORITY),
    ("/var/run", "it is /run", _AUTHORITY),
    # proc(5): another pid namespace's processes, their memory and environments.
    ("/proc", _OWN, "a policy never shows the host's processes"),
    ("/sys", "it is the host's kernel", "no agent needs it; the cgroup limits are in [resources]"),
    ("/dev", _OWN, "it has null, zero, full, random, urandom and shm"),
    ("/app", _OWN, "it is the agent's own folder"),
    ("/tmp", _OWN, "put what agents may read elsewhere, for example below /srv"),
    ("/boot", "it is the host's kernel", "no agent needs it"),
)  # fmt: skip

_FOLDERS: tuple[tuple[str, str, str], ...] = (
    ("/usr", "files.runtime decides about it", 'write runtime = "system" to show all of it'),
    ("/lib", "files.runtime decides about it", 'write runtime = "system" to show all of it'),
    ("/lib64", "files.runtime decides about it", 'write runtime = "system" to show all of it'),
    ("/bin", "files.runtime decides about it", 'write runtime = "system" to show all of it'),
    ("/sbin", "files.runtime decides about it", 'write runtime = "system" to show all of it'),
    ("/etc", _OWN, "name the files or folders below it that the agent needs"),
    ("/etc/passwd", _OWN, "the agent's has one entry"),
    ("/etc/group", _OWN, "the agent's has one entry"),
    ("/etc/hosts", _OWN, "the agent's has one entry"),
    ("/etc/nsswitch.conf", _OWN, "the agent's reads files only"),
)  # fmt: skip


def reserved(path: str) -> tuple[str, str] | None:
    """Why `path` (absolute, plain) cannot be shown, and what to do instead; None where it can."""
    for place, reason, hint in _SUBTREES:
        if path == place or path.startswith(place + "/"):
            return reason, hint
    for place, reason, hint in _FOLDERS:
        if path == place:
            return reason, hint
    # What contains a reserved place shows it: "/" and "/var".
    for place, _reason, hint in _SUBTREES:
        if path == "/" or place.startswith(path + "/"):
            return f"{place} lies in it", hint
    return None
