"""runagentd.toml → `Settings`: what an operator says about the whole daemon. Policies of agents are files of their own.

Runs as: the foreman and runagentctl.
Reads from strangers: nothing; the file is the operator's.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from runagentd.config import roles
from runagentd.config.table import Table
from runagentd.errors import ConfigurationError, Problem
from runagentd.wire.settings import Settings

DEFAULT = "/etc/runagentd/runagentd.toml"
FILE_BYTES_MAX = 1024 * 1024


def load(path: Path) -> Settings:
    """The settings in a file; ConfigurationError with every problem in it, each with its place."""
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigurationError(Problem(str(path), (error.strerror or "cannot be read").lower())) from error
    return parse(data, path.name)


def parse(data: bytes, name: str) -> Settings:
    """The settings in the text of a file, called `name` in problems."""
    if len(data) > FILE_BYTES_MAX:
        raise ConfigurationError(Problem(name, f"is larger than {FILE_BYTES_MAX} bytes"))
    try:
        values = tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigurationError(Problem(name, f"this is not TOML: {error}")) from error
    problems: list[Problem] = []
    document = Table(values, name, problems)
    settings = Settings(roles=roles.read(document.table("roles")))
    document.finish()
    if problems:
        raise ConfigurationError(*problems)
    return settings
