"""Folders with agents, written by the tests that serve them: the source stands beside what is expected of it."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any


def agent(place: Path, name: str, source: str, *tags: str, **more: Any) -> Path:
    """Write an agent whose entrypoints are the functions `tags` of one file; `more` goes to its configuration."""
    folder = place / name
    folder.mkdir(parents=True)
    (folder / "agent.py").write_text(textwrap.dedent(source))
    entrypoints = [{"file": "agent.py", "module": tag, "tag": tag} for tag in tags]
    configuration = {"agent_name": name, "agent_architecture": {"entrypoints": entrypoints}, **more}
    (folder / "runagent.config.json").write_text(json.dumps(configuration))
    return folder


def policy(place: Path, name: str, text: str) -> str:
    """Write a policy file; gives its path."""
    path = place / f"{name}.toml"
    path.write_text("version = 1\n" + textwrap.dedent(text))
    return str(path)
