"""What a policy lets an agent read of this host: does it exist, and is it what it seems to be?

Runs as: the supervisor.
Reads from strangers: nothing; the paths are an operator's. Looked at again for every instance.
"""

from __future__ import annotations

import os
from pathlib import Path

from runagentd.errors import ConfigurationError, Problem
from runagentd.policy.model import Policy


def absent(policy: Policy, state_directory: Path) -> frozenset[str]:
    """The optional paths of files.read that are not there.

    ConfigurationError for a path that is missing and not optional, leads elsewhere by a symbolic link, or would show
    the state directory with its signing key.
    """
    missing: set[str] = set()
    problems: list[Problem] = []
    for number, folder in enumerate(policy.files.read):
        where = f"{policy.name}: files.read[{number}]"
        real = os.path.realpath(folder.path)
        if not os.path.lexists(folder.path):
            if folder.optional:
                missing.add(folder.path)
            else:
                what = f'"{folder.path}": no such file or directory'
                problems.append(Problem(where, what, ("create it, or set optional = true on that entry",)))
        elif real != folder.path:
            hint = f'name the place itself: "{real}"'
            problems.append(Problem(where, f'"{folder.path}" leads over a symbolic link', (hint,)))
        elif _overlap(real, os.path.realpath(state_directory)):
            what = f'"{folder.path}" would show the state directory {state_directory}'
            problems.append(Problem(where, what, ("keep the state directory apart from what agents may read",)))
    if problems:
        raise ConfigurationError(*problems)
    return frozenset(missing)


def _overlap(one: str, other: str) -> bool:
    return os.path.commonpath([one, other]) in (one, other)
