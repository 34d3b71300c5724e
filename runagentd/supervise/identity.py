"""What makes a version of an agent the one it is: its code, its environment, its configuration and its policy.

Runs as: the supervisor. Pure.
Reads from strangers: a manifest that was checked for form; it is only hashed.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import ClassVar

from runagentd.policy.digest import policy_digest
from runagentd.policy.model import Policy
from runagentd.wire import record
from runagentd.wire.manifest import Manifest

SHOWN_DIGITS = 12

# Part of what is hashed: another form gives other digests.
_FORM = "runagentd version 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Four digests, SHA-256 in hexadecimal; `environment` is empty where the agent has none."""

    code: str
    """of its snapshot"""
    environment: str
    configuration: str
    """of its manifest: what the loader made of its files, .env among them, and what the operator called it"""
    policy: str

    PARTS: ClassVar = ("code", "environment", "configuration", "policy")
    """in the order in which they are told"""

    @property
    def digest(self) -> str:
        """Of all of it: two versions with the same digest are the same version."""
        parts = (_FORM, self.code, self.environment, self.configuration, self.policy)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def changes(self, before: Identity) -> tuple[str, ...]:
        """What of it is other than it was."""
        return tuple(part for part in self.PARTS if getattr(self, part) != getattr(before, part))


def identity(*, code: str, environment: str, manifest: Manifest, policy: Policy) -> Identity:
    """Of what a version is made from. The one place that knows: all that decides how an instance behaves is in it."""
    # Hints are for the author to read, and a next runagentd may have others.
    configured = record.encode(dataclasses.replace(manifest, hints=()))
    return Identity(
        code=code,
        environment=environment,
        configuration=hashlib.sha256(configured).hexdigest(),
        policy=policy_digest(policy),
    )
