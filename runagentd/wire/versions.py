"""What an operator says of an agent's versions, and is told of them: messages of `admin.sock`.

Runs as: the supervisor and runagentctl (and the foreman). Pure.
Reads from strangers: no; see `wire.admin`, which packs and parses them, and under whose name they are used.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from runagentd.wire.manifest import LoadProblem

ALIASES_MAX = 16
"""Of one agent."""
MANAGED_ROWS_MAX = 64
MANAGED_BY_BYTES_MAX = 4096
"""A path (PATH_MAX): so many rows of them fit into one answer."""
ALIAS = re.compile(r"[a-z][a-z0-9._-]{0,62}", re.ASCII)
NUMBER = re.compile(r"v?([1-9][0-9]{0,9})", re.ASCII)
DIGEST = re.compile(r"[0-9a-f]{4,64}", re.ASCII)
"""How a version is named: by an alias, by its number, or by the first digits of its digest."""


def alias_problem(alias: str) -> str:
    """Why a text is no alias, also where it could be taken for a number or a digest; "" where it is one."""
    if not ALIAS.fullmatch(alias):
        return "is not an alias"
    if NUMBER.fullmatch(alias) or DIGEST.fullmatch(alias):
        return "could be taken for the number or the digest of a version"
    return ""


ALIAS_HINT = 'write a word such as "stable" or "canary"'


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyChoice:
    """The policy for one agent, by its id or name; for all others where `agent` is empty.

    `policy` is a shipped name ("base") or an absolute path.
    """

    agent: str
    policy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceBounds:
    """How many instances of an agent there may be; None for what its policy says."""

    minimum: int | None
    maximum: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Deploy:
    """Snapshot the folder whose descriptor comes along, load it, start its first instance under its policy.

    Which agent the folder holds, and so which policy applies, is known only after loading. `folder` is for messages.
    """

    folder: str
    policies: tuple[PolicyChoice, ...]
    replaces: str = ""
    """the id of a served agent, of which this is to be another version; empty for an agent that is not served yet"""
    keep: bool = False
    """an operator deploys it: it may be another version of any agent, and one that is new stays for every next start"""
    name: str = ""
    """what the agent is called, whatever its folder says; its id follows from it"""
    instances: InstanceBounds | None = None
    """in the place of its policy's, and within them"""
    aliases: tuple[str, ...] = ()
    """that lead to this version from now on"""
    allow_widening: bool = False
    """although its policy grants more than that of the version that serves"""
    progress: bool = False
    """whether `Progress` may come before the answer"""
    managed_by: str = ""
    """the agent file that says all this; who manages the agent stays as it is where it is empty"""
    dry_run: bool = False
    """only say what would change: the answer is `Planned`, or a `Deployed` that says why not"""
    shown: str = ""
    """the digest of the `Planned` that was agreed to: where any of it has changed, this is refused"""
    take_over: bool = False
    """although another folder, agent file or `serve` has the agent serve so far"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Comes before the answer to a `Deploy` that asks for it, any number of times: what is being waited for."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """The answer to `Deploy`, once the first instance is ready or has failed."""

    ok: bool
    agent: str
    agent_name: str
    tags: tuple[str, ...]
    policy: str
    hints: tuple[str, ...]
    problems: tuple[LoadProblem, ...]
    describe: bytes
    """DESCRIBE of the runner, JSON that an agent wrote: parse it as nobody, never as root."""
    report: bytes
    """FAILED of the runner, likewise."""
    unchanged: bool = False
    """it is served as it is already: nothing was done"""
    number: int = 0
    """which version of its agent it is"""
    version: str = ""
    """its digest"""
    before: int = 0
    """the version that served until then; 0 for none"""
    changes: tuple[str, ...] = ()
    """what of it is other than in that one: "code", "environment", "configuration", "policy", "runtime" """
    warm_seconds: int = 0
    """how long instances of that one are kept"""
    wider: tuple[str, ...] = ()
    """how its policy is wider than that of the one before, for the operator to know"""


class Relation(enum.StrEnum):
    """How a value of a policy's key is related to the one before."""

    WIDER = "wider"
    NARROWER = "narrower"
    OTHER = "other"
    """neither allows all that the other does: it counts as wider"""
    SAME = "same"
    """it is written otherwise"""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChange:
    """One key that a policy has otherwise than the one before. Values are as a policy would have them written."""

    key: str
    relation: Relation
    before: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasChange:
    """An alias that would lead elsewhere: it leads to the version `before`; 0 for none."""

    alias: str
    before: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """The answer to a `Deploy` with `dry_run`: what it would change, and nothing was changed."""

    agent: str
    agent_name: str
    digest: str
    """of both sides of the comparison; see `Deploy.shown`"""
    serving: int
    """the version that serves, or is to; 0 for an agent that is not deployed"""
    served: bool
    """whether it does"""
    number: int
    """the version that would serve, where it is kept already; 0 for another one"""
    changes: tuple[str, ...]
    """what of it is other than in the one that serves: "code", "environment", "configuration", "policy", "runtime" """
    install: bool
    """whether packages have to be installed: only then it is known whether the environment is another one"""
    policy: str
    keys: tuple[KeyChange, ...]
    aliases: tuple[AliasChange, ...]
    managed_by: str
    """the agent file that manages it so far; "" for none"""
    origin: str
    """the folder that the version which serves was made from, where that is another one; "" where it is not"""
    hints: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagedAsk:
    """The agents that agent files manage, after the first `skip`, at most MANAGED_ROWS_MAX."""

    skip: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagedRow:
    """One of them; `agent_name` is its id where it is not served."""

    agent: str
    agent_name: str
    managed_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Managed:
    """The answer to `ManagedAsk`."""

    rows: tuple[ManagedRow, ...]
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionsAsk:
    """All versions of an agent that are kept, the newest first."""

    agent: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRow:
    """One version. `percent` is its part of the calls; the digests are SHA-256, hexadecimal."""

    number: int
    version: str
    code: str
    environment: str
    configuration: str
    policy: str
    policy_digest: str
    origin: str
    """the folder that it was made from"""
    created_unix_ms: int
    state: str
    """serving, shares (it gets some of the calls), warm, kept, or what is wrong with it"""
    percent: int
    aliases: tuple[str, ...]
    instances: int
    warm_until_unix_ms: int
    """0 where it is not kept warm"""
    runtime: str = ""
    """the CPython that it was made for, and its digest; empty where it was deployed when there was one alone"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """The answer to `VersionsAsk`."""

    agent: str
    agent_name: str
    stays: bool
    """whether it is served again at the next start; what 'serve DIR' brought goes with it"""
    problem: str
    """why it is not served at the moment; "" where it is"""
    rows: tuple[VersionRow, ...]
    managed_by: str = ""
    """the agent file that says what is to serve; "" where operators say so by hand"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promote:
    """Have another version of an agent serve: a number ("v3" or "3"), an alias, or the first digits of a digest.

    The one that served before where `version` is empty.
    """

    agent: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Promoted:
    """The answer to `Promote`, once that version serves."""

    agent: str
    agent_name: str
    number: int
    version: str
    policy: str
    before: int
    """the version that served until then; the same number where nothing was to be done"""
    warm: bool
    """whether instances of it were there already"""
    wider: tuple[str, ...]
    """how its policy is wider than that of the one before, for the operator to know"""


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedShare:
    """So many of a hundred calls are to go to this version, named as in `Promote`."""

    version: str
    percent: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Divide:
    """Have the calls of an agent go to several versions; one by which more than `errors_max` % fail gets none more."""

    agent: str
    shares: tuple[WantedShare, ...]
    errors_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WiderSide:
    """A version that gets a part of the calls, and how its policy is wider than that of the one that serves."""

    number: int
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Divided:
    """The answer to `Divide`, once calls go to all of them."""

    wider: tuple[WiderSide, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Remove:
    """Serve an agent no more and forget all its versions, or forget one that does not serve."""

    agent: str
    version: str
    managed_by: str = ""
    """only where this agent file manages it; empty for whoever does"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAlias:
    """An alias of an agent leads to this version from now on, or is no more where `version` is empty."""

    agent: str
    alias: str
    version: str
