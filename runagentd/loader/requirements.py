"""Which of the agent's files say what is to be installed for it; what they say is for the builder's installer to read.

Runs as: the loader, confined.
Reads from strangers: text of requirements, of which only the lines that include other files matter here, and TOML.
"""

from __future__ import annotations

import posixpath
import re
import tomllib

from runagentd.loader.findings import Findings
from runagentd.loader.folder import Folder
from runagentd.wire.build import LOCK, PROJECT
from runagentd.wire.manifest import REQUIREMENTS_MAX

REQUIREMENTS = "requirements.txt"
FILE_BYTES_MAX = 4 * 1024 * 1024
# requirements.txt of pip, "Requirements File Format": `-r FILE`, `-rFILE`, `--requirement=FILE`, `-c FILE`, ….
_INCLUDE = re.compile(r"^\s*(?:-r|-c|--requirement|--constraint)(?:\s*=\s*|\s*)([^\s#]+)")


def read(folder: Folder, import_paths: tuple[str, ...], findings: Findings) -> tuple[str, ...]:
    """The main file, then those that it needs; nothing where nothing is to be installed."""
    found = _files(folder, findings)
    if found and import_paths:
        findings.hint(found[0], "not installed: the packages are those of the folder's own .venv; remove it for others")
        return ()
    return found


def _files(folder: Folder, findings: Findings) -> tuple[str, ...]:
    if folder.is_file(LOCK):
        if folder.is_file(PROJECT):
            return LOCK, PROJECT
        findings.problem(LOCK, f"there is no {PROJECT} beside it", f"add the {PROJECT} that it was made from")
        return ()
    if folder.is_file(REQUIREMENTS):
        return _with_included(folder, findings)
    if folder.is_file(PROJECT) and _has_dependencies(folder, findings):
        return (PROJECT,)
    return ()


def _with_included(folder: Folder, findings: Findings) -> tuple[str, ...]:
    """Breadth first. A file that is not there is for the installer to complain about, in its own words."""
    found, waiting, something = [REQUIREMENTS], [REQUIREMENTS], False
    while waiting:
        name = waiting.pop(0)
        for line in _text(folder, name, findings).splitlines():
            stripped = line.strip()
            something = something or (bool(stripped) and not stripped.startswith("#"))
            match = _INCLUDE.match(line)
            path = posixpath.normpath(posixpath.join(posixpath.dirname(name), match[1])) if match else ""
            if not match or path in found or path.startswith(("/", "..")) or not folder.is_file(path):
                continue
            if len(found) == REQUIREMENTS_MAX:
                findings.problem(name, f"with what it includes these are more than {REQUIREMENTS_MAX} files")
                return ()
            found.append(path)
            waiting.append(path)
    return tuple(found) if something else ()


def _text(folder: Folder, name: str, findings: Findings) -> str:
    content = folder.read(name, FILE_BYTES_MAX) or b""
    if len(content) > FILE_BYTES_MAX:
        findings.problem(name, f"is larger than {FILE_BYTES_MAX // 1024**2} MiB")
    return content.decode("utf-8", "replace")


def _has_dependencies(folder: Folder, findings: Findings) -> bool:
    """Many a pyproject.toml is there for tools alone."""
    try:
        document = tomllib.loads(_text(folder, PROJECT, findings))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        findings.problem(PROJECT, f"is not TOML: {error}")
        return False
    project = document.get("project")
    if not isinstance(project, dict):
        return False
    dynamic = project.get("dynamic")
    return bool(project.get("dependencies")) or (isinstance(dynamic, list) and "dependencies" in dynamic)
