"""A folder becomes a served agent, or another version of one: snapshot it, load it, choose its policy, start it once.

Runs as: the supervisor.
Reads from strangers: the manifest of a loader that may be hostile (wire.manifest checked its form); what it says of
itself decides nothing that an operator did not name.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import os
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from runagentd import kernel
from runagentd.errors import ConfigurationError, HostError, Problem
from runagentd.names import NAME_RULE, agent_id, is_name
from runagentd.policy import stored
from runagentd.policy.files import find
from runagentd.policy.model import Policy
from runagentd.supervise import releases, replies, snapshot
from runagentd.supervise.agent import WARM_SECONDS, Agent
from runagentd.supervise.environment_store import Lease
from runagentd.supervise.environments import Environments
from runagentd.supervise.homes import Homes
from runagentd.supervise.identity import Identity, identity, made_for
from runagentd.supervise.load import load
from runagentd.supervise.places import Places
from runagentd.supervise.planned import Before, agreed, planned
from runagentd.supervise.runtimes import Runtimes
from runagentd.supervise.sharing import check_sharing
from runagentd.supervise.store import Deployment, Release, Store
from runagentd.supervise.teller import Teller
from runagentd.supervise.version import Version
from runagentd.wire import admin
from runagentd.wire.control import Cause
from runagentd.wire.manifest import Manifest
from runagentd.wire.runtime import PythonRuntime

HEALTH_MS_MAX = 30_000
"""How long the function that tells whether an agent is well may take, where nothing else says less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    """A folder as far as it is known before anything of it runs."""

    snapshot: Path
    code: str
    manifest: Manifest
    hints: tuple[str, ...]
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chosen:
    """Under which policy a folder is to be served, and what is to be said of it."""

    spec: str
    """as the operator names the policy"""
    policy: Policy
    hints: tuple[str, ...]
    runtime: PythonRuntime


