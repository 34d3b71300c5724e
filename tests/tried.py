"""Which CPython agents run on in tests that can be told: the one that runs the tests, or what `make runtimes` tries.

That says it by the variable RUNAGENTD_TRIED, "3.13=/opt/python3.13/bin/python3". The daemon's own is never another one.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

VARIABLE = "RUNAGENTD_TRIED"

_version, _, _path = os.environ.get(VARIABLE, "").partition("=")

OTHER = bool(_path)
PYTHON = _path or sys.executable
VERSION = _version or f"{sys.version_info.major}.{sys.version_info.minor}"


def asked() -> dict[str, str]:
    """What an agent's configuration needs besides, to run on it."""
    return {"python": VERSION} if OTHER else {}


def options(place: Path) -> list[str]:
    """The options of a daemon that has it; its configuration is written into a folder."""
    if not OTHER:
        return []
    path = place / "runagentd.toml"
    path.write_text(f"[runtimes]\n{json.dumps(VERSION)} = {json.dumps(PYTHON)}\n")
    return ["--config", str(path)]
