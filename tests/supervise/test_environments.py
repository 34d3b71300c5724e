"""Which requests are the same, what is said while one waits, and what about a failure: no builder is started here."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import os
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from runagentd.errors import ConfigurationError, HostError
from runagentd.log import Form, Log
from runagentd.supervise import environments, snapshot, teller
from runagentd.supervise.build import Bounds, BuildFailed
from runagentd.supervise.environment_store import EnvironmentStore, Lease
from runagentd.supervise.environments import EnvironmentRequest, Environments
from runagentd.wire import build
from runagentd.wire.packages import Target
from runagentd.wire.runtime import PythonRuntime
from runagentd.wire.settings import PackageSettings
from tests.plan.facts import DEBIAN

pytestmark = pytest.mark.root

INDEX = PackageSettings(
    index="https://alice:secret@packages.example.com/simple",
    index_shown="https://packages.example.com/simple",
    secrets=("secret",),
    hosts=(Target(host="packages.example.com", port=443), Target(host="192.0.2.7", port=8443)),
)
REQUEST = EnvironmentRequest(
    files=(build.RequirementsFile(name="requirements.txt", content=b"six\n"),),
    runtime="cpython-311 3.11.7 x86_64 glibc-2.36",
    installer="0.13.9",
    index="https://packages.example.com/simple",
    wheels="",
    source=False,
    target="/env",
)


class FakeBuilder:
    """Makes a folder with one file in it; or does not."""

    def __init__(self, place: Path) -> None:
        self._site = place / "site"
        self._site.mkdir()
        (self._site / "six.py").write_text("")
        self.jobs: list[build.BuildJob] = []
        self.runtimes: list[PythonRuntime] = []
        self.bounds: list[Bounds] = []
        self.failure: Exception | None = None
        self.failure_afterwards: Exception | None = None
        self.goes_on = asyncio.Event()
        self.goes_on.set()

    async def install(
        self,
        job: build.BuildJob,
        *,
        runtime: PythonRuntime,
        wheels: int | None,
        bounds: Bounds,
        progress: Callable[[build.Progress], None],
        take: Callable[[int], Awaitable[Lease]],
    ) -> Lease:
        self.jobs.append(job)
        self.runtimes.append(runtime)
        self.bounds.append(bounds)
        progress(build.Progress(phase=build.Phase.INSTALLING, packages=1))
        await self.goes_on.wait()
        if self.failure is not None:
            raise self.failure
        site = os.open(self._site, os.O_RDONLY | os.O_DIRECTORY)
        try:
            taken = await take(site)
        finally:
            os.close(site)
        if self.failure_afterwards is not None:
            raise self.failure_afterwards
        return taken


class Bench:
    """Environments with a builder that is none."""

    def __init__(self, tmp_path: Path, settings: PackageSettings = INDEX) -> None:
        self.folder = tmp_path / "agent"
        self.folder.mkdir()
        (self.folder / "requirements.txt").write_text("six\n")
        self.builder = FakeBuilder(tmp_path)
        self.store = EnvironmentStore(tmp_path / "environments")
        self.environments = Environments(
            store=self.store,
            builder=self.builder,  # type: ignore[arg-type]  # what `Environments` uses of one
            installer_version=lambda: "0.13.9",
            log=Log(sys.stderr, source="test", form=Form.TEXT),
        )
        self.environments.settings = settings
        self.told: list[str] = []

    async def provide(self, *names: str, runtime: PythonRuntime = DEBIAN.python) -> Lease | None:
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return await self.environments.provide(descriptor, names, runtime, self.told.append)
        finally:
            os.close(descriptor)


def failed(bench: Bench, words: str, *, full: bool = False) -> ConfigurationError:
    async def main() -> None:
        bench.builder.failure = BuildFailed(words, full=full)
        await bench.provide("requirements.txt")

    with pytest.raises(ConfigurationError) as caught:
        asyncio.run(main())
    return caught.value


@pytest.mark.parametrize(
    "change",
    [
        {"files": (build.RequirementsFile(name="requirements.txt", content=b"six \n"),)},
        {"files": (build.RequirementsFile(name="pyproject.toml", content=b"six\n"),)},
        {"runtime": "cpython-312 3.12.1 x86_64 glibc-2.36"},
        {"installer": "0.14.0"},
        {"index": "https://other.example.com/simple"},
        {"wheels": "0" * 64},
        {"source": True},
        {"target": "/elsewhere"},
    ],
)
def test_whatever_decides_about_an_environment_makes_another_request(change: dict[str, object]) -> None:
    assert dataclasses.replace(REQUEST, **change).digest() != REQUEST.digest()  # type: ignore[arg-type]


def test_another_runtime_has_another_environment_and_is_what_builds_it(tmp_path: Path) -> None:
    """The second time each finds its own; one that is only elsewhere shares it."""
    other = dataclasses.replace(
        DEBIAN.python, version="3.13", release="3.13.1", abi="cpython-313 3.13.1 x86_64 glibc-2.36",
        interpreter="/opt/python3.13/bin/python3.13",
    )  # fmt: skip
    elsewhere = dataclasses.replace(other, interpreter="/srv/python3.13/bin/python3.13")

    async def main() -> None:
        bench = Bench(tmp_path)
        for runtime in (DEBIAN.python, other, other, elsewhere, DEBIAN.python):
            assert await bench.provide("requirements.txt", runtime=runtime) is not None
        assert bench.builder.runtimes == [DEBIAN.python, other]
        assert [job.interpreter for job in bench.builder.jobs] == ["/usr/bin/python3.11", other.interpreter]

    asyncio.run(main())


def test_without_requirements_there_is_none(tmp_path: Path) -> None:
    async def main() -> None:
        assert await Bench(tmp_path).provide() is None

    asyncio.run(main())


def test_the_second_time_it_is_found(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path)
        first = await bench.provide("requirements.txt")
        second = await bench.provide("requirements.txt")
        assert first is not None
        assert second is not None
        assert (first.digest, len(bench.builder.jobs)) == (second.digest, 1)
        assert os.listdir(second.descriptor) == ["six.py"]
        for lease in (first, second):
            lease.release()

    asyncio.run(main())


def test_of_two_at_a_time_one_builds_and_the_other_finds(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path)
        bench.builder.goes_on.clear()
        tasks = [asyncio.create_task(bench.provide("requirements.txt")) for _ in range(3)]
        while not bench.builder.jobs:  # noqa: ASYNC110  (a fake, which tells nobody)
            await asyncio.sleep(0.001)
        bench.builder.goes_on.set()
        leases = [lease for lease in await asyncio.gather(*tasks) if lease is not None]
        assert (len({lease.digest for lease in leases}), len(leases), len(bench.builder.jobs)) == (1, 3, 1)
        assert "waiting for another environment to be built" in bench.told
        for lease in leases:
            lease.release()

    asyncio.run(main())


def test_somebody_who_waits_hears_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teller, "HEARTBEAT_SECONDS", 0.005)

    async def main() -> None:
        bench = Bench(tmp_path)
        bench.builder.goes_on.clear()
        task = asyncio.create_task(bench.provide("requirements.txt"))
        while bench.told.count("installing 1 package") < 3:  # noqa: ASYNC110  (a fake, which tells nobody)
            await asyncio.sleep(0.001)
        bench.builder.goes_on.set()
        lease = await task
        assert lease is not None
        lease.release()
        told = len(bench.told)
        await asyncio.sleep(0.02)
        assert len(bench.told) == told

    asyncio.run(main())


def test_a_builder_is_told_what_the_operator_wants(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path, dataclasses.replace(INDEX, size=64 * 1024**2, seconds=7))
        lease = await bench.provide("requirements.txt")
        assert lease is not None
        lease.release()
        (job,), (bounds,) = bench.builder.jobs, bench.builder.bounds
        assert job.hosts == (
            build.Host(name="packages.example.com", port=443, address="127.1.0.1"),
            build.Host(name="192.0.2.7", port=8443, address="192.0.2.7"),
        )
        assert (job.index, job.source, job.wheels, job.target) == (INDEX.index, False, False, "/env")
        assert bounds == Bounds(size=64 * 1024**2, files=400_000, seconds=7)

    asyncio.run(main())


def test_why_an_index_is_not_taken_is_told_where_one_is_needed(tmp_path: Path) -> None:
    async def main() -> None:
        await Bench(tmp_path, PackageSettings(not_taken="PIP_INDEX_URL is not taken: it is")).provide(
            "requirements.txt"
        )

    with pytest.raises(ConfigurationError) as caught:
        asyncio.run(main())
    assert caught.value.problems[0].hints[1] == "PIP_INDEX_URL is not taken: it is"


def test_a_password_is_not_repeated(tmp_path: Path) -> None:
    error = failed(Bench(tmp_path), "error: cannot reach https://alice:secret@packages.example.com/simple/six")
    assert str(error) == "requirements.txt: error: cannot reach https://alice:****@packages.example.com/simple/six"


def test_words_come_in_one_line_and_move_no_cursor(tmp_path: Path) -> None:
    assert str(failed(Bench(tmp_path), "error: one\n\n  two\x1b[2J\n")) == "requirements.txt: error: one; two?[2J"


OTHER_HOST = "a builder reaches the index alone: name the other host in packages.hosts of the configuration"
SOURCE = "only wheels are installed: packages.source = true in the configuration lets code run to build others"
PYTHON = 'the agent runs on Python 3.11: "python" in runagent.config.json asks for another one'
ROOM = "an environment may have 2048 MiB and 200,000 files: packages.size in the configuration"


@pytest.mark.parametrize(
    ("words", "full", "hint"),
    [
        ("dns error", False, OTHER_HOST),
        ("one==1.0 has no usable wheels", False, SOURCE),
        ("No space left", True, ROOM),
        ("Because one==1.0 requires Python >=3.12 and only one==1.0 is available, …", False, PYTHON),
        ("two==1.0 has no wheels with a matching Python implementation tag (e.g., `cp311`)", False, PYTHON),
    ],
)
def test_a_hint_says_what_to_do(tmp_path: Path, words: str, full: bool, hint: str) -> None:
    assert failed(Bench(tmp_path), words, full=full).problems[0].hints == (hint,)


def test_nothing_is_taken_from_a_folder_but_its_files(tmp_path: Path) -> None:
    """A loader that was captured may name what it likes."""

    async def main(name: str) -> None:
        bench = Bench(tmp_path)
        (bench.folder / "link").symlink_to("/etc/passwd")
        with pytest.raises((ConfigurationError, ValueError)):
            await bench.provide(name)
        assert bench.builder.jobs == []

    asyncio.run(main("link"))


def test_wheels_that_a_builder_cannot_read_are_named(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "six.whl").write_text("")
    (wheels / "six.whl").chmod(0o600)

    async def main() -> None:
        await Bench(tmp_path, PackageSettings(wheels=str(wheels))).provide("requirements.txt")

    with pytest.raises(HostError) as caught:
        asyncio.run(main())
    assert str(caught.value) == (
        f"packages.wheels: {wheels}/six.whl is not readable by everybody, and a builder is nobody\n"
        f"hint: chmod -R a+rX {wheels}"
    )


def test_a_copy_that_nobody_waits_for_is_stopped_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        bench = Bench(tmp_path)
        copying, may_go_on = threading.Event(), threading.Event()
        take = snapshot.take

        def slowly(site: int, parent: Path, *, rules: snapshot.Rules, stopped: Callable[[], bool]) -> snapshot.Snapshot:
            copying.set()
            may_go_on.wait(10)
            return take(site, parent, rules=rules, stopped=stopped)

        monkeypatch.setattr(snapshot, "take", slowly)
        task = asyncio.create_task(bench.provide("requirements.txt"))
        await asyncio.to_thread(copying.wait, 10)
        task.cancel()
        await asyncio.sleep(0)
        may_go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert list(bench.store.incoming.iterdir()) == []
        assert bench.store.answer(REQUEST.digest()) is None

    asyncio.run(main())


def test_a_link_among_the_wheels_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "six.whl").symlink_to("gone")

    async def main() -> None:
        await Bench(tmp_path, PackageSettings(wheels=str(wheels))).provide("requirements.txt")

    with pytest.raises(HostError) as caught:
        asyncio.run(main())
    assert str(caught.value) == (
        f"packages.wheels: {wheels}/six.whl: no such file or directory\nhint: remove it, or put a wheel there"
    )


def test_files_that_are_too_large_together_are_refused_before_all_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    content = environments._content

    def counted(folder: int, name: str) -> bytes:
        read.append(name)
        return content(folder, name)

    monkeypatch.setattr(environments, "_content", counted)

    async def main() -> None:
        bench = Bench(tmp_path)
        names = ["requirements.txt", "a", "b", "c", "d"]
        for name in names:
            (bench.folder / name).write_bytes(b"#" * 4_000_000)
        await bench.provide(*names)

    with pytest.raises(ConfigurationError, match="with what it includes is larger than 8 MiB"):
        asyncio.run(main())
    assert read == ["requirements.txt", "a", "b"]


def test_an_environment_that_cannot_be_written_down_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk, most often: in words, and nothing of it is held or half there."""

    async def main() -> None:
        bench = Bench(tmp_path)

        def full(path: Path, *_: object) -> None:
            path.touch()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(Path, "write_text", full)
        with pytest.raises(HostError, match="an environment cannot be kept: No space left on device"):
            await bench.provide("requirements.txt")
        monkeypatch.undo()
        assert list(bench.store.incoming.iterdir()) == []
        assert len(bench.store.collect(set(), unused_seconds=0)) == 1

    asyncio.run(main())


def test_a_builder_that_says_much_is_passed_on_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A captured one may change its words without end; the last ones are heard all the same."""

    async def main() -> None:
        told: list[str] = []
        monkeypatch.setattr(teller, "APART_SECONDS", 0.05)
        one = teller.Teller(told.append)
        for number in range(1000):
            one.say(f"fetching {number} packages")
        while told[-1] != "fetching 999 packages":  # noqa: ASYNC110  (a list, which tells nobody)
            await asyncio.sleep(0.001)
        one.close()
        assert told[0] == "fetching 0 packages"
        assert len(told) < 50  # two, but where these lines take longer than what is between two of them

    asyncio.run(main())


def test_a_build_that_fails_after_all_was_taken_holds_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path)
        bench.builder.failure_afterwards = OSError(errno.EIO, "the stage cannot be closed")
        with pytest.raises(HostError):
            await bench.provide("requirements.txt")
        assert len(bench.store.collect(set(), unused_seconds=0)) == 1

    asyncio.run(main())
