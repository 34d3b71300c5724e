"""What the parts of `runagentctl`'s command line have in common.

Runs as: as `cli.runagentctl`.
Reads from strangers: nothing.
Imported at every start: nothing is imported here that one command alone needs.
"""

from __future__ import annotations

import argparse
from typing import TypeAlias

# What `add_subparsers` gives; as a text, for argparse's class has no parameters when it runs.
Subcommands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def policy_name(text: str) -> str:
    """`NAME|FILE`; a file's path becomes absolute."""
    from runagentd.cli.runagentd import policy_name

    return policy_name(text)
