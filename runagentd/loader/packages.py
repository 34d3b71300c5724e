"""The agent's own packages: a virtual environment inside its folder, if the Python that it will run on can use it.

Runs as: the loader, confined.
Reads from strangers: names, and one small text file.
"""

from __future__ import annotations

import re

from runagentd.loader.findings import Findings
from runagentd.loader.folder import Folder

_ENVIRONMENTS = (".venv", "venv")
_VERSION = re.compile(rb"^version(?:_info)?\s*=\s*(\d{1,3})\.(\d{1,3})", re.MULTILINE)
_CFG_BYTES_MAX = 16 * 1024


def import_paths(folder: Folder, python: tuple[int, int], findings: Findings) -> tuple[str, ...]:
    """The site-packages folder of the first virtual environment that fits; hints say why one does not."""
    running = f"{python[0]}.{python[1]}"
    environments = [name for name in _ENVIRONMENTS if folder.is_file(f"{name}/pyvenv.cfg")]
    for name in environments:
        match = _VERSION.search(folder.read(f"{name}/pyvenv.cfg", _CFG_BYTES_MAX) or b"")
        if match is None:
            findings.hint(f"{name}/pyvenv.cfg", "ignored: it does not say which version of Python it is for")
            continue
        made_for = f"{int(match[1])}.{int(match[2])}"
        if made_for != running:
            findings.hint(
                f"{name}/pyvenv.cfg",
                f"ignored: it is for Python {made_for}, but the agent runs on {running}; "
                f"make it anew with python{running}",
            )
            continue
        path = f"{name}/lib/python{running}/site-packages"
        if folder.is_directory(path):
            return (path,)
        findings.hint(name, f"ignored: it has no lib/python{running}/site-packages")
    return ()
