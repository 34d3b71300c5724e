"""What the launcher gives to the runner: open descriptors, the manifest, and the limits of calls.

Runs as: the launcher makes one, the runner takes it, in the same process.
Reads from strangers: nothing; the manifest in it is still bytes and is checked by `wire.record`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a policy's `calls` table says that the runner needs."""

    concurrency: int
    result_bytes: int
    cancel_grace_ms: int
    """After this the gateway gives an instance up; the runner has no clock of its own for it."""
    traceback: bool
    """whether the agent's traceback goes to the caller"""
    isolated: bool
    """whether each call has a process of its own"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """Everything that the runner starts with."""

    channel_fd: int
    """AF_UNIX SOCK_STREAM to the gateway: frames of `wire.channel`."""
    supply_fd: int
    """AF_UNIX SOCK_SEQPACKET from the supervisor: each new channel is one byte "C" and a descriptor."""
    ready_fd: int
    """A pipe: one byte "R" once the agent was imported and every entrypoint is fine."""
    manifest: bytes
    """A record of `wire.manifest.Manifest`."""
    limits: Limits
    app_path: str = "/app"
    environment: str = ""
    """a folder of libraries; empty for none"""
    scratch: tuple[str, ...] = ()
    """folders that are emptied after each call that has a process of its own"""
