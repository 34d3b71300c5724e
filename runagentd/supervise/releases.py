"""The versions of an agent as an operator names and sees them.

Runs as: the supervisor. Pure.
Reads from strangers: nothing; what operators type is only compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from runagentd.errors import ConfigurationError, Problem
from runagentd.log import escape
from runagentd.supervise.agent import Agent
from runagentd.supervise.store import Deployed
from runagentd.wire import admin
from runagentd.wire.versions import ALIAS_HINT, DIGEST, NUMBER, alias_problem

SIDES_MAX = 3
"""Each has instances of its own, within its own policy's bounds."""


def check_alias(alias: str) -> None:
    """ConfigurationError for a text that is no alias, or that could be taken for a number or a digest."""
    if problem := alias_problem(alias):
        raise ConfigurationError(Problem("alias", f'"{escape(alias[:80])}" {problem}', (ALIAS_HINT,)))


def resolve(known: Deployed, text: str) -> int:
    """The number of the version that `text` names; ConfigurationError where that is none, or not one alone."""
    if text in known.aliases:
        return known.aliases[text]
    if (match := NUMBER.fullmatch(text)) is not None and int(match[1]) in known.numbers:
        return int(match[1])
    found = []
    if DIGEST.fullmatch(text):
        found = [n for n, release in known.releases.items() if release.deployment.version.startswith(text)]
    if len(found) == 1:
        return found[0]
    kept = ", ".join(f"v{number}" for number in known.numbers)
    what = "names several versions" if found else "is no version of this agent"
    raise ConfigurationError(
        Problem(escape(text[:80]), what, (f"kept are {kept}", "'runagentctl versions' lists them"))
    )


def former(known: Deployed) -> int:
    """The version that served before; ConfigurationError where there is none."""
    if known.former and known.former in known.numbers:
        return known.former
    raise ConfigurationError(
        Problem("", f"no other version served before v{known.serving}", ("'runagentctl versions' lists what is kept",))
    )


def shares(known: Deployed, wanted: Sequence[admin.WantedShare]) -> dict[int, int]:
    """In per cent, of the versions beside the one that serves; with 0 it is there for who calls it by an alias.

    ConfigurationError where they cannot be.
    """
    found: dict[int, int] = {}
    for share in wanted:
        number = resolve(known, share.version)
        if number in found:
            raise ConfigurationError(Problem("", f"v{number} is named twice"))
        if not 0 <= share.percent <= 100:
            raise ConfigurationError(Problem("", f"v{number}: {share.percent} is not a percentage"))
        found[number] = share.percent
    if known.serving not in found or sum(found.values()) != 100:
        words = f"the percentages of all versions, v{known.serving} that serves among them, must add up to 100"
        raise ConfigurationError(
            Problem("", words, (f"to have v{known.serving} get no call at all, promote another version",))
        )
    if found.pop(known.serving) == 0:
        raise ConfigurationError(
            Problem("", f"v{known.serving} serves, and would get no call", ("promote another version",))
        )
    if len(found) > SIDES_MAX:
        raise ConfigurationError(Problem("", f"calls go to at most {SIDES_MAX} versions beside the one that serves"))
    return found


def check_unused(known: Deployed, number: int) -> None:
    """ConfigurationError where a version cannot be forgotten, for something leads to it."""
    if number == known.serving:
        raise ConfigurationError(
            Problem("", f"v{number} serves", ("promote another one first, or remove the whole agent",))
        )
    if number in known.shares:
        words = f"v{number} gets {known.shares[number]} % of the calls"
        raise ConfigurationError(Problem("", words, ("'runagentctl traffic' changes that",)))
    for alias in sorted(alias for alias, to in known.aliases.items() if to == number):
        raise ConfigurationError(
            Problem("", f"v{number} has the alias {alias!r}", ("have that lead to another one first",))
        )


def shown(known: Deployed, agent: Agent | None, sides: Mapping[int, Agent], problem: str) -> admin.Versions:
    """All of them, the newest first. `problem` is why the agent is not served, where it is not."""
    names = [release.deployment.manifest.agent_name for release in known.releases.values()]
    return admin.Versions(
        agent=known.agent,
        agent_name=agent.deployment.manifest.agent_name if agent is not None else next(iter(names), known.agent),
        stays=known.stays,
        problem="" if agent is not None else problem or "it is not served",
        rows=tuple(_row(known, number, agent, sides.get(number)) for number in known.numbers),
        managed_by=known.managed_by,
    )


def _row(known: Deployed, number: int, agent: Agent | None, side: Agent | None) -> admin.VersionRow:
    release = known.releases.get(number)
    serving = number == known.serving
    warm = agent is not None and agent.former is not None and agent.former.number == number
    percent = (100 - sum(known.shares.values()) if serving else known.shares.get(number, 0)) if agent is not None else 0
    state = "serving" if serving else "shares" if number in known.shares else "warm" if warm else "kept"
    if release is None:
        state = f"damaged: {known.unread[number].reason}"
    elif serving and agent is None:
        state = "not served"
    instances = sum(
        each.alive and each.version.number == number
        for owner in (agent, side)
        if owner is not None
        for each in owner.instances.values()
    )
    return admin.VersionRow(
        number=number,
        version=release.deployment.version if release is not None else "",
        code=release.identity.code if release is not None else "",
        environment=release.identity.environment if release is not None else "",
        configuration=release.identity.configuration if release is not None else "",
        policy=release.deployment.policy if release is not None else "",
        policy_digest=release.identity.policy if release is not None else "",
        origin=release.origin if release is not None else "",
        created_unix_ms=release.created_unix_ms if release is not None else 0,
        state=state,
        percent=percent,
        aliases=tuple(sorted(alias for alias, to in known.aliases.items() if to == number)),
        instances=instances,
        warm_until_unix_ms=agent.former_until_unix_ms if state == "warm" and agent is not None else 0,
        runtime=release.identity.runtime if release is not None else "",
    )
