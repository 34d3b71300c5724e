"""The entrypoints of an agent: which function of which file, under which tag.

Runs as: the loader, confined.
Reads from strangers: all of it. Nothing is imported: whether the function exists is found out inside the sandbox.
"""

from __future__ import annotations

import decimal
import keyword
import posixpath
import re

from runagentd.loader import caching, schema
from runagentd.loader.findings import Findings, key_path, shown, similar
from runagentd.loader.folder import Folder
from runagentd.loader.tree import Number, Tree
from runagentd.names import NAME_MAX
from runagentd.wire.manifest import ENTRYPOINTS_MAX, TIMEOUT_MS_MAX, Entrypoint, Extraction, check_relative

EXAMPLE = '{"file": "main.py", "module": "run", "tag": "main"}'
EXAMPLE_FILE = f'{{"agent_name": "my-agent", "agent_architecture": {{"entrypoints": [{EXAMPLE}]}}}}'

_KEYS = schema.ENTRYPOINT.keys() - {"type"}
_OTHER_KINDS = frozenset({"webhook_url", "method", "timeout"})
_DESCRIPTION_MAX = 1000
_STREAM = "_stream"
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?", re.ASCII)


def read(file: str, tree: dict[str, Tree], folder: Folder, findings: Findings) -> tuple[Entrypoint, ...]:
    """The entrypoints that `tree` lists, as far as they are right."""
    place, listed = _list(file, tree, findings)
    if listed is None:
        return ()
    found: list[Entrypoint] = []
    places: dict[str, str] = {}
    for number, item in enumerate(listed[:ENTRYPOINTS_MAX]):
        where = f"{file}: {place}[{number}]"
        entrypoint = _entrypoint(where, item, folder, findings)
        if entrypoint is None:
            continue
        if entrypoint.tag in places:
            findings.problem(
                f"{where}.tag", f"{shown(entrypoint.tag)} is the tag of {places[entrypoint.tag]} too",
                "give each entrypoint a tag of its own",
            )  # fmt: skip
            continue
        places[entrypoint.tag] = f"{place}[{number}]"
        found.append(entrypoint)
    return tuple(found)


def _list(file: str, tree: dict[str, Tree], findings: Findings) -> tuple[str, list[Tree] | None]:
    architecture = tree.get("agent_architecture")
    place, value = key_path("agent_architecture", "entrypoints"), None
    if architecture is not None and not isinstance(architecture, dict):
        what = f"{shown(architecture)} is not an object"
        findings.problem(f"{file}: agent_architecture", what, f"write {EXAMPLE_FILE}")
        return place, None
    if architecture is not None:
        value = architecture.get("entrypoints")
    if value is None and tree.get("entrypoints") is not None:
        place, value = "entrypoints", tree["entrypoints"]
    if value is not None and not isinstance(value, list):
        findings.problem(f"{file}: {place}", f"{shown(value)} is not a list", f"write [{EXAMPLE}]")
        return place, None
    if not value:
        hints = [f'write "agent_architecture": {{"entrypoints": [{EXAMPLE}]}}']
        meant = similar("entrypoints", (architecture or tree).keys() - {"entrypoints"})
        if meant:
            hints.insert(0, f'"{meant}" looks like it: rename it')
        findings.problem(f"{file}: {place}", "the agent has no entrypoint", *hints)
        return place, None
    if len(value) > ENTRYPOINTS_MAX:
        findings.problem(f"{file}: {place}", f"an agent has at most {ENTRYPOINTS_MAX} entrypoints, not {len(value)}")
    return place, value


def _entrypoint(where: str, item: Tree, folder: Folder, findings: Findings) -> Entrypoint | None:
    if not isinstance(item, dict):
        findings.problem(where, f"{shown(item)} is not an entrypoint", f"write {EXAMPLE}")
        return None
    if "webhook_url" in item:
        findings.problem(
            where, "webhook entrypoints are not supported: runagentd serves Python functions",
            f"write {EXAMPLE}",
        )  # fmt: skip
        return None
    before = findings.found
    for key in item:
        meant = similar(key, _KEYS - item.keys()) if key not in _KEYS | _OTHER_KINDS | {"type"} else None
        if meant in ("extractor", "description", "cache", "timeout_seconds"):
            findings.hint(f"{where}.{key_path(key)}", f'ignored: no such key; did you mean "{meant}"?')
    source = _file(where, item, folder, findings)
    function = _function(where, item, findings)
    tag = _tag(where, item, findings)
    extractor = _extractor(where, item.get("extractor"), findings)
    cache = caching.read(where, item.get("cache"), findings)
    timeout_ms = _timeout(where, item.get("timeout_seconds"), findings)
    description = item.get("description")
    if findings.found > before:
        return None
    last = function.rpartition(".")[2]
    if ("stream" in last.lower().split("_")) and not tag.endswith(_STREAM):
        findings.hint(
            f"{where}.tag",
            f'"{function}" looks like a stream, but RunAgent\'s clients stream only from tags that end in "{_STREAM}"',
        )
    return Entrypoint(
        tag=tag,
        file=source,
        module=function,
        extractor=extractor,
        description=_clean(description) if isinstance(description, str) else "",
        cache=cache,
        timeout_ms=timeout_ms,
    )


