"""A folder becomes a served agent: snapshot it, have it loaded, choose its policy, start it once.

Runs as: the supervisor.
Reads from strangers: the manifest of a loader that may be hostile (wire.manifest checked its form); what it says of
itself decides nothing that an operator did not name.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from runagentd.errors import ConfigurationError, HostError
from runagentd.policy.files import find
from runagentd.policy.model import Policy
from runagentd.supervise import snapshot
from runagentd.supervise.agent import Agent, FirstStart
from runagentd.supervise.load import load
from runagentd.supervise.sharing import check_sharing
from runagentd.supervise.store import Deployment, Store
from runagentd.wire import admin
from runagentd.wire.manifest import LoadProblem, Manifest

_DESCRIBE_SECONDS = 15.0


class Deployer:
    """Deploys folders. `serve` and `remove` are the supervisor's, and so are the agents that are `served`."""

    def __init__(
        self,
        *,
        store: Store,
        served: Mapping[str, Agent],
        loader_uid: int,
        try_plan: Callable[[Policy], None],
        serve: Callable[[Deployment, Policy], Agent],
        remove: Callable[[Agent], Awaitable[None]],
    ) -> None:
        self._store = store
        self._served = served
        self._loader_uid = loader_uid
        self._try_plan = try_plan
        self._serve = serve
        self._remove = remove

    async def deploy(self, request: admin.Deploy, folder: int) -> admin.Reply:
        """Snapshot, load, plan, start once; the answer comes when the agent serves, or cannot."""
        try:
            for choice in request.policies:
                find(choice.policy)  # a wrong file is said at once, before anything is copied
            taken = await asyncio.to_thread(snapshot.take, folder, self._store.incoming())
        except ConfigurationError as error:
            return _refused(request, error)
        except HostError as error:
            return admin.Failed(message=str(error))
        path = Path(taken.path)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            report = await load(descriptor, uid=self._loader_uid, gid=self._loader_uid)
        finally:
            os.close(descriptor)
        manifest = report.manifest
        if manifest is None:
            snapshot.discard(path)
            located = (dataclasses.replace(p, where=_located(request.folder, p.where)) for p in report.problems)
            return _not_deployed(request, tuple(located))
        if manifest.agent_id in self._served:
            snapshot.discard(path)
            problem = LoadProblem(
                where=f"{request.folder}: agent_id",
                what=f"{manifest.agent_id!r} is served already",
                hints=("give each agent an agent_id, or at least a name, of its own",),
            )
            return _not_deployed(request, (problem,))
        chosen = {choice.agent: choice.policy for choice in request.policies}
        origin = os.readlink(f"/proc/self/fd/{folder}")
        reason = self._taken(manifest, chosen) or self._store.kept_by_another(manifest.agent_id, origin)
        if reason:
            snapshot.discard(path)
            return _not_deployed(request, (LoadProblem(where=f"{request.folder}: agent_id", what=reason),))
        hints = (*manifest.hints, *(f"left out of the snapshot: {name}" for name in taken.skipped))
        spec = chosen.get(manifest.agent_id) or chosen.get(manifest.agent_name) or chosen.get("", "base")
        policy = find(spec)
        if manifest.persistent_folders and not policy.files.persistent:
            what = f"persistent_folders are not kept: policy {policy.name} has files.persistent = false"
            hints = (*hints, f"{what}; the shipped policy 'persistent' keeps them")
        deployment = Deployment(manifest=manifest, version=taken.digest, policy=spec)
        self._store.adopt(path, deployment, origin)
        try:
            check_sharing(manifest, policy)
            self._try_plan(policy)
        except ConfigurationError as error:
            self._store.forget(manifest.agent_id)
            return _refused(request, error)
        agent = self._serve(deployment, policy)
        return await self._first_start(request, agent, hints)

    def _taken(self, manifest: Manifest, chosen: dict[str, str]) -> str:
        """Why this folder may not call itself so. Names are chosen by folders; policies, tokens and callers trust them.

        Two agents may share a name as long as nothing is decided by it: a policy that the operator meant for one of
        them, or a call to an id that is the other's name, would reach the wrong one.
        """
        for other in self._served.values():
            theirs = other.deployment.manifest
            if manifest.agent_id == theirs.agent_name or manifest.agent_name == theirs.agent_id:
                return f"the id of one agent is the name of another: {theirs.agent_name!r} ({theirs.agent_id!r})"
            if manifest.agent_name == theirs.agent_name and manifest.agent_name in chosen:
                return f"two agents are named {manifest.agent_name!r}, and --policy names one: use its agent_id"
        return ""

    async def _first_start(self, request: admin.Deploy, agent: Agent, hints: tuple[str, ...]) -> admin.Reply:
        first = FirstStart(done=asyncio.get_running_loop().create_future())
        agent.first_start = first
        agent.start()
        ok = False
        try:
            async with asyncio.timeout(agent.policy.calls.start_timeout / 1000 + _DESCRIBE_SECONDS):
                ok = await first.done
        except TimeoutError:
            first.detail = "no gateway has described the agent in time"
        agent.first_start = None
        problems: tuple[LoadProblem, ...] = ()
        if not ok:
            await self._remove(agent)
            problems = (LoadProblem(where=request.folder, what=f"the agent did not start: {first.detail}"),)
        return admin.Deployed(
            ok=ok,
            agent=agent.id,
            agent_name=agent.deployment.manifest.agent_name,
            tags=tuple(entrypoint.tag for entrypoint in agent.deployment.manifest.entrypoints),
            policy=agent.deployment.policy,
            hints=hints,
            problems=problems,
            describe=first.describe,
            report=first.report,
        )


def _located(folder: str, where: str) -> str:
    """Several folders may be served at once: say in which one a file is."""
    return f"{folder}/{where}" if where else folder


def _refused(request: admin.Deploy, error: ConfigurationError) -> admin.Deployed:
    problems = (LoadProblem(where=p.where, what=p.what, hints=p.hints) for p in error.problems)
    return _not_deployed(request, tuple(problems))


def _not_deployed(request: admin.Deploy, problems: tuple[LoadProblem, ...]) -> admin.Deployed:
    return admin.Deployed(
        ok=False, agent="", agent_name="", tags=(), policy="", hints=(), problems=problems, describe=b"", report=b""
    )
