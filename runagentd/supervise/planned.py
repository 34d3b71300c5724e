"""What a deploy would change, for an operator to see and to agree to before it is done.

Runs as: the supervisor. Pure.
Reads from strangers: nothing; what a version is made from is only compared.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass

from runagentd.policy.compare import differences
from runagentd.policy.model import Policy
from runagentd.policy.order import Comparison
from runagentd.supervise.identity import Identity
from runagentd.supervise.store import Deployed
from runagentd.wire import admin
from runagentd.wire.manifest import Manifest

# Part of what is hashed: another form gives other digests.
_FORM = "runagentd planned 2"
_RELATIONS = {
    Comparison.EQUAL: admin.Relation.SAME,
    Comparison.NARROWER: admin.Relation.NARROWER,
    Comparison.WIDER: admin.Relation.WIDER,
    Comparison.INCOMPARABLE: admin.Relation.OTHER,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """The version that serves, or would if it could be started."""

    number: int
    identity: Identity
    policy: Policy


def agreed(request: admin.Deploy, made: Identity, before: Before | None, known: Deployed | None) -> str:
    """A digest of what is compared: where it is the same later, all that an operator was shown still holds.

    That is what would serve and what serves, whose the agent is so far, and where the aliases lead. What packages come
    to is known only once they are installed: their names are part of the code, and the environment is not in it.
    """
    parts = [_FORM, dataclasses.replace(made, environment="").digest, before.identity.digest if before else ""]
    if known is not None:
        aliases = [f"{alias} {known.aliases.get(alias, 0)}" for alias in request.aliases]
        parts += [str(known.serving), known.managed_by, known.origin, *aliases]
    # As a record of JSON: a path may hold whatever would separate it from the next one.
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def planned(
    request: admin.Deploy,
    *,
    manifest: Manifest,
    made: Identity,
    policy: Policy,
    policy_name: str,
    origin: str,
    install: bool,
    before: Before | None,
    known: Deployed | None,
    served: bool,
    hints: tuple[str, ...],
) -> admin.Planned:
    """`made` and `policy` are those of the version that would serve; with `install` its environment is not known.

    `origin` is the path of its folder.
    """
    kept = known.releases.items() if known is not None and not install else ()
    number = next((number for number, release in kept if release.deployment.version == made.digest), 0)
    leads = known.aliases if known is not None else {}
    changes = made.changes(before.identity) if before is not None else ()
    if install and before is not None:
        # In the order in which they are told.
        changes = tuple(part for part in Identity.PARTS if part in changes or part == "environment")
    return admin.Planned(
        agent=manifest.agent_id,
        agent_name=manifest.agent_name,
        digest=agreed(request, made, before, known),
        serving=known.serving if known is not None else 0,
        served=served,
        number=number,
        changes=changes,
        install=install,
        policy=policy_name,
        keys=tuple(
            admin.KeyChange(key=each.key, relation=_RELATIONS[each.relation], before=each.a, after=each.b)
            for each in (differences(before.policy, policy) if before is not None else ())
        ),
        aliases=tuple(
            admin.AliasChange(alias=alias, before=leads.get(alias, 0))
            for alias in request.aliases
            if leads.get(alias, 0) != number or not number
        ),
        managed_by=known.managed_by if known is not None else "",
        origin=known.origin if known is not None and not known.came_from(origin) else "",
        hints=hints,
    )
