"""What becomes of an instance that nobody needs, where it cannot be made either."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest

from runagentd.supervise.instance import Instance, Owner
from runagentd.supervise.spawn import LaunchRefused
from runagentd.supervise.version import Version


class Maker:
    """An agent whose instances cannot be made; `ends` has those that it is told of."""

    id = "one"
    side = 0

    def __init__(self) -> None:
        self.ends: list[str] = []
        self.ready: list[bytes] = []
        self.warnings: list[str] = []
        self.going_on = asyncio.Event()
        log = SimpleNamespace(warning=lambda text, **_: self.warnings.append(text))
        self.around = SimpleNamespace(pool=lambda runtime: self, log=log)

    async def take(self) -> None:
        """As a pool: refuse, once told to go on."""
        await self.going_on.wait()
        raise LaunchRefused("no memory")

    def ended(self, instance: Instance, cause: str, detail: str) -> None:
        self.ends.append(detail)

    def proven(self, instance: Instance) -> None:
        self.ready.append(instance.describe)


@pytest.mark.parametrize(("entrance", "ends"), [("let in", ["no memory"]), ("given up", []), ("not needed yet", [])])
def test_a_start_counts_as_failed_only_where_somebody_needed_it(entrance: str, ends: list[str]) -> None:
    """Else the next start of an agent that is well would wait, and callers would hear of an instance they never had."""

    async def run() -> Maker:
        maker = Maker()
        version = SimpleNamespace(enter=lambda: None, leave=lambda: None, policy=None, runtime=None)
        instance = Instance(cast(Owner, maker), cast(Version, version), stands_by=True)
        living = asyncio.create_task(instance.live())
        if entrance == "let in":
            instance.let_in()
        elif entrance == "given up":
            instance.give_up()
        maker.going_on.set()
        await living
        return maker

    maker = asyncio.run(run())
    assert maker.ends == ends
    assert len(maker.warnings) == 1 - len(ends)


def test_an_instance_becomes_ready_once_however_often_it_is_described() -> None:
    """By each gateway that comes, and by one that wants to push all else out of the events as often as it likes."""
    maker = Maker()
    version = SimpleNamespace(runtime=None)
    instance = Instance(cast(Owner, maker), cast(Version, version))
    instance.described(b"before it is ready")
    instance.ready_ns = 1
    instance.described(b"by one gateway")
    instance.described(b"by the next one")
    assert maker.ready == [b"by one gateway"]
    assert instance.describe == b"by the next one"
