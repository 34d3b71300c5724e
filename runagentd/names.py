"""The names that processes pass to each other, as types that cannot be confused.

Runs as: every process.
Reads from strangers: nothing; the constructors below check text that strangers chose.
Nothing here may become a path, a cgroup name or a host name: those are made from digests (`storage_name`).
"""

from __future__ import annotations

import hashlib
import uuid
from typing import NewType

AgentId = NewType("AgentId", str)
"""What a configuration calls `agent_id`, or the UUIDv5 of its name: any text of 1 to 200 characters."""

InstanceId = NewType("InstanceId", str)
"""One running sandbox: 16 lower-case hexadecimal digits, chosen by the supervisor at random."""

Tag = NewType("Tag", str)
"""The name of an entrypoint: any text of 1 to 200 characters, unique within its agent."""

NAME_MAX = 200
NAME_RULE = f"1 to {NAME_MAX} printable characters"
_NAMESPACE = uuid.UUID("5f0b1f0e-6c0e-5a8e-9d0a-8f6a3d6f7c11")
_NULL_ID = "00000000-0000-0000-0000-000000000000"


def is_name(text: str) -> bool:
    """Whether an agent may be called so: NAME_RULE says which texts are names."""
    return 1 <= len(text) <= NAME_MAX and text.isprintable()


def agent_id(configured: str | None, agent_name: str) -> AgentId:
    """The id of an agent: the configured one, or the UUIDv5 of its name where that is missing or null.

    RunAgent's templates ship the null UUID, which says "not chosen yet".
    """
    if configured is None or configured in ("", _NULL_ID):
        return AgentId(str(uuid.uuid5(_NAMESPACE, agent_name)))
    return AgentId(configured)


def storage_name(identity: str) -> str:
    """A directory name for something that a stranger named: 32 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:32]
