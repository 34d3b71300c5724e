"""The persistent folders of an agent: which of its folders are kept from one instance to the next.

Runs as: the loader, confined.
Reads from strangers: all of it. Whether anything is kept is the policy's decision.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence

from runagentd.loader import schema
from runagentd.loader.findings import Findings, shown
from runagentd.loader.folder import Folder
from runagentd.loader.tree import Tree
from runagentd.wire.manifest import check_relative

_EXAMPLE = 'write for example ["chat_storage"]'
_DEPTH_MAX = 8


def read(
    file: str, tree: dict[str, Tree], folder: Folder, entry_files: Sequence[str], findings: Findings
) -> tuple[str, ...]:
    """The folders, in the plainest spelling, none within another."""
    where, value = f"{file}: persistent_folders", tree.get("persistent_folders")
    if value is None:
        return ()
    if not isinstance(value, list):
        findings.problem(where, f"{shown(value)} is not a list", _EXAMPLE)
        return ()
    if len(value) > schema.FOLDERS_MAX:
        findings.problem(where, f"has {len(value)} folders, more than {schema.FOLDERS_MAX}")
        return ()
    found: dict[str, str] = {}
    for number, item in enumerate(value):
        place = f"{where}[{number}]"
        path = _path(item)
        if path is None:
            findings.problem(place, f"{shown(item)} is not a folder below the agent's", _EXAMPLE)
        elif folder.is_file(path):
            findings.problem(place, f"{shown(item)} is a file, not a folder")
        elif hidden := [name for name in entry_files if name.startswith(f"{path}/")]:
            findings.problem(
                place, f"{shown(item)} holds the agent's own {shown(hidden[0])}, which would be hidden",
                "keep data in a folder without code",
            )  # fmt: skip
        elif path in found:
            findings.problem(place, f"{shown(item)} stands twice")
        else:
            found[path] = place
            if folder.names(path):
                findings.hint(place, f"what the folder has in {shown(path)} is hidden: it starts empty, and is kept")
    for inner in found:
        for outer in found:
            if inner.startswith(f"{outer}/"):
                findings.problem(found[inner], f"{shown(inner)} lies within {shown(outer)}", "the outer one is enough")
    return tuple(found)


def _path(item: Tree) -> str | None:
    if type(item) is not str or not item.isprintable() or len(item) > schema.FOLDER_NAME_MAX:
        return None
    path = posixpath.normpath(item)
    try:
        check_relative(path)
    except ValueError:
        return None
    return path if path.count("/") < _DEPTH_MAX else None
