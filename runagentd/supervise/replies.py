"""What an operator is told of a deploy, and of a way from one version to another. Pure.

Runs as: the supervisor.
Reads from strangers: nothing; what a runner says of its agent is passed on unread.
"""

from __future__ import annotations

from collections.abc import Sequence

from runagentd.errors import ConfigurationError, Problem
from runagentd.policy.compare import widening
from runagentd.policy.model import Policy
from runagentd.supervise.agent import Agent
from runagentd.supervise.version import Version
from runagentd.wire import admin
from runagentd.wire.manifest import LoadProblem


def wider_keys(policy: Policy, than: Policy) -> tuple[str, ...]:
    """In words, each key where `policy` grants more than `than`, or something else."""
    return tuple(f"{each.key} = {each.b}, was {each.a}" for each in widening(than, policy))


def promoted(agent: Agent, *, before: Version, warm: bool) -> admin.Promoted:
    """Another version serves than `before`, or the same."""
    version = agent.version
    return admin.Promoted(
        agent=agent.id,
        agent_name=version.deployment.manifest.agent_name,
        number=version.number,
        version=version.deployment.version,
        policy=version.deployment.policy,
        before=before.number,
        warm=warm,
        wider=wider_keys(version.policy, before.policy),
    )


def not_started(request: admin.Deploy, version: Version, hints: tuple[str, ...]) -> admin.Deployed:
    """Its first instance has not become ready."""
    what = f"the agent did not start: {version.first_start.detail}"
    return deployed(version, hints, ok=False, problems=(LoadProblem(where=request.folder, what=what),))


def unwell(request: admin.Deploy, version: Version, hints: tuple[str, ...], problem: str) -> admin.Deployed:
    """It has, and its own function says that something is wrong."""
    words = LoadProblem(
        where=f"{request.folder}: health",
        what=f"{problem} (it is called before anybody else calls the agent)",
    )
    return deployed(version, hints, ok=False, problems=(words,))


def deployed(
    version: Version,
    hints: tuple[str, ...],
    *,
    ok: bool,
    problems: tuple[LoadProblem, ...] = (),
    unchanged: bool = False,
    before: Version | None = None,
    changes: tuple[str, ...] = (),
    warm: int = 0,
) -> admin.Deployed:
    """What has become of a version; `warm` is for how many seconds the one before is kept."""
    manifest = version.deployment.manifest
    return admin.Deployed(
        ok=ok,
        agent=manifest.agent_id,
        agent_name=manifest.agent_name,
        tags=tuple(entrypoint.tag for entrypoint in manifest.entrypoints),
        policy=version.deployment.policy,
        hints=hints,
        problems=problems,
        describe=version.first_start.describe,
        report=version.first_start.report,
        unchanged=unchanged,
        number=version.number,
        version=version.deployment.version,
        before=before.number if before is not None else 0,
        changes=changes,
        warm_seconds=warm,
        wider=wider_keys(version.policy, before.policy) if before is not None else (),
    )


_KEYS = {"--name": "name", "--instances": "scaling", "--alias": "aliases", "alias": "aliases"}
"""What an agent file calls what is an option of 'deploy'."""


def changed_meanwhile(request: admin.Deploy) -> Problem:
    """What was agreed to is not any more what there is."""
    what = "is not what it was when the difference was shown, or what is deployed has changed meanwhile"
    return Problem(request.folder, what, ("nothing was deployed: look at the difference again",))


def in_folder(request: admin.Deploy, problems: Sequence[Problem]) -> ConfigurationError:
    """Several folders may be served at once: say in which one a file is."""
    return ConfigurationError(
        *(Problem(f"{request.folder}/{p.where}" if p.where else request.folder, p.what, p.hints) for p in problems)
    )


def refused(request: admin.Deploy, error: ConfigurationError) -> admin.Deployed:
    """Nothing was tried, and why; options are called as the agent file calls them, where it is one that asks."""
    file = request.managed_by
    problems = tuple(
        LoadProblem(
            where=f"{file}: {_KEYS[p.where]}" if file and p.where in _KEYS else p.where, what=p.what, hints=p.hints
        )
        for p in error.problems
    )
    return admin.Deployed(
        ok=False, agent="", agent_name="", tags=(), policy="", hints=(), problems=problems, describe=b"", report=b""
    )