class Deployer:
    """Deploys folders, and moves between versions. What it is given is the supervisor's, and so are `served` agents."""

    def __init__(
        self,
        *,
        store: Store,
        homes: Homes,
        served: Mapping[str, Agent],
        loader_uid: int,
        environments: Environments,
        runtimes: Runtimes,
        try_plan: Callable[[Policy], None],
        try_call: Callable[[str, str, str, int], Awaitable[str]],
        serve: Callable[[Version], Agent],
        sides: Callable[[str], Mapping[int, Agent]],
        announce: Callable[[Agent], None],
        switched: Callable[[Agent, admin.EventKind, Sequence[str]], None],
        remove: Callable[[Agent, Cause], Awaitable[None]],
    ) -> None:
        self._store = store
        self._homes = homes
        self._served = served
        self._places = Places(store=store, homes=homes, served=served)
        self._loader_uid = loader_uid
        self._environments = environments
        self._runtimes = runtimes
        self._try_plan = try_plan
        self._try_call = try_call
        self._serve = serve
        self._sides = sides
        self._announce = announce
        self._switched = switched
        self._remove = remove
        self._pruning: set[asyncio.Task[None]] = set()
        self._closed = False
        self._busy: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._deploying: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    @contextlib.asynccontextmanager
    async def alone(self, agent: str) -> AsyncIterator[None]:
        """One at a time for each agent: two would each take the other for what served before.

        For what takes as long as an instance takes to start, at most: a rollback waits for it. Packages are installed
        without it.
        """
        lock = self._busy.setdefault(agent, asyncio.Lock())
        async with lock:
            yield

    async def deploy(self, request: admin.Deploy, folder: int, tell: Callable[[str], None]) -> admin.Reply:
        """Snapshot, load, plan, install, start once; the answer comes when the agent serves, or cannot.

        `tell` is called with what takes time, while it does.
        """
        try:
            for alias in request.aliases:
                releases.check_alias(alias)
            for choice in request.policies:
                find(choice.policy)  # a wrong file is said at once, before anything is copied
            loaded = await self._load(request, folder)
            try:
                return await self._in_turn(request, loaded, lambda text: tell(f"{request.folder}: {text}"))
            finally:
                # It is there no more where it was adopted.
                await asyncio.to_thread(snapshot.discard, loaded.snapshot)
        except ConfigurationError as error:
            return replies.refused(request, error)
        except HostError as error:
            return admin.Failed(message=str(error))

    @contextlib.asynccontextmanager
    async def _turn(self, agent: str, tell: Callable[[str], None]) -> AsyncIterator[None]:
        """Deploys of one agent come one after another, as they were asked for: the last one is what is to serve."""
        lock = self._deploying.setdefault(agent, asyncio.Lock())
        teller = Teller(tell)
        if lock.locked():
            teller.say("waiting for another deploy of this agent")
        try:
            await lock.acquire()
        finally:
            teller.close()
        try:
            yield
        finally:
            lock.release()

    async def _in_turn(self, request: admin.Deploy, loaded: _Loaded, tell: Callable[[str], None]) -> admin.Reply:
        """No other command waits while packages are installed, which takes as long as an index likes.

        So all that was looked at before is looked at again when it is done, and only what is found then counts.
        """
        agent_id = loaded.manifest.agent_id
        with contextlib.ExitStack() as held:
            async with self._turn(agent_id, tell):
                async with self.alone(agent_id):
                    chosen = self._choose(request, loaded)  # a no is said now, and not after minutes
                    if request.dry_run:
                        return await self._planned(request, loaded, chosen)
                    runtime = chosen.runtime
                    was_there = self._store.find(agent_id) is not None
                environment = await self._installed(request, loaded, runtime, tell)
                if environment is not None:
                    held.callback(environment.release)
                async with self.alone(agent_id):
                    if was_there and self._store.find(agent_id) is None:
                        what = "the agent was removed while its packages were installed"
                        raise replies.in_folder(request, [Problem("", what, ("deploy it again to have it back",))])
                    return await self._deploy(request, loaded, runtime, environment, held)

    async def _load(self, request: admin.Deploy, folder: int) -> _Loaded:
        """Copy the folder and read what it says of itself; ConfigurationError where it is not right."""
        try:
            await asyncio.to_thread(snapshot.check_configured, folder)
            # What an operator deploys is whole: a version without what its author believes to be there is a broken one.
            taken = await asyncio.to_thread(snapshot.take, folder, self._homes.incoming(), complete=request.keep)
        except ConfigurationError as error:
            raise replies.in_folder(request, error.problems) from error
        except OSError as error:
            problem = Problem("", f"the folder cannot be read: {error.strerror}")
            raise replies.in_folder(request, [problem]) from error
        try:
            descriptor = os.open(taken.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                report = await load(descriptor, uid=self._loader_uid, gid=self._loader_uid)
                if request.keep and not request.dry_run:
                    # The commit that names this snapshot is on the disk when it returns; what it names must be, too.
                    await asyncio.to_thread(kernel.syncfs, descriptor)
            finally:
                os.close(descriptor)
            if report.manifest is None:
                problems = tuple(Problem(p.where, p.what, p.hints) for p in report.problems)
                raise replies.in_folder(request, problems)
            return _Loaded(
                snapshot=taken.path,
                code=taken.digest,
                manifest=_called(request.name, report.manifest),
                hints=(*report.manifest.hints, *(f"left out of the snapshot: {name}" for name in taken.skipped)),
                origin=os.readlink(f"/proc/self/fd/{folder}"),
            )
        except BaseException:
            await asyncio.to_thread(snapshot.discard, taken.path)
            raise

    def _choose(self, request: admin.Deploy, loaded: _Loaded) -> _Chosen:
        """The policy, as it is to be at this moment; ConfigurationError where this folder may not be served now."""
        manifest = loaded.manifest
        self._places.check(request, manifest, origin=loaded.origin)
        known = self._store.find(manifest.agent_id)
        # What nobody says anything about stays as it is: another policy is chosen, and never fallen back to.
        release = known.releases.get(known.serving) if known is not None else None
        usual = release.deployment.policy if release is not None and request.keep else "base"
        chosen = _policies(request)
        spec = chosen.get(manifest.agent_id) or chosen.get(manifest.agent_name) or chosen.get("", usual)
        policy = _bounded(find(spec), request.instances)
        hints = loaded.hints
        if manifest.persistent_folders and not policy.files.persistent:
            what = f"persistent_folders are not kept: policy {policy.name} has files.persistent = false"
            hints = (*hints, f"{what}; the shipped policy 'persistent' keeps them")
        check_sharing(manifest, policy)
        runtime = self._runtime(request, manifest)
        self._try_plan(policy)
        if request.keep and not request.allow_widening and not request.dry_run:
            self._check_not_wider(policy, manifest.agent_id, hint=_ALLOW[bool(request.managed_by)])
        return _Chosen(spec=spec, policy=policy, hints=hints, runtime=runtime)

    async def _deploy(
        self,
        request: admin.Deploy,
        loaded: _Loaded,
        runtime: PythonRuntime,
        environment: Lease | None,
        held: contextlib.ExitStack,
    ) -> admin.Reply:
        """With everything there and nobody else at it. `held` gives the environment up, unless a version has it.

        `runtime` is the one that `environment` was made for.
        """
        manifest = loaded.manifest
        chosen = self._choose(request, loaded)
        if chosen.runtime != runtime:
            what = "the Python that the agent asks for was changed while its packages were installed"
            raise replies.in_folder(request, [Problem("", what, ("deploy it again",))])
        hints = chosen.hints
        agent, known = self._served.get(manifest.agent_id), self._store.find(manifest.agent_id)
        digest = environment.digest if environment is not None else ""
        made = identity(code=loaded.code, environment=digest, manifest=manifest, policy=chosen.policy, runtime=runtime)
        if request.shown and request.shown != agreed(request, made, self._before(manifest.agent_id), known):
            raise ConfigurationError(replies.changed_meanwhile(request))
        deployment = Deployment(
            manifest=manifest, version=made.digest, code=loaded.code, policy=chosen.spec, environment=digest,
            runtime=made.runtime,
        )  # fmt: skip
        if agent is not None and agent.deployment.version == deployment.version:
            if request.aliases or request.managed_by or request.take_over:
                number, origin = agent.version.number, loaded.origin
                self._store.lead(
                    agent.id, number, origin=origin, aliases=request.aliases, managed_by=request.managed_by
                )
                self._homes.own(agent.id, origin)
                self._announce(agent)
            return replies.deployed(agent.version, hints, ok=True, unchanged=True)
        if request.keep and known is not None and not known.stays:
            hints = (*hints, "the agent goes with the 'serve' that brought it, and this version with it")
        if known is not None and known.managed_by and not request.managed_by:
            words = f"{known.managed_by} manages this agent: the next 'runagentctl apply' has serve what that says"
            hints = (*hints, words)
        if known is not None and known.origin and not known.came_from(loaded.origin):
            hints = (*hints, f"before it was served from {known.origin!r}")
        self._homes.adopt(loaded.snapshot, manifest.agent_id, loaded.code, loaded.origin)
        version = self._version(deployment, chosen.policy, runtime, environment)
        held.pop_all()  # the lease is the version's
        before = agent.version if agent is not None else None
        was = self._identity_of(before) if before is not None else None
        serves = False
        try:
            if not await (self._first(version) if agent is None else agent.prove(version)):
                return replies.not_started(request, version, hints)
            if problem := await self.unwell(agent or self._served[manifest.agent_id], version):
                return replies.unwell(request, version, hints, problem)
            self._places.check_name(request, manifest)  # other agents came and went while it started
            version.number = self._store.serve(
                deployment,
                made,
                policy=stored.to_text(chosen.policy),
                origin=loaded.origin,
                stays=request.keep,
                name=request.name,
                aliases=request.aliases,
                managed_by=request.managed_by,
            )
            serves = True
            if agent is not None:
                self._switch(agent, version, admin.EventKind.DEPLOYED, keep_warm=request.keep)
            elif request.aliases:
                self._announce(self._served[manifest.agent_id])
            self._homes.own(manifest.agent_id, loaded.origin)
        finally:
            # Whatever the way out is: what was tried and does not serve holds its folder, its packages and an instance.
            if not serves:
                await self._withdraw(version)
            await self.prune(manifest.agent_id)
        warm = round(WARM_SECONDS) if agent is not None and agent.former is before else 0
        return replies.deployed(
            version, hints, ok=True, before=before, changes=made.changes(was) if was else (), warm=warm
        )

    def _runtime(self, request: admin.Deploy, manifest: Manifest) -> PythonRuntime:
        """What the agent asks for; ConfigurationError where that is not there."""
        try:
            return self._runtimes.choose(manifest.python)
        except ConfigurationError as error:
            raise replies.in_folder(request, error.problems) from error

    async def _installed(
        self,
        request: admin.Deploy,
        loaded: _Loaded,
        runtime: PythonRuntime,
        tell: Callable[[str], None],
        *,
        build_it: bool = True,
    ) -> Lease | None:
        """The environment that the agent's files ask for; ConfigurationError says where in the operator's folder."""
        descriptor = os.open(loaded.snapshot, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return await self._environments.provide(
                descriptor, loaded.manifest.requirements, runtime, tell, build_it=build_it
            )
        except ConfigurationError as error:
            raise replies.in_folder(request, error.problems) from error
        finally:
            os.close(descriptor)

    def _check_not_wider(self, policy: Policy, agent_id: str, *, hint: str) -> None:
        before = self._before(agent_id)
        if before is not None:
            check_not_wider(policy, before.policy, before.number, hint=hint)

    def _before(self, agent_id: str) -> Before | None:
        """What serves; where that could not be served again, what would have served."""
        agent, known = self._served.get(agent_id), self._store.find(agent_id)
        if agent is not None:
            version = agent.version
            return Before(number=version.number, identity=self._identity_of(version), policy=version.policy)
        release = known.releases.get(known.serving) if known is not None else None
        if release is None:
            return None
        policy = stored.from_text(release.deployment.policy, release.policy)
        return Before(number=release.number, identity=release.identity, policy=policy)

    async def _planned(self, request: admin.Deploy, loaded: _Loaded, chosen: _Chosen) -> admin.Planned:
        """What a deploy would change; nothing is built, started or written down."""
        manifest = loaded.manifest
        environment = await self._installed(request, loaded, chosen.runtime, lambda text: None, build_it=False)
        digest = environment.digest if environment is not None else ""
        if environment is not None:
            environment.release()
        return planned(
            request,
            manifest=manifest,
            made=identity(
                code=loaded.code, environment=digest, manifest=manifest, policy=chosen.policy, runtime=chosen.runtime
            ),
            policy=chosen.policy,
            policy_name=chosen.spec,
            origin=loaded.origin,
            install=bool(manifest.requirements) and environment is None,
            before=self._before(manifest.agent_id),
            known=self._store.find(manifest.agent_id),
            served=manifest.agent_id in self._served,
            hints=chosen.hints,
        )

    async def _first(self, version: Version) -> bool:
        """Serve an agent that was not served. Where it does not start, `_withdraw` is to follow at once."""
        version.on_trial = True
        agent = self._serve(version)
        agent.start()
        ok = await version.proven()
        version.on_trial = False
        return ok

    async def unwell(self, agent: Agent, version: Version) -> str:
        """What is wrong with it, as the function says that tells whether it is well; "" where nothing is."""
        manifest = version.deployment.manifest
        if not manifest.health:
            return ""
        instance = agent.ready_instance(version)
        entrypoint = next(each for each in manifest.entrypoints if each.tag == manifest.health)
        limits = (HEALTH_MS_MAX, version.policy.calls.deadline, entrypoint.timeout_ms or HEALTH_MS_MAX)
        problem = "its instance has ended"
        if instance is not None:
            problem = await self._try_call(agent.id, instance.id, manifest.health, min(limits))
        return f"{manifest.health!r} did not answer well: {problem}" if problem else ""

    async def _withdraw(self, version: Version) -> None:
        """Nothing of this version stays, and nothing of its agent where there was no other."""
        agent = self._served.get(version.deployment.manifest.agent_id)
        if agent is not None and agent.version is version:
            await self._remove(agent, Cause.REPLACED)
        elif agent is not None:
            agent.drop(version)

    # ---- from one version to another

    async def promote(self, agent_id: str, text: str) -> admin.Reply:
        """Have the version serve that `text` names, the one that served before where it is empty.

        At once where instances of it are there, else once one has started and is well. ConfigurationError for a version
        that is none.
        """
        async with self.alone(agent_id):
            known, agent = self._store.find(agent_id), self._served.get(agent_id)
            if known is None or agent is None:
                return admin.Failed(message="the agent is not served: deploy it again")
            number = releases.resolve(known, text) if text else releases.former(known)
            before = agent.version
            if before.number == number:
                return replies.promoted(agent, before=before, warm=True)
            if number in known.unread:
                return admin.Failed(message=f"v{number}: {known.unread[number].reason}")
            version = agent.former if agent.is_warm(number) else None
            warm, serves = version is not None, False
            try:
                if version is None:
                    version = self.restored(known.releases[number])
                    if not await agent.prove(version):
                        return admin.Failed(message=f"v{number} did not start: {version.first_start.detail}")
                    if problem := await self.unwell(agent, version):
                        return admin.Failed(message=f"v{number} is not well: {problem}")
                self._store.promote(agent.id, number)
                serves = True
            except (ConfigurationError, HostError, OSError) as error:
                return admin.Failed(message=f"v{number} cannot serve: {error}")
            finally:
                if version is not None and not warm and not serves:
                    agent.drop(version)
            self._switch(agent, version, admin.EventKind.PROMOTED, keep_warm=True)
            await self.prune(agent.id)
            return replies.promoted(agent, before=before, warm=warm)

    async def remove(self, agent_id: str, text: str, *, managed_by: str = "") -> admin.Reply:
        """Forget an agent, or one of its versions that nothing leads to. ConfigurationError for one that is none.

        With `managed_by` only where that agent file manages it.
        """
        async with self.alone(agent_id):
            known, agent = self._store.find(agent_id), self._served.get(agent_id)
            if known is None:
                return admin.Failed(message="the agent is not deployed any more")
            if managed_by and managed_by != known.managed_by:
                return admin.Failed(message=f"{managed_by} does not manage the agent any more")
            if not text:
                self._store.forget(agent_id)
                if agent is not None:
                    await self._remove(agent, Cause.OPERATOR)
            else:
                number = releases.resolve(known, text)
                releases.check_unused(known, number)
                self._store.remove(agent_id, number)
                if agent is not None and agent.former is not None and agent.former.number == number:
                    agent.cool()
            await self.prune(agent_id)
            return admin.Done()

    async def reread(self, agent: str) -> None:
        """Make manifests again that cannot be read, from their snapshots, as they were made when they were deployed.

        A record of another runagentd's form is no reason to serve an agent no more. Where it does not work, the version
        stays as it is, and whoever needs it says why.
        """
        known = self._store.find(agent)
        for number, unread in known.unread.items() if known is not None else ():
            try:
                descriptor = self._homes.open_snapshot(agent, unread.code)
                try:
                    report = await load(descriptor, uid=self._loader_uid, gid=self._loader_uid)
                finally:
                    os.close(descriptor)
                manifest = _called(unread.name, report.manifest) if report.manifest is not None else None
            except (ConfigurationError, HostError, OSError):
                continue
            if manifest is not None and manifest.agent_id == agent:
                self._store.reread(agent, number, manifest)

    def restored(self, release: Release) -> Version:
        """A version as it was deployed; ConfigurationError, HostError or OSError where that is not possible now."""
        policy = stored.from_text(release.deployment.policy, release.policy)
        check_sharing(release.deployment.manifest, policy)
        runtime = self._runtimes.choose(release.deployment.manifest.python)
        for_version = made_for(release.deployment.runtime)
        if release.deployment.environment and for_version and for_version != runtime.version:
            # The daemon itself was moved to another Python.
            what = f"its packages are for Python {for_version}, and it would run on {runtime.version}"
            raise HostError(what, "deploy its folder again")
        self._try_plan(policy)
        try:
            environment = self._environments.lease(release.deployment.environment)
        except (OSError, ValueError) as error:
            raise HostError("its environment is not there any more", "deploy its folder again") from error
        try:
            version = self._version(release.deployment, policy, runtime, environment)
        except BaseException:
            if environment is not None:
                environment.release()
            raise
        version.number = release.number
        return version

    def _switch(self, agent: Agent, version: Version, kind: admin.EventKind, *, keep_warm: bool) -> None:
        wider = replies.wider_keys(version.policy, agent.policy)
        agent.switch(version, keep_warm=keep_warm)
        self._switched(agent, kind, wider)

    def _version(
        self, deployment: Deployment, policy: Policy, runtime: PythonRuntime, environment: Lease | None
    ) -> Version:
        agent = deployment.manifest.agent_id
        code = self._homes.open_snapshot(agent, deployment.code)
        try:
            data = self._homes.open_data(agent)
        except BaseException:
            os.close(code)
            raise
        return Version(
            deployment=deployment,
            policy=policy,
            runtime=runtime,
            snapshot=code,
            persistent=data,
            environment=environment,
            on_over=functools.partial(self._over, agent),
        )

    def _over(self, agent: str) -> None:
        """Nothing of a version is left: its snapshot may be needed no more."""
        if not self._closed:
            task = asyncio.create_task(self._prune_alone(agent), name=f"prune {agent}")
            self._pruning.add(task)
            task.add_done_callback(self._pruning.discard)

    async def _prune_alone(self, agent: str) -> None:
        async with self.alone(agent):
            if not self._closed:
                await self.prune(agent)

    def close(self) -> None:
        """Whatever is over from now on is looked at by the next supervisor."""
        self._closed = True

    def _identity_of(self, version: Version) -> Identity:
        deployment = version.deployment
        made = identity(
            code=deployment.code,
            environment=deployment.environment,
            manifest=deployment.manifest,
            policy=version.policy,
            runtime=version.runtime,
        )
        # What it was made for, which after an update in its place is not what it runs on.
        return dataclasses.replace(made, runtime=deployment.runtime)

    async def prune(self, agent_id: str) -> None:
        """Remove the snapshots of an agent that nothing is made from, nor will be."""
        agent = self._served.get(agent_id)
        keep = self._store.codes(agent_id)
        for each in (*([agent] if agent is not None else []), *self._sides(agent_id).values()):
            keep |= {version.deployment.code for version in each.versions()}
        for path in self._homes.put_aside(agent_id, keep):
            await asyncio.to_thread(snapshot.discard, path)


_ALLOW = {
    False: "--allow-widening deploys it all the same",
    True: "allow_widening = true in the agent file allows it",
}


def check_not_wider(policy: Policy, than: Policy, number: int, *, hint: str) -> None:
    """ConfigurationError where a policy grants anything that the one of the version of this number does not."""
    wider = replies.wider_keys(policy, than)
    if wider:
        raise ConfigurationError(
            *(Problem(f"policy {policy.name}", f"is wider than that of v{number}: {key}") for key in wider),
            Problem("", "nothing was deployed", (hint,)),
        )


def _policies(request: admin.Deploy) -> dict[str, str]:
    """The policies that the operator chose, by the agent they are for; "" is for any."""
    return {choice.agent: choice.policy for choice in request.policies}


def _bounded(policy: Policy, bounds: admin.InstanceBounds | None) -> Policy:
    """With other numbers of instances, within its own most."""
    if bounds is None:
        return policy
    most = policy.scaling.instances_max
    minimum = policy.scaling.instances_min if bounds.minimum is None else bounds.minimum
    maximum = most if bounds.maximum is None else bounds.maximum
    if not 0 <= minimum <= maximum <= most or not maximum:
        what = (
            f"{minimum}:{maximum} is not within what policy {policy.name} allows: "
            f"at most {most} (scaling.instances_max), at least 1 as maximum"
        )
        raise ConfigurationError(Problem("--instances", what))
    scaling = dataclasses.replace(policy.scaling, instances_min=minimum, instances_max=maximum)
    return dataclasses.replace(policy, scaling=scaling)


def _called(name: str, manifest: Manifest) -> Manifest:
    """What the operator calls it, where that is something else than its folder does."""
    if not name:
        return manifest
    if not is_name(name):
        raise ConfigurationError(Problem("--name", f"a name has {NAME_RULE}"))
    return dataclasses.replace(manifest, agent_name=name, agent_id=agent_id(None, name))
