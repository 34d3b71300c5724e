"""When keys are fetched, and what is told while they cannot be."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Awaitable, Callable

import pytest

from runagentd.egress import sources
from runagentd.egress.fetch import FetchError
from runagentd.egress.sources import Source
from runagentd.log import Form, Level, Log
from runagentd.wire.issuers import KeySet
from runagentd.wire.settings import IssuerSource
from tests.issuer import jwk, new_key

SETTINGS = IssuerSource(
    name="corp",
    source="s1",
    issuer="https://corp.example",
    jwks="",
    algorithms=("EdDSA",),
    ca=b"",
    refresh=3600,
    stale=86400,
)
KEY = new_key("EdDSA")


class Server:
    """What an issuer answers, and how often it was asked."""

    def __init__(self) -> None:
        self.kids: tuple[str, ...] | None = ("k1",)
        self.fault: Exception | None = None
        self.asked = 0

    async def get(self, settings: IssuerSource) -> bytes:
        self.asked += 1
        if self.fault is not None:
            raise self.fault
        if self.kids is None:
            raise FetchError("the server answered 500")
        return json.dumps({"keys": [jwk(KEY, kid) for kid in self.kids]}).encode()


def run(play: Callable[[Server, Source, list[KeySet], io.StringIO], Awaitable[None]]) -> None:
    async def main() -> None:
        server, told, lines = Server(), list[KeySet](), io.StringIO()
        log = Log(lines, source="egress", form=Form.TEXT, level=Level.INFO)
        source = Source(SETTINGS, tell=told.append, log=log, get=server.get, wall_clock=lambda: 1000.0)
        task = asyncio.create_task(source.run())
        await settle()
        try:
            await play(server, source, told, lines)
        finally:
            task.cancel()

    asyncio.run(main())


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def kids(keys: KeySet) -> list[str]:
    return [key.kid for key in keys.keys]


def test_keys_are_fetched_at_once_and_told_with_how_long_they_hold() -> None:
    """Until a day after they were fetched."""

    async def play(server: Server, source: Source, told: list[KeySet], lines: io.StringIO) -> None:
        assert (kids(told[0]), told[0].fetched, told[0].until) == (["k1"], 1000, 1000 + 86400)
        assert server.asked == 1

    run(play)


def test_asked_for_again_they_are_fetched_at_most_once_in_half_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """A token with a made-up key costs an issuer nothing more; who asks is answered all the same."""

    async def play(server: Server, source: Source, told: list[KeySet], lines: io.StringIO) -> None:
        server.kids = ("k1", "k2")  # right after the first fetch, which nobody asked for
        source.ask()
        await settle()
        assert (server.asked, kids(told[-1])) == (2, ["k1", "k2"])
        server.kids = ("k3",)
        for _ in range(5):
            source.ask()
            await settle()
        assert (server.asked, len(told), kids(told[-1])) == (2, 7, ["k1", "k2"])
        monkeypatch.setattr(sources, "ASK_SECONDS", 0.0)
        source.ask()
        await settle()
        assert (server.asked, kids(told[-1])) == (3, ["k3"])

    run(play)


def test_while_an_issuer_is_out_its_keys_stay_and_the_problem_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stale-if-error: what was fetched holds until its time is over."""
    monkeypatch.setattr(sources, "ASK_SECONDS", 0.0)

    async def play(server: Server, source: Source, told: list[KeySet], lines: io.StringIO) -> None:
        server.kids = None
        for _ in range(3):
            source.ask()
            await settle()
        assert (kids(told[-1]), told[-1].until) == (["k1"], 1000 + 86400)
        text = lines.getvalue()
        assert text.count("the keys of an issuer cannot be fetched; those that are known go on") == 1
        assert "the server answered 500" in text
        server.kids = ("k1",)
        source.ask()
        await settle()
        assert "the keys of an issuer are fetched again" in lines.getvalue()

    run(play)


def test_a_fault_of_ours_is_not_the_end_of_all_later_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told like any other failure, and what was fetched goes on."""
    monkeypatch.setattr(sources, "ASK_SECONDS", 0.0)

    async def play(server: Server, source: Source, told: list[KeySet], lines: io.StringIO) -> None:
        server.fault = LookupError("unknown encoding")
        source.ask()
        await settle()
        assert "LookupError: unknown encoding" in lines.getvalue()
        server.fault = None
        server.kids = ("k2",)
        source.ask()
        await settle()
        assert kids(told[-1]) == ["k2"]

    run(play)


def test_a_set_without_a_usable_key_is_a_failure_and_not_the_end_of_all_keys() -> None:
    """Else whoever can make an issuer answer nonsense for a moment ends everybody's calls."""

    async def play(server: Server, source: Source, told: list[KeySet], lines: io.StringIO) -> None:
        server.kids = ()
        source.ask()
        await settle()
        assert kids(told[-1]) == ["k1"]

    run(play)


def test_the_pause_between_attempts_has_a_bound_however_many_have_failed() -> None:
    """An issuer may be out for days, and whoever shows unknown keys has it asked twice a minute."""
    source = Source(SETTINGS, tell=lambda _: None, log=Log(None, source="egress"), get=Server().get)
    pauses = []
    for source._failures in (1, 2, 5, 9, 10, 1024, 1025, 100_000):
        pauses.append(source._pause())
    assert pauses == [1.0, 2.0, 16.0, 256.0, 300.0, 300.0, 300.0, 300.0]
