"""What an operator says of an agent's versions, and is told of them: messages of `admin.sock`.

Runs as: the supervisor and runagentctl (and the foreman). Pure.
Reads from strangers: no; see `wire.admin`, which packs and parses them, and under whose name they are used.
"""

from __future__ import annotations

from dataclasses import dataclass

from runagentd.wire.manifest import LoadProblem


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyChoice:
    """The policy for one agent, by its id or name; for all others where `agent` is empty.

    `policy` is a shipped name ("base") or an absolute path.
    """

    agent: str
    policy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceBounds:
    """How many instances of an agent there may be."""

    minimum: int
    maximum: int


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
    alias: str = ""
    """that leads to this version from now on"""
    allow_widening: bool = False
    """although its policy grants more than that of the version that serves"""
    progress: bool = False
    """whether `Progress` may come before the answer"""


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
    """what of it is other than in that one: "code", "environment", "configuration", "policy" """
    warm_seconds: int = 0
    """how long instances of that one are kept"""
    wider: tuple[str, ...] = ()
    """how its policy is wider than that of the one before, for the operator to know"""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAlias:
    """An alias of an agent leads to this version from now on, or is no more where `version` is empty."""

    agent: str
    alias: str
    version: str
