"""All attempts: importing this module fills the list of `frame`.

Runs as: see `frame`.
Reads from strangers: nothing.
"""

from __future__ import annotations

from tests.escape.attempts import (
    credentials,
    files,
    filling,
    namespaces,
    network,
    proc,
    processes,
    programs,
    roots,
    secrets,
    system_calls,
)
from tests.escape.attempts.frame import ATTEMPTS

AREAS = (files, roots, programs, filling, proc, namespaces, credentials, system_calls, network, processes, secrets)

__all__ = ["AREAS", "ATTEMPTS"]
