"""The environment variables of an agent: `env_vars`, then `.env` over them.

Runs as: the loader, confined.
Reads from strangers: all of it. Values are secrets, as a rule: no message repeats one.
"""

from __future__ import annotations

from runagentd.loader import dotenv
from runagentd.loader.findings import Findings, key_path, shown
from runagentd.loader.folder import Folder
from runagentd.loader.tree import Number, Tree
from runagentd.wire.manifest import Variable

BYTES_MAX = 32 * 1024
_DOTENV = ".env"
# They act before any Python code runs, so they cannot act on an interpreter that runs already.
_WITHOUT_EFFECT = ("LD_", "PYTHON", "GCONV_PATH", "MALLOC_")


def read(file: str, tree: dict[str, Tree], folder: Folder, findings: Findings) -> tuple[Variable, ...]:
    """All variables, sorted by name."""
    variables = _from_configuration(f"{file}: env_vars", tree.get("env_vars"), findings)
    variables.update(_from_dotenv(folder, findings))
    size = sum(len(name) + len(value.encode("utf-8", "replace")) + 2 for name, value in variables.items())
    if size > BYTES_MAX:
        findings.problem(
            f"{file}: env_vars", f"with .env these are {size:,} bytes, more than {BYTES_MAX:,}",
            "put large values into a file of the agent's folder",
        )  # fmt: skip
    for name in variables:
        if name.startswith(_WITHOUT_EFFECT):
            findings.hint(name, "has no effect: the interpreter runs already when the agent's variables are set")
    return tuple(Variable(name=name, value=value) for name, value in sorted(variables.items()))


def _from_configuration(where: str, value: Tree, findings: Findings) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        findings.problem(where, f"{shown(value)} is not an object", 'write for example {"MODEL": "small"}')
        return {}
    found: dict[str, str] = {}
    for name, item in value.items():
        place = f"{where}.{key_path(name)}"
        if not dotenv.NAME.fullmatch(name):
            findings.problem(place, f"{shown(name)} is not a name: use letters, digits and '_', and no digit first")
        elif isinstance(item, bool):
            found[name] = "true" if item else "false"
            findings.hint(place, f'taken as the text "{found[name]}": environment variables are text')
        elif isinstance(item, Number):
            found[name] = str(item)
            findings.hint(place, "taken as text, as it is written: environment variables are text")
        elif not isinstance(item, str):
            findings.problem(place, f"{shown(item)} is not text", 'write "" for an empty value, or leave it out')
        elif "\0" in item or _has_half_a_pair(item):
            findings.problem(place, "holds a NUL or half a surrogate pair, which no environment variable can")
        else:
            found[name] = item
    return found


def _from_dotenv(folder: Folder, findings: Findings) -> dict[str, str]:
    content = folder.read(_DOTENV, 2 * BYTES_MAX)
    if content is None:
        return {}
    if len(content) > 2 * BYTES_MAX:
        findings.problem(_DOTENV, f"is larger than {2 * BYTES_MAX // 1024} KiB")
        return {}
    parsed = dotenv.parse(content)
    for line, text in parsed.problems:
        findings.problem(f"{_DOTENV}: line {line}", text)
    for line, text in parsed.hints:
        findings.hint(f"{_DOTENV}: line {line}", text)
    return parsed.variables


def _has_half_a_pair(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)
