"""What makes a version of an agent the one it is: code, environment, configuration, policy and runtime.

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
from runagentd.wire.runtime import PythonRuntime

SHOWN_DIGITS = 12

# Part of what is hashed: another form gives other digests.
_FORM = "runagentd version 2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Digests, SHA-256 in hexadecimal; `environment` is empty where the agent has none."""

    code: str
    """of its snapshot"""
    environment: str
    configuration: str
    """of its manifest: what the loader made of its files, .env among them, and what the operator called it"""
    policy: str
    runtime: str
    """its release, and the digest of all that tells it from another CPython: "3.13.1 0a1b…" """

    PARTS: ClassVar = ("code", "environment", "configuration", "policy", "runtime")
    """in the order in which they are told"""

    @property
    def digest(self) -> str:
        """Of all of it: two versions with the same digest are the same version."""
        parts = (_FORM, self.code, self.environment, self.configuration, self.policy, self.runtime)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def changes(self, before: Identity) -> tuple[str, ...]:
        """What of it is other than it was."""
        return tuple(part for part in self.PARTS if getattr(self, part) != getattr(before, part))


def identity(*, code: str, environment: str, manifest: Manifest, policy: Policy, runtime: PythonRuntime) -> Identity:
    """Of what a version is made from. The one place that knows: all that decides how an instance behaves is in it."""
    # Hints are for the author to read, and a next runagentd may have others.
    configured = record.encode(dataclasses.replace(manifest, hints=()))
    return Identity(
        code=code,
        environment=environment,
        configuration=hashlib.sha256(configured).hexdigest(),
        policy=policy_digest(policy),
        runtime=runtime_text(runtime),
    )


def runtime_text(runtime: PythonRuntime) -> str:
    """What `Identity.runtime` says of it. Its files are not among it: their list follows from what is."""
    told = (runtime.version, runtime.release, runtime.build, runtime.abi, runtime.prefix, runtime.interpreter)
    digest = hashlib.sha256("\0".join(told).encode("utf-8", "surrogateescape")).hexdigest()
    return f"{runtime.release} {digest}"


def made_for(runtime: str) -> str:
    """The minor version in an `Identity.runtime`; "" where there is none."""
    return ".".join(runtime.partition(" ")[0].split(".")[:2])