def _required(where: str, item: dict[str, Tree], key: str, example: str, findings: Findings) -> str | None:
    if key not in item:
        hints = [f'write for example "{key}": "{example}"']
        meant = similar(key, item.keys() - _KEYS)
        if meant:
            hints.insert(0, f'"{meant}" looks like it: rename it')
        findings.problem(f"{where}.{key}", "is missing", *hints)
        return None
    value = item[key]
    if type(value) is not str or not value.strip():
        findings.problem(f"{where}.{key}", f"{shown(value)} is not a text", f'write for example "{key}": "{example}"')
        return None
    return value.strip()


def _file(where: str, item: dict[str, Tree], folder: Folder, findings: Findings) -> str:
    value = _required(where, item, "file", "main.py", findings)
    if value is None:
        return ""
    place = f"{where}.file"
    path = posixpath.normpath(value)
    try:
        check_relative(path)
    except ValueError:
        findings.problem(place, f"{shown(value)} is not a path below the agent's folder", 'write for example "main.py"')
        return ""
    if folder.is_file(path) and path.endswith(".py"):
        return path
    hints = []
    if folder.is_file(f"{path}.py"):
        hints.append(f'did you mean "{path}.py"?')
    elif "\\" in value and folder.is_file(posixpath.normpath(value.replace("\\", "/"))):
        hints.append('separate folders by "/"')
    else:
        parent = posixpath.dirname(path)
        beside = [name for name in folder.names(parent) if name.endswith(".py")]
        meant = similar(posixpath.basename(path), beside)
        if meant:
            hints.append(f'did you mean "{posixpath.join(parent, meant)}"?')
        elif beside:
            hints.append(f"there are: {', '.join(beside[:10])}")
    if folder.is_directory(path):
        findings.problem(place, f"{shown(value)} is a folder, not a file", *hints)
    elif folder.is_file(path):
        findings.problem(place, f"{shown(value)} is not a Python file: its name must end in .py", *hints)
    else:
        hints.append("symbolic links are not followed: the file itself must be in the folder")
        findings.problem(place, f"{shown(value)} does not exist in the agent's folder", *hints)
    return ""


def _function(where: str, item: dict[str, Tree], findings: Findings) -> str:
    value = _required(where, item, "module", "run", findings)
    if value is None:
        return ""
    parts = value.split(".")
    if len(value) > NAME_MAX or not all(part.isidentifier() and not keyword.iskeyword(part) for part in parts):
        hints = ['write the name of the function alone, for example "run" or "app.invoke"']
        if value.endswith(")") and all(part.isidentifier() for part in value.partition("(")[0].split(".")):
            hints.insert(0, f'did you mean "{value.partition("(")[0]}"?')
        findings.problem(f"{where}.module", f"{shown(value)} does not name a function", *hints)
    return value


def _tag(where: str, item: dict[str, Tree], findings: Findings) -> str:
    kind = item.get("type")
    if "tag" not in item and isinstance(kind, str) and kind in schema.OLD_TYPES:
        return kind
    value = _required(where, item, "tag", "main", findings)
    if value is None:
        return ""
    if len(value) > NAME_MAX or not value.isprintable():
        findings.problem(f"{where}.tag", f"{shown(value)} is not a tag of 1 to {NAME_MAX} printable characters")
    return value


def _extractor(where: str, value: Tree, findings: Findings) -> tuple[Extraction, ...]:
    if value is None:
        return ()
    place, example = f"{where}.extractor", 'write for example {"answer": "$.messages[-1].content"}'
    if not isinstance(value, dict):
        findings.problem(place, f"{shown(value)} is not an object", example)
        return ()
    if len(value) > schema.EXTRACTIONS_MAX:
        findings.problem(place, f"has more than {schema.EXTRACTIONS_MAX} outputs")
        return ()
    found = []
    for name, path in value.items():
        if type(path) is not str or not 1 <= len(path) <= schema.PATH_MAX or not path.isprintable():
            findings.problem(f"{place}.{key_path(name)}", f"{shown(path)} is not a JSONPath", example)
        elif not 1 <= len(name) <= NAME_MAX or not name.isprintable():
            findings.problem(place, f"{shown(name)} is not a name for an output", example)
        else:
            found.append(Extraction(name=name, path=path))
    return tuple(found)


def _timeout(where: str, value: Tree, findings: Findings) -> int | None:
    """In milliseconds; what is shorter than one is one."""
    if value is None:
        return None
    if isinstance(value, Number) and _SECONDS.fullmatch(value):
        milliseconds = decimal.Decimal(value) * 1000
        if 0 < milliseconds <= TIMEOUT_MS_MAX:
            return max(1, round(milliseconds))
    findings.problem(
        f"{where}.timeout_seconds",
        f"{shown(value)} is not a number of seconds above 0 and up to {TIMEOUT_MS_MAX // 1000}",
        'write for example "timeout_seconds": 30',
    )
    return None


def _clean(text: str) -> str:
    return "".join(character for character in text[:_DESCRIPTION_MAX] if character.isprintable() or character == "\n")
