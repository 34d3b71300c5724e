"""What a version of Landlock's ABI can refuse: everything, so that a ruleset handles whatever the kernel knows.

Runs as: the supervisor, runagentctl and the loader. Pure.
Reads from strangers: nothing.
"""

from __future__ import annotations

from typing import NamedTuple

_FILESYSTEM_BY_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_TCP_BIND_AND_CONNECT = 0b11
_ABSTRACT_SOCKETS_AND_SIGNALS = 0b11


class Handled(NamedTuple):
    """The fields of struct landlock_ruleset_attr (landlock_create_ruleset(2)): bits of rights."""

    filesystem: int
    network: int
    scoped: int


def handled(abi: int) -> Handled:
    """All that version `abi` (1 or more) of the ABI knows."""
    return Handled(
        filesystem=max(rights for version, rights in _FILESYSTEM_BY_ABI.items() if version <= abi),
        network=_TCP_BIND_AND_CONNECT if abi >= 4 else 0,
        scoped=_ABSTRACT_SOCKETS_AND_SIGNALS if abi >= 6 else 0,
    )
