"""The escape suite as an agent's folder: its entry file, its configuration, and a copy of the attempts.

Runs as: the test process.
Reads from strangers: nothing.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests import tried
from tests.escape.attempts import network

HERE = Path(__file__).parent


def make(place: Path, name: str, *, listener: str = "") -> Path:
    """An agent called `name`, in a folder of that name below `place`.

    `listener` is the abstract name at which the host listens, for the attempt that tries to connect.
    """
    folder = place / name
    shutil.copytree(HERE / "agent", folder, ignore=shutil.ignore_patterns("__pycache__"))
    configuration = json.loads((folder / "runagent.config.json").read_text())
    configuration |= {"agent_name": name, **tried.asked()}
    if listener:
        configuration["env_vars"] = {network.LISTENER: listener}
    (folder / "runagent.config.json").write_text(json.dumps(configuration))
    # The same dotted names as here, so that one text of the attempts serves inside and outside.
    attempts = folder / "tests" / "escape" / "attempts"
    shutil.copytree(HERE / "attempts", attempts, ignore=shutil.ignore_patterns("__pycache__"))
    for package in (folder / "tests", folder / "tests" / "escape"):
        (package / "__init__.py").write_text("")
    return folder
