"""Which minor version of CPython an agent asks for: `python` of its configuration, or `.python-version`.

Runs as: the loader, confined.
Reads from strangers: a value of the configuration, and one small text file, as uv and pyenv have it.
Whether there is such a runtime is the operator's to say, and the supervisor's to know.
"""

from __future__ import annotations

import re

from runagentd.loader.findings import Findings, shown
from runagentd.loader.folder import Folder
from runagentd.loader.tree import Tree
from runagentd.wire.runtime import OLDEST, VERSION

FILE = ".python-version"
_FILE_BYTES_MAX = 4096
_RELEASE = re.compile(r"(3\.[0-9]{1,2})(\.[0-9]{1,2})?")
_EXAMPLE = 'write for example "3.13"'


def read(file: str, tree: dict[str, Tree], folder: Folder, findings: Findings) -> str:
    """ "3.13"; "" where nothing is asked for, or what is asked for is wrong."""
    value = tree.get("python")
    if value is None or value == "":
        return _from_file(folder, findings)
    if type(value) is not str:  # a number, too: without quotes 3.20 and 3.2 would be the same
        findings.problem(f"{file}: python", f"{shown(value)} is not a version in quotes", _EXAMPLE)
        return ""
    return _minor(f"{file}: python", value, findings)


def _from_file(folder: Folder, findings: Findings) -> str:
    """The first line counts that is neither empty nor a comment."""
    content = folder.read(FILE, _FILE_BYTES_MAX)
    if content is None:
        return ""
    if len(content) > _FILE_BYTES_MAX:
        findings.problem(FILE, f"is larger than {_FILE_BYTES_MAX} bytes")
        return ""
    lines = (line.strip() for line in content.decode("utf-8", "replace").splitlines())
    first = next((line for line in lines if line and not line.startswith("#")), "")
    return _minor(FILE, first, findings) if first else ""


def _minor(where: str, text: str, findings: Findings) -> str:
    found = _RELEASE.fullmatch(text)
    if found is None:
        findings.problem(where, f"{shown(text)} is not a version of CPython as 3.13 or 3.13.1", _EXAMPLE)
        return ""
    minor = found[1]
    if not VERSION.fullmatch(minor):
        findings.problem(where, f"{shown(text)}: agents run on CPython {'.'.join(map(str, OLDEST))} or newer")
        return ""
    if found[2]:
        findings.hint(where, f"taken as {minor}: which release of it there is, is the operator's to say")
    return minor
