"""An agent's folder becomes a manifest, or a list of everything that is wrong with it.

Runs as: the loader, confined.
Reads from strangers: all of it, through `Folder`. Pure but for that: any content gives a report, never an exception.
As tolerant as RunAgent's own files need (their long form, the documentation's short one, old ones with "type" instead
of "tag", fields that nobody knows), and as strict as a person wants: each problem says which file, key and value, and
what would be right.
"""

from __future__ import annotations

from runagentd.loader import entrypoints, environment, packages, persistent, requirements, runtime, schema
from runagentd.loader.findings import Findings, key_path, shown, similar
from runagentd.loader.folder import Folder
from runagentd.loader.tree import Tree, TreeError, parse_json, parse_yaml
from runagentd.names import NAME_MAX, agent_id
from runagentd.wire import record
from runagentd.wire.manifest import CONFIGURATION_FILES, MANIFEST_BYTES, LoadProblem, LoadReport, Manifest

FILES = CONFIGURATION_FILES
FILE_BYTES_MAX = 1024 * 1024

_KEYS = schema.AGENT.keys()
_DESCRIPTION_MAX = 4000


def load(folder: Folder, *, python: tuple[int, int]) -> LoadReport:
    """What the folder says of its agent; `python` is the version that runs those that ask for none."""
    findings = Findings()
    manifest = _manifest(folder, findings, python)
    if findings.problems or manifest is None:
        return LoadReport(manifest=None, problems=tuple(findings.problems))
    report = LoadReport(manifest=manifest, problems=())
    size = len(record.encode(report))
    if size > MANIFEST_BYTES:
        what = f"all that is configured takes {size:,} bytes, more than {MANIFEST_BYTES:,}"
        hints = ("shorten descriptions and env_vars, or have fewer entrypoints",)
        problem = LoadProblem(where=FILES[0].removesuffix(".json"), what=what, hints=hints)
        return LoadReport(manifest=None, problems=(problem,))
    return report


def _manifest(folder: Folder, findings: Findings, python: tuple[int, int]) -> Manifest | None:
    file, tree = _configuration(folder, findings)
    if tree is None:
        return None
    _unknown_keys(file, tree, findings)
    name = _name(file, tree, findings)
    identity = _identity(file, tree, findings)
    found = entrypoints.read(file, tree, folder, findings)
    health = _health(file, tree, [one.tag for one in found], findings)
    variables = environment.read(file, tree, folder, findings)
    kept = persistent.read(file, tree, folder, [one.file for one in found], findings)
    asked = runtime.read(file, tree, folder, findings)
    import_paths = packages.import_paths(folder, _parts(asked) if asked else python, findings)
    required = requirements.read(folder, import_paths, findings)
    description = _descriptive(file, tree, "description", "", findings)
    framework = _descriptive(file, tree, "framework", "default", findings)
    version = _descriptive(file, tree, "version", "", findings)
    if findings.problems:
        return None
    return Manifest(
        agent_id=agent_id(identity, name),
        agent_name=name,
        description=description,
        framework=framework,
        version=version,
        entrypoints=found,
        environment=variables,
        persistent_folders=kept,
        import_paths=import_paths,
        requirements=required,
        hints=tuple(findings.hints),
        health=health,
        python=asked,
    )


def _configuration(folder: Folder, findings: Findings) -> tuple[str, dict[str, Tree] | None]:
    present = [file for file in FILES if folder.is_file(file)]
    if not present:
        hints = [f"make one; the smallest is {entrypoints.EXAMPLE_FILE}"]
        meant = [name for name in folder.names("") if name not in FILES and similar(name, FILES)]
        if meant:
            hints.insert(0, f'"{meant[0]}" looks like it: rename it')
        findings.problem(FILES[0], "the folder has no such file (nor .yaml or .yml)", *hints)
        return FILES[0], None
    file = present[0]
    for other in present[1:]:
        findings.hint(other, f"ignored, because there is a {file}")
    content = folder.read(file, FILE_BYTES_MAX)
    if content is None or len(content) > FILE_BYTES_MAX:
        findings.problem(file, f"is larger than {FILE_BYTES_MAX // 1024} KiB")
        return file, None
    try:
        tree = parse_json(content) if file.endswith(".json") else parse_yaml(content)
    except TreeError as error:
        findings.problem(file, str(error), *error.hints)
        return file, None
    if not isinstance(tree, dict):
        what = "is empty" if tree is None else f"holds {shown(tree)}, but must hold an object"
        findings.problem(file, what, f"the smallest is {entrypoints.EXAMPLE_FILE}")
        return file, None
    return file, tree


