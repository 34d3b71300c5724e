"""A folder becomes a served agent, or another version of one: snapshot it, load it, choose its policy, start it once.

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
from runagentd.supervise.agent import Agent
from runagentd.supervise.environment_store import Lease
from runagentd.supervise.environments import Environments
from runagentd.supervise.load import load
from runagentd.supervise.sharing import check_sharing
from runagentd.supervise.store import Deployment, Store
from runagentd.supervise.version import Version
from runagentd.wire import admin
from runagentd.wire.manifest import LoadProblem, Manifest


class Deployer:
    """Deploys folders. `serve`, `switched` and `remove` are the supervisor's, and so are the `served` agents."""

    def __init__(
        self,
        *,
        store: Store,
        served: Mapping[str, Agent],
        loader_uid: int,
        environments: Environments,
        try_plan: Callable[[Policy], None],
        serve: Callable[[Version], Agent],
        switched: Callable[[Agent], None],
        remove: Callable[[Agent], Awaitable[None]],
    ) -> None:
        self._store = store
        self._served = served
        self._loader_uid = loader_uid
        self._environments = environments
        self._try_plan = try_plan
        self._serve = serve
        self._switched = switched
        self._remove = remove
        self._busy: dict[str, asyncio.Lock] = {}

    async def deploy(self, request: admin.Deploy, folder: int, tell: Callable[[str], None]) -> admin.Reply:
        """Snapshot, load, install, plan, start once; the answer comes when the agent serves, or cannot.

        `tell` is called with what takes time, while it does.
        """
        # Two versions of one agent at a time would each take the other for what served before.
        async with self._busy.setdefault(request.replaces, asyncio.Lock()) if request.replaces else asyncio.Lock():
            return await self._deploy(request, folder, tell)

    async def _deploy(self, request: admin.Deploy, folder: int, tell: Callable[[str], None]) -> admin.Reply:
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
        chosen = {choice.agent: choice.policy for choice in request.policies}
        origin = os.readlink(f"/proc/self/fd/{folder}")
        problem = self._refusal(request, manifest, chosen, origin)
        if problem is not None:
            snapshot.discard(path)
            return _not_deployed(request, (problem,))
        hints = (*manifest.hints, *(f"left out of the snapshot: {name}" for name in taken.skipped))
        spec = chosen.get(manifest.agent_id) or chosen.get(manifest.agent_name) or chosen.get("", "base")
        policy = find(spec)
        if manifest.persistent_folders and not policy.files.persistent:
            what = f"persistent_folders are not kept: policy {policy.name} has files.persistent = false"
            hints = (*hints, f"{what}; the shipped policy 'persistent' keeps them")
        try:
            check_sharing(manifest, policy)
            self._try_plan(policy)
            environment = await self._installed(request, path, manifest, tell)
        except ConfigurationError as error:
            snapshot.discard(path)
            return _refused(request, error)
        except HostError as error:
            snapshot.discard(path)
            return admin.Failed(message=str(error))
        digest = environment.digest if environment is not None else ""
        deployment = Deployment(manifest=manifest, version=taken.digest, policy=spec, environment=digest)
        agent = self._served.get(manifest.agent_id)
        if agent is not None and (agent.deployment, agent.policy) == (deployment, policy):
            if environment is not None:
                environment.release()
            snapshot.discard(path)
            return _reply(agent.version, hints, ok=True, problems=(), unchanged=True)
        try:
            self._store.adopt(path, deployment, origin)
            version = self._version(deployment, policy, environment)
        except BaseException:
            if environment is not None:
                environment.release()
            raise
        if agent is None:
            return await self._first(request, version, hints)
        return await self._another(request, agent, version, hints)

    async def _installed(
        self, request: admin.Deploy, snapshot_path: Path, manifest: Manifest, tell: Callable[[str], None]
    ) -> Lease | None:
        """The environment that the agent's files ask for; ConfigurationError says where in the operator's folder."""
        descriptor = os.open(snapshot_path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return await self._environments.provide(
                descriptor, manifest.requirements, lambda text: tell(f"{request.folder}: {text}")
            )
        except ConfigurationError as error:
            located = (dataclasses.replace(p, where=_located(request.folder, p.where)) for p in error.problems)
            raise ConfigurationError(*located) from error
        finally:
            os.close(descriptor)

    def _refusal(
        self, request: admin.Deploy, manifest: Manifest, chosen: dict[str, str], origin: str
    ) -> LoadProblem | None:
        """Why this folder may not be served as what it says it is."""
        where = f"{request.folder}: agent_id"
        if request.replaces and manifest.agent_id != request.replaces:
            return LoadProblem(
                where=where,
                what=f"{manifest.agent_id!r} is another agent than the folder was before, {request.replaces!r}",
                hints=("an agent keeps its agent_id, or without one its name; start 'serve' again for another agent",),
            )
        if manifest.agent_id in self._served and not request.replaces:
            return LoadProblem(
                where=where,
                what=f"{manifest.agent_id!r} is served already",
                hints=("give each agent an agent_id, or at least a name, of its own",),
            )
        reason = self._taken(manifest, chosen) or self._store.kept_by_another(manifest.agent_id, origin)
        return LoadProblem(where=where, what=reason) if reason else None

    def _taken(self, manifest: Manifest, chosen: dict[str, str]) -> str:
        """Why this folder may not call itself so. Names are chosen by folders; policies, tokens and callers trust them.

        Two agents may share a name as long as nothing is decided by it: a policy that the operator meant for one of
        them, or a call to an id that is the other's name, would reach the wrong one.
        """
        for other in self._served.values():
            theirs = other.deployment.manifest
            if theirs.agent_id == manifest.agent_id:
                continue
            if manifest.agent_id == theirs.agent_name or manifest.agent_name == theirs.agent_id:
                return f"the id of one agent is the name of another: {theirs.agent_name!r} ({theirs.agent_id!r})"
            if manifest.agent_name == theirs.agent_name and manifest.agent_name in chosen:
                return f"two agents are named {manifest.agent_name!r}, and --policy names one: use its agent_id"
        return ""

    async def _first(self, request: admin.Deploy, version: Version, hints: tuple[str, ...]) -> admin.Reply:
        """Serve an agent that was not served."""
        version.on_trial = True
        self._store.remember(version.deployment)
        agent = self._serve(version)
        agent.start()
        ok = await version.proven()
        version.on_trial = False
        if not ok:
            await self._remove(agent)
            return _not_started(request, version, hints)
        self._prune(agent)
        return _reply(version, hints, ok=True, problems=())

    async def _another(
        self, request: admin.Deploy, agent: Agent, version: Version, hints: tuple[str, ...]
    ) -> admin.Reply:
        """Serve another version in the place of one that goes on until this one is proven."""
        if not await agent.prove(version):
            self._prune(agent)
            return _not_started(request, version, hints)
        self._store.remember(version.deployment)
        agent.switch(version)
        self._switched(agent)
        self._prune(agent)
        return _reply(version, hints, ok=True, problems=())

    def _version(self, deployment: Deployment, policy: Policy, environment: Lease | None) -> Version:
        return Version(
            deployment=deployment,
            policy=policy,
            snapshot=self._store.open_snapshot(deployment),
            persistent=self._store.open_persistent(deployment),
            environment=environment,
        )

    def _prune(self, agent: Agent) -> None:
        self._store.prune(agent.id, {version.deployment.version for version in agent.versions()})


def _not_started(request: admin.Deploy, version: Version, hints: tuple[str, ...]) -> admin.Deployed:
    what = f"the agent did not start: {version.first_start.detail}"
    return _reply(version, hints, ok=False, problems=(LoadProblem(where=request.folder, what=what),))


def _reply(
    version: Version, hints: tuple[str, ...], *, ok: bool, problems: tuple[LoadProblem, ...], unchanged: bool = False
) -> admin.Deployed:
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
