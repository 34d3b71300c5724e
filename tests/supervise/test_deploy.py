"""What a deploy looks at before and after its packages are installed, who waits for it, and what it leaves behind.

The store, the folders and the loader are real; an agent here only says whether its instance starts.
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest

from runagentd import interpreters
from runagentd.supervise.deploy import Deployer
from runagentd.supervise.homes import Homes
from runagentd.supervise.runtimes import Runtimes
from runagentd.supervise.store import Store
from runagentd.supervise.version import Version
from runagentd.wire import admin
from runagentd.wire.control import Cause
from runagentd.wire.runtime import PythonRuntime
from tests.system.folders import agent, policy

pytestmark = [pytest.mark.root, pytest.mark.slow]

NOBODY = 65534
DIGEST = "e" * 64


class FakeLease:
    def __init__(self) -> None:
        self.digest = DIGEST
        self.descriptor = -1
        self.released = False

    def release(self) -> None:
        self.released = True


class FakeEnvironments:
    """Installs when it is told to."""

    def __init__(self) -> None:
        self.asked = asyncio.Semaphore(0)
        self.installed = asyncio.Event()
        self.leases: list[FakeLease] = []

    async def provide(
        self,
        folder: int,
        names: Sequence[str],
        runtime: PythonRuntime,
        tell: Callable[[str], None],
        *,
        build_it: bool = True,
    ) -> FakeLease | None:
        if not names:
            return None
        self.asked.release()
        tell("resolving the requirements")
        await self.installed.wait()
        self.leases.append(FakeLease())
        return self.leases[-1]

    def lease(self, digest: str) -> FakeLease | None:
        if not digest:
            return None
        self.leases.append(FakeLease())
        return self.leases[-1]


class FakeAgent:
    """Keeps the version that serves. Instances start at once, unless `starts` is cleared; then `trying` is released."""

    def __init__(self, version: Version, starts: asyncio.Event, trying: asyncio.Semaphore) -> None:
        self.version = version
        self.former: Version | None = None
        self.dropped: list[Version] = []
        self._starts = starts
        self._trying = trying
        self._tried: list[Version] = []

    @property
    def id(self) -> str:
        return self.version.deployment.manifest.agent_id

    @property
    def deployment(self) -> Any:
        return self.version.deployment

    @property
    def policy(self) -> Any:
        return self.version.policy

    def start(self) -> None:
        if self._starts.is_set():
            self.version.first_start.over(True)
        else:
            self._trying.release()

    async def prove(self, version: Version) -> bool:
        self._tried.append(version)
        if not self._starts.is_set():
            self._trying.release()
        await self._starts.wait()
        return True

    def drop(self, version: Version) -> None:
        version.give_up()
        self.dropped.append(version)

    def is_warm(self, number: int) -> bool:
        return False

    def switch(self, version: Version, *, keep_warm: bool) -> None:
        self.version.give_up()
        self.version = version

    def versions(self) -> set[Version]:
        return {self.version, *(version for version in self._tried if not version.given_up)}


class Bench:
    """A deployer, what it was given, and folders to deploy."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.store = Store(place)
        (place / "agents").mkdir()
        self.environments = FakeEnvironments()
        self.starts = asyncio.Event()
        self.starts.set()
        self.trying = asyncio.Semaphore(0)
        self.served: dict[str, FakeAgent] = {}
        self.begun: list[str] = []
        """the names of agents of which a first instance was started"""
        self.told: list[str] = []
        self.deployer = Deployer(
            store=self.store,
            homes=Homes(place / "agents"),
            served=self.served,  # type: ignore[arg-type]  # what `Deployer` uses of one
            loader_uid=NOBODY,
            environments=self.environments,  # type: ignore[arg-type]
            runtimes=Runtimes(interpreters.find()),
            try_plan=lambda policy: None,
            try_call=self._try_call,
            serve=self._serve,  # type: ignore[arg-type]
            sides=lambda agent: {},
            announce=lambda agent: None,
            switched=lambda agent, kind, wider: None,
            remove=self._remove,  # type: ignore[arg-type]
        )

    async def _try_call(self, agent: str, instance: str, tag: str, most: int) -> str:
        return ""

    def _serve(self, version: Version) -> FakeAgent:
        self.begun.append(version.deployment.manifest.agent_name)
        made = self.served[version.deployment.manifest.agent_id] = FakeAgent(version, self.starts, self.trying)
        return made

    async def _remove(self, agent: FakeAgent, cause: Cause) -> None:
        del self.served[agent.id]
        agent.version.give_up()

    def folder(self, name: str, word: str = "one", *, requires: str = "", agent_id: str = "") -> Path:
        more = {"agent_id": agent_id} if agent_id else {}
        source = f"def say() -> str:\n    return {word!r}\n"
        folder = agent(self.place / f"{name}-{word}", name, source, "say", **more)
        if requires:
            (folder / "requirements.txt").write_text(requires)
        return folder

    async def deploy(
        self,
        folder: Path,
        *,
        policy: str = "",
        keep: bool = True,
        widening: bool = False,
        take_over: bool = True,
        managed_by: str = "",
        aliases: tuple[str, ...] = (),
        dry_run: bool = False,
        shown: str = "",
    ) -> admin.Reply:
        """Each version has a folder of its own here, so what serves is taken over."""
        policies = (admin.PolicyChoice(agent="", policy=policy),) if policy else ()
        request = admin.Deploy(
            folder=str(folder),
            policies=policies,
            keep=keep,
            allow_widening=widening,
            progress=True,
            take_over=take_over,
            managed_by=managed_by,
            aliases=aliases,
            dry_run=dry_run,
            shown=shown,
        )
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return await self.deployer.deploy(request, descriptor, self.told.append)
        finally:
            os.close(descriptor)

    def serving(self, agent_id: str) -> int:
        known = self.store.find(agent_id)
        assert known is not None
        return known.serving


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Callable[[Bench], Coroutine[Any, Any, None]]], None]:
    """Run a test's own coroutine, which must end within twenty seconds."""

    def go(test: Callable[[Bench], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            bench = Bench(tmp_path)
            try:
                async with asyncio.timeout(20):
                    await test(bench)
            finally:
                bench.store.close()

        asyncio.run(main())

    return go


Run = Callable[[Callable[[Bench], Coroutine[Any, Any, None]]], None]


def refusal(reply: admin.Reply) -> str:
    assert isinstance(reply, admin.Deployed)
    assert not reply.ok
    return f"{reply.problems[0].where}: {reply.problems[0].what}"


def number(reply: admin.Reply) -> int:
    assert isinstance(reply, admin.Deployed), reply
    assert reply.ok, reply.problems
    return reply.number


def test_while_packages_are_installed_other_commands_of_the_agent_do_not_wait(run: Run) -> None:
    """However long that takes; and what is installed then is served on top of what they have done."""

    async def test(bench: Bench) -> None:
        for word in ("one", "two"):
            await bench.deploy(bench.folder("chat", word))
        agent_id = next(iter(bench.served))
        deploy = asyncio.create_task(bench.deploy(bench.folder("chat", "three", requires="six\n")))
        await bench.environments.asked.acquire()
        assert isinstance(await bench.deployer.promote(agent_id, ""), admin.Promoted)
        assert bench.serving(agent_id) == 1
        assert await bench.deployer.remove(agent_id, "v2") == admin.Done()
        assert not deploy.done()
        bench.environments.installed.set()
        assert number(await deploy) == 3
        assert bench.serving(agent_id) == 3

    run(test)


def test_an_agent_that_was_removed_while_its_packages_were_installed_does_not_come_back(run: Run) -> None:
    async def test(bench: Bench) -> None:
        await bench.deploy(bench.folder("chat"))
        agent_id = next(iter(bench.served))
        folder = bench.folder("chat", "two", requires="six\n")
        deploy = asyncio.create_task(bench.deploy(folder))
        await bench.environments.asked.acquire()
        assert await bench.deployer.remove(agent_id, "") == admin.Done()
        bench.environments.installed.set()
        assert refusal(await deploy) == f"{folder}: the agent was removed while its packages were installed"
        assert (bench.served, bench.store.agents()) == ({}, [])
        assert [lease.released for lease in bench.environments.leases] == [True]

    run(test)


def test_deploys_of_one_agent_take_turns_in_their_order(run: Run) -> None:
    """The second waits, says so, and serves at the end, though it had nothing to install."""

    async def test(bench: Bench) -> None:
        slow, quick = bench.folder("chat", "one", requires="six\n"), bench.folder("chat", "two")
        first = asyncio.create_task(bench.deploy(slow))
        await bench.environments.asked.acquire()
        second = asyncio.create_task(bench.deploy(quick))
        waits = f"{quick}: waiting for another deploy of this agent"
        while waits not in bench.told:  # noqa: ASYNC110  (a list, which tells nobody)
            await asyncio.sleep(0.001)
        bench.environments.installed.set()
        assert (number(await first), number(await second)) == (1, 2)
        assert bench.serving(next(iter(bench.served))) == 2

    run(test)


def test_deploys_of_different_agents_do_not_wait_for_each_other(run: Run) -> None:
    async def test(bench: Bench) -> None:
        slow = asyncio.create_task(bench.deploy(bench.folder("slow", requires="six\n")))
        await bench.environments.asked.acquire()
        assert number(await bench.deploy(bench.folder("quick"))) == 1
        assert not slow.done()
        bench.environments.installed.set()
        assert number(await slow) == 1

    run(test)


def test_a_name_that_another_agent_took_meanwhile_is_refused(run: Run) -> None:
    """It was free when the packages began to be installed, and it is not when they are there."""

    async def test(bench: Bench) -> None:
        folder = bench.folder("chat", requires="six\n")
        deploy = asyncio.create_task(bench.deploy(folder))
        await bench.environments.asked.acquire()
        assert number(await bench.deploy(bench.folder("other", agent_id="chat"))) == 1
        bench.environments.installed.set()
        said = refusal(await deploy)
        assert said == f"{folder}: agent_id: the id of one agent is the name of another: 'other' ('chat')"
        assert list(bench.served) == ["chat"]
        assert bench.begun == ["other"], "nothing of it was started"
        assert [lease.released for lease in bench.environments.leases] == [True]

    run(test)


def test_a_name_that_another_agent_took_while_this_one_started_is_refused(run: Run) -> None:
    """A version may have another name than the one before, and others see it only when it serves."""

    async def test(bench: Bench) -> None:
        await bench.deploy(bench.folder("before", agent_id="id"))
        bench.starts.clear()
        folder = bench.folder("after", agent_id="id")
        deploy = asyncio.create_task(bench.deploy(folder))
        await bench.trying.acquire()
        goes_on, bench.starts = bench.starts, asyncio.Event()
        bench.starts.set()
        assert number(await bench.deploy(bench.folder("third", agent_id="after"))) == 1
        goes_on.set()
        said = refusal(await deploy)
        assert said == f"{folder}: agent_id: the id of one agent is the name of another: 'third' ('after')"
        assert bench.serving("id") == 1

    run(test)


def test_what_serves_when_the_packages_are_there_decides_about_the_policy(run: Run, tmp_path: Path) -> None:
    """Without --policy it is that of the version that serves: of then, not of minutes ago."""
    wide = policy(tmp_path, "wide", '[resources]\nmemory_max = "512MiB"\n')

    async def test(bench: Bench) -> None:
        await bench.deploy(bench.folder("chat", "one"))
        await bench.deploy(bench.folder("chat", "two"), policy=wide, widening=True)
        agent_id = next(iter(bench.served))
        deploy = asyncio.create_task(bench.deploy(bench.folder("chat", "three", requires="six\n")))
        await bench.environments.asked.acquire()
        await bench.deployer.promote(agent_id, "v1")
        bench.environments.installed.set()
        reply = await deploy
        assert isinstance(reply, admin.Deployed)
        assert (reply.ok, reply.policy) == (True, "base")

    run(test)


def test_a_policy_that_has_become_too_wide_meanwhile_is_refused(run: Run, tmp_path: Path) -> None:
    wide = policy(tmp_path, "wide", '[resources]\nmemory_max = "512MiB"\n')

    async def test(bench: Bench) -> None:
        await bench.deploy(bench.folder("chat", "one"))
        await bench.deploy(bench.folder("chat", "two"), policy=wide, widening=True)
        agent_id = next(iter(bench.served))
        deploy = asyncio.create_task(bench.deploy(bench.folder("chat", "three", requires="six\n"), policy=wide))
        await bench.environments.asked.acquire()
        await bench.deployer.promote(agent_id, "v1")
        bench.environments.installed.set()
        assert "is wider than that of v1: resources.memory_max" in refusal(await deploy)
        assert bench.serving(agent_id) == 1

    run(test)


HAND, SERVE, FILE, OTHER_FILE = "", "serve", "/etc/a.toml", "/etc/b.toml"


@pytest.mark.parametrize(
    ("before", "after", "same_folder", "words"),
    [
        (HAND, HAND, True, ""),
        (HAND, HAND, False, "'chat' is taken: it was deployed by hand from"),
        (HAND, FILE, True, "'chat' is taken: it was deployed by hand from"),
        (HAND, FILE, False, "'chat' is taken: it was deployed by hand from"),
        (FILE, HAND, True, ""),
        (FILE, HAND, False, "'chat' is taken: /etc/a.toml has it serve from"),
        (FILE, FILE, False, ""),
        (FILE, OTHER_FILE, True, ""),
        (FILE, OTHER_FILE, False, "'chat' is taken: /etc/a.toml has it serve from"),
        (SERVE, HAND, True, ""),
        (SERVE, HAND, False, "'chat' is taken: 'runagentd serve' has brought it from"),
        (SERVE, FILE, True, "'chat' is taken: 'runagentd serve' has brought it from"),
    ],
)
def test_an_agent_is_not_taken_over_from_elsewhere_without_the_word(
    run: Run, before: str, after: str, same_folder: bool, words: str
) -> None:
    """Whatever a folder calls itself: by hand, by an agent file and by `serve` are different origins."""

    async def test(bench: Bench) -> None:
        folder = bench.folder("chat")
        await bench.deploy(folder, keep=before != SERVE, managed_by="" if before == SERVE else before)
        other = folder if same_folder else bench.folder("chat", "two")
        change = (other / "agent.py").read_text().replace("return", "return 'changed' or")
        (other / "agent.py").write_text(change)
        agent_id = next(iter(bench.served))
        if words:
            said = refusal(await bench.deploy(other, managed_by=after, take_over=False))
            assert said.startswith(f"{other}: agent_id: {words} '{folder}")
            assert bench.serving(agent_id) == 1
            assert number(await bench.deploy(other, managed_by=after)) == 2
        # Once it was taken over, it needs no word any more.
        (other / "agent.py").write_text(change + "\n")
        assert number(await bench.deploy(other, managed_by=after, take_over=False)) == (3 if words else 2)

    run(test)


def test_what_was_agreed_to_is_also_whose_the_agent_is_and_where_its_aliases_lead(run: Run) -> None:
    """Each of them changes between the showing and the doing; nothing is done then, and nothing of it stays."""

    async def test(bench: Bench) -> None:
        folder, mine = bench.folder("chat"), "/etc/mine.toml"
        await bench.deploy(folder, managed_by=mine)
        agent_id = next(iter(bench.served))
        other = bench.folder("chat", "two")

        async def shown() -> str:
            reply = await bench.deploy(other, managed_by=mine, dry_run=True, aliases=("stable",))
            assert isinstance(reply, admin.Planned)
            return reply.digest

        def moved(managed_by: str, origin: Path) -> None:
            bench.store.lead(agent_id, 1, origin=str(origin), aliases=(), managed_by=managed_by)

        agreed = await shown()
        for change in (
            functools.partial(moved, "/etc/other.toml", folder),
            functools.partial(moved, mine, other),
            functools.partial(bench.store.alias, agent_id, "stable", 1),
        ):
            change()
            said = refusal(await bench.deploy(other, managed_by=mine, shown=agreed, aliases=("stable",)))
            assert said.endswith("or what is deployed has changed meanwhile"), change
            assert bench.serving(agent_id) == 1
            moved(mine, folder)
            agreed = await shown()
        assert number(await bench.deploy(other, managed_by=mine, shown=agreed, aliases=("stable",))) == 2

    run(test)


def test_a_folder_without_a_configuration_is_refused_before_it_is_copied(run: Run) -> None:
    """Whatever else is wrong with it: it is no agent's folder."""

    async def test(bench: Bench) -> None:
        folder = bench.folder("chat")
        (folder / "runagent.config.json").rename(folder / "runagent.conf.json")
        os.mkfifo(folder / "pipe")  # what the copy would complain of
        said = refusal(await bench.deploy(folder))
        assert "runagent.config.json: the folder has no such file (nor .yaml or .yml)" in said
        os.symlink("runagent.conf.json", folder / "runagent.config.yaml")
        assert "no such file" not in refusal(await bench.deploy(folder))  # the copy decides about a link

    run(test)


def test_the_same_code_in_another_folder_is_taken_over_too(run: Run) -> None:
    """Where nothing changes but the folder, the next version is expected from there."""

    async def test(bench: Bench) -> None:
        first = bench.folder("chat")
        await bench.deploy(first)
        moved = first.parent.parent / "moved"
        first.rename(moved)
        assert "is taken" in refusal(await bench.deploy(moved, take_over=False))
        assert number(await bench.deploy(moved)) == 1
        assert number(await bench.deploy(moved, take_over=False)) == 1

    run(test)


def test_what_an_agent_keeps_stays_its_own_where_another_folder_does_not_start(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even with the word: whose data that is changes with what serves."""

    async def test(bench: Bench) -> None:
        async def unwell(*_: object) -> str:
            return "it is not well"

        first, other = bench.folder("chat"), bench.folder("chat", "two")
        await bench.deploy(first)
        agent_id = next(iter(bench.served))
        [data] = bench.place.glob("agents/*/data")
        (data / "kept").write_text("")
        with monkeypatch.context() as patch:
            patch.setattr(bench.deployer, "unwell", unwell)
            assert "it is not well" in refusal(await bench.deploy(other))
        (first / "agent.py").write_text("def say() -> str:\n    return 'three'\n")
        assert number(await bench.deploy(first, take_over=False)) == 2
        assert bench.serving(agent_id) == 2
        assert number(await bench.deploy(other)) == 3
        await bench.deployer.remove(agent_id, "")
        assert "has kept data" in refusal(await bench.deploy(first, take_over=False))
        assert number(await bench.deploy(other, take_over=False)) == 1

    run(test)


def test_a_deploy_that_is_refused_anyway_installs_nothing(run: Run) -> None:
    async def test(bench: Bench) -> None:
        await bench.deploy(bench.folder("chat", agent_id="other"))
        assert "is the name of another" in refusal(await bench.deploy(bench.folder("other", requires="six\n")))
        assert bench.environments.asked.locked(), "nobody was asked for packages"

    run(test)


@pytest.mark.parametrize("first", [True, False])
def test_a_deploy_that_is_cancelled_while_its_version_starts_gives_everything_up(run: Run, first: bool) -> None:
    """The environment, the snapshot and the instance; and nothing of it serves."""

    async def test(bench: Bench) -> None:
        bench.environments.installed.set()
        if not first:
            await bench.deploy(bench.folder("chat"))
        bench.starts.clear()
        deploy = asyncio.create_task(bench.deploy(bench.folder("chat", "two", requires="six\n")))
        await bench.trying.acquire()
        deploy.cancel()
        with pytest.raises(asyncio.CancelledError):
            await deploy
        assert [lease.released for lease in bench.environments.leases] == [True]
        assert bench.store.environments() == set()
        assert len(bench.served) == (0 if first else 1)

    run(test)


def test_a_rollback_that_is_cancelled_while_its_version_starts_gives_everything_up(run: Run) -> None:
    async def test(bench: Bench) -> None:
        bench.environments.installed.set()
        await bench.deploy(bench.folder("chat", "one", requires="six\n"))
        await bench.deploy(bench.folder("chat", "two"))
        [served] = bench.served.values()
        bench.starts.clear()
        rollback = asyncio.create_task(bench.deployer.promote(served.id, ""))
        await bench.trying.acquire()
        rollback.cancel()
        with pytest.raises(asyncio.CancelledError):
            await rollback
        assert [lease.released for lease in bench.environments.leases] == [True, True]
        assert bench.serving(served.id) == 2

    run(test)


def test_a_version_whose_trial_breaks_gives_everything_up(run: Run) -> None:
    """Whatever goes wrong on the way: not only what is foreseen."""

    async def test(bench: Bench) -> None:
        async def breaks(*_: object) -> str:
            raise RuntimeError("the link to the gateway broke")

        bench.environments.installed.set()
        bench.deployer.unwell = breaks  # type: ignore[assignment, method-assign]  # it breaks
        with pytest.raises(RuntimeError):
            await bench.deploy(bench.folder("chat", requires="six\n"))
        assert [lease.released for lease in bench.environments.leases] == [True]
        assert (bench.served, bench.store.agents()) == ({}, [])

    run(test)