def _unknown_keys(file: str, tree: dict[str, Tree], findings: Findings) -> None:
    """Keys that nobody knows are ignored, for RunAgent does; but a misspelled one would be missed silently."""
    if "policy" in tree:
        findings.hint(f"{file}: policy", "ignored: the operator chooses the policy, not the folder")
    settings = tree.get("auth_settings")
    if isinstance(settings, dict) and settings.get("type") not in (None, "none"):
        findings.hint(f"{file}: auth_settings", "ignored: every caller needs a token of this daemon's")
    for key in tree:
        meant = similar(key, _KEYS - tree.keys()) if key not in _KEYS else None
        if meant is not None and meant != "agent_name":
            findings.hint(f"{file}: {key_path(key)}", f'ignored: no such key; did you mean "{meant}"?')


def _name(file: str, tree: dict[str, Tree], findings: Findings) -> str:
    if "agent_name" not in tree:
        meant = similar("agent_name", tree.keys() - _KEYS)
        hints = [f'"{meant}" looks like it: rename it'] if meant else ['write for example "agent_name": "my-agent"']
        findings.problem(f"{file}: agent_name", "is missing", *hints)
        return ""
    return _identifier(file, "agent_name", tree["agent_name"], findings)


def _identity(file: str, tree: dict[str, Tree], findings: Findings) -> str | None:
    value = tree.get("agent_id")
    if value is None or value == "":
        return None
    return _identifier(file, "agent_id", value, findings)


def _identifier(file: str, key: str, value: Tree, findings: Findings) -> str:
    if type(value) is not str or not 1 <= len(value.strip()) <= NAME_MAX or not value.isprintable():
        findings.problem(
            f"{file}: {key}", f"{shown(value)} is not a text of 1 to {NAME_MAX} printable characters",
            f'write for example "{key}": "my-agent"',
        )  # fmt: skip
        return ""
    return value.strip()


def _parts(version: str) -> tuple[int, int]:
    major, minor = version.split(".")
    return int(major), int(minor)


def _health(file: str, tree: dict[str, Tree], tags: list[str], findings: Findings) -> str:
    """The tag of the function that says whether the agent is well. That it needs no argument is seen when it runs."""
    value = tree.get("health")
    if value is None or value == "":
        return ""
    if type(value) is str and value in tags:
        return value
    if tags:  # without any, what is wrong with them comes first
        what = f"{shown(value)} is not the tag of one of the entrypoints"
        meant = similar(value, tags) if type(value) is str else None
        hint = f'did you mean "{meant}"?' if meant else f"there are: {', '.join(tags[:10])}"
        findings.problem(f"{file}: health", what, hint)
    return ""


def _descriptive(file: str, tree: dict[str, Tree], key: str, default: str, findings: Findings) -> str:
    """A field that only describes: a default where it is missing, and a number is as good as text."""
    value = tree.get(key)
    if value is None:
        return default
    if not isinstance(value, str):
        findings.problem(f"{file}: {key}", f"{shown(value)} is not text", f'write for example "{key}": "1.0.0"')
        return default
    limit = _DESCRIPTION_MAX if key == "description" else NAME_MAX
    if len(value) > limit:
        findings.hint(f"{file}: {key}", f"cut to {limit} characters")
    kept = (character for character in value[:limit] if character.isprintable() or character == "\n")
    return "".join(kept)
