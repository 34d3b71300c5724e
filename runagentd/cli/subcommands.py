"""What the parts of `runagentctl`'s command line have in common.

Runs as: as `cli.runagentctl`.
Reads from strangers: nothing.
Imported at every start: nothing is imported here that one command alone needs.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TypeAlias

# What `add_subparsers` gives; as a text, for argparse's class has no parameters when it runs.
Subcommands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_command(
    commands: Subcommands,
    name: str,
    *,
    help: str,
    description: str = "",
    parents: Sequence[argparse.ArgumentParser] = (),
    epilog: str = "",
) -> argparse.ArgumentParser:
    """A command whose own --help says what it does: as the list of commands has it, if nothing better is given."""
    description = description or f"{help[0].upper()}{help[1:]}."
    return commands.add_parser(name, help=help, description=description, parents=list(parents), epilog=epilog or None)


def policy_name(text: str) -> str:
    """`NAME|FILE`; a file's path becomes absolute."""
    from runagentd.cli.runagentd import policy_name

    return policy_name(text)
