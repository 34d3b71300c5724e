"""One number for everything that a policy decides: the name under which plans and filters are kept.

Runs as: the supervisor and runagentctl. Pure.
Reads from strangers: nothing.
Two policies that decide the same have the same digest, whatever they are called and whichever file set what.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json

from runagentd.policy.keys import KEYS, value_of
from runagentd.policy.model import HostFolder, Policy

# Part of what is hashed, so that a new meaning of an old key can never be taken for the old one.
_FORM = "runagentd policy 1"


def policy_digest(policy: Policy) -> str:
    """SHA-256, hexadecimal, over every key and its value."""
    decided = {key.name: _plain(value_of(policy, key)) for key in KEYS}
    text = json.dumps([_FORM, decided], ensure_ascii=True, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _plain(value: object) -> object:
    match value:
        case tuple():
            return [_plain(entry) for entry in value]
        case HostFolder():
            return dataclasses.asdict(value)
        case _:
            return value
