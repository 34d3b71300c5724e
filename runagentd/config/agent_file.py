"""An agent file → `AgentFile`: which folder is to serve as an agent, and how. For people who manage hosts by files.

Runs as: runagentctl. Pure.
Reads from strangers: nothing; the file is the operator's, of any bytes all the same.

    folder = "/srv/agents/chat"       # relative paths start at the file's own folder
    name = "chat"                     # default: what the folder calls itself
    policy = "chat-policy.toml"       # or the name of a shipped one; default: base
    aliases = ["stable"]              # that lead to the version which this file has serve
    allow_widening = false

    [scaling]                         # within the policy's
    instances_min = 0
    instances_max = 4

What a file does not say has its default, whatever serves: the files alone say what there is to be.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from runagentd import schema
from runagentd.config.table import Table, toml
from runagentd.errors import ConfigurationError, Problem
from runagentd.names import NAME_MAX, NAME_RULE, is_name
from runagentd.policy.document import DOTS_MAX
from runagentd.policy.load import Unreadable, place
from runagentd.wire.versions import ALIAS, ALIAS_HINT, ALIASES_MAX, InstanceBounds, alias_problem

FILE_BYTES_MAX = 16 * 1024
INSTANCES_MAX = 1000
"""As in policies."""
PATH_MAX = 4095
"""Of the kernel, in bytes and with a NUL."""

_SCALING = schema.table(
    "Other numbers of instances than the policy's, within them.",
    {
        "instances_min": schema.number("How many there are while nobody calls.", 0, INSTANCES_MAX),
        "instances_max": schema.number("How many there may be at a time.", 1, INSTANCES_MAX),
    },
)
SCHEMA = schema.table(
    "Which folder serves as an agent, and how.",
    {
        "folder": schema.text(
            "The folder with the agent's code; a relative path starts at the file's own folder.",
            minLength=1,
            examples=["/srv/agents/chat"],
        ),
        "name": schema.text(
            "What the agent is called, whatever its folder says; its id follows from it.",
            minLength=1,
            maxLength=NAME_MAX,
            examples=["chat"],
        ),
        "policy": schema.text(
            "The name of a shipped policy, or the path of a file; a relative path starts at the file's own folder.",
            minLength=1,
            default="base",
            examples=["base", "chat-policy.toml"],
        ),
        "aliases": schema.array(
            "That lead to the version which this file has serve.",
            {"type": "string", "pattern": schema.whole(ALIAS)},
            maxItems=ALIASES_MAX,
            uniqueItems=True,
            default=[],
            examples=[["stable"]],
        ),
        "allow_widening": schema.flag(
            "Whether the policy may grant more than that of the version that serves.", default=False
        ),
        "scaling": _SCALING,
    },
    required=["folder"],
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentFile:
    """What one file says."""

    path: Path
    """of the file itself, absolute"""
    folder: Path
    name: str
    """"" for what the folder says"""
    policy: str
    """the name of a shipped policy, or an absolute path"""
    instances: InstanceBounds | None
    aliases: tuple[str, ...]
    allow_widening: bool


def json_schema() -> str:
    """The text of docs/schemas/agent-file.schema.json."""
    return schema.document("agent-file", "runagentd agent file", SCHEMA)


def parse(data: bytes, path: Path) -> AgentFile:
    """What the text of the file at `path` says; ConfigurationError with every problem, each with file and key."""
    where = str(path)
    problems: list[Problem] = []
    table = Table(_toml(data, where), where, problems)
    beside = path.parent
    folder = table.converted("folder", _path, "")
    if not table.has("folder"):
        table.problem("folder", "missing", 'write the folder with the agent\'s code: folder = "/srv/agents/chat"')
    found = AgentFile(
        path=path,
        folder=beside / folder,
        name=table.converted("name", _name, ""),
        policy=table.converted("policy", lambda text: _policy(text, beside), "base"),
        instances=_instances(table.table("scaling")),
        aliases=_aliases(table),
        allow_widening=table.flag("allow_widening", False),
    )
    table.finish()
    if problems:
        raise ConfigurationError(*problems)
    return found


def _toml(data: bytes, where: str) -> dict[str, object]:
    if len(data) > FILE_BYTES_MAX:
        raise ConfigurationError(Problem(where, f"is larger than {FILE_BYTES_MAX // 1024} KiB, the most here"))
    if any(row.count(b".") > DOTS_MAX for row in data.split(b"\n")):
        raise ConfigurationError(Problem(where, f"a line has more than {DOTS_MAX} dots"))
    return toml(data, where)


def _path(text: str) -> str:
    if not 1 <= len(text) <= PATH_MAX or not text.isprintable():
        raise ValueError(f"must be a path of 1 to {PATH_MAX} printable characters")
    return text


def _name(text: str) -> str:
    if not is_name(text):
        raise ValueError(f"a name has {NAME_RULE}")
    return text


def _policy(text: str, beside: Path) -> str:
    try:
        return place(text, beside=PurePosixPath(beside)).name
    except Unreadable as error:
        raise ValueError(f"{error.what}: {'; '.join(error.hints)}") from error


def _aliases(table: Table) -> tuple[str, ...]:
    aliases = table.texts("aliases")
    for alias in aliases:
        if problem := alias_problem(alias):
            table.problem("aliases", f"{alias!r:.80} {problem}", ALIAS_HINT)
    if len(set(aliases)) != len(aliases):
        table.problem("aliases", "one stands twice")
    if len(aliases) > ALIASES_MAX:
        table.problem("aliases", f"an agent has at most {ALIASES_MAX}")
    return aliases


def _instances(table: Table) -> InstanceBounds | None:
    bounds = InstanceBounds(
        minimum=_count(table, "instances_min", least=0), maximum=_count(table, "instances_max", least=1)
    )
    if bounds.minimum is not None and bounds.maximum is not None and bounds.minimum > bounds.maximum:
        table.problem("instances_min", f"is {bounds.minimum}, and instances_max is {bounds.maximum}")
    table.finish()
    return bounds if bounds != InstanceBounds(minimum=None, maximum=None) else None


def _count(table: Table, key: str, *, least: int) -> int | None:
    value = table.number(key, least, least=least, most=INSTANCES_MAX)
    return value if table.has(key) else None
