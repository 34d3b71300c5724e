"""What the supervisor tells a gateway of trust, and what a captured gateway can do about it: nothing."""

from __future__ import annotations

import asyncio
import io
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from runagentd.log import Form, Log
from runagentd.supervise import trust_teller
from runagentd.supervise.trust_teller import TrustTeller
from runagentd.trust import TrustStore
from runagentd.wire import control
from runagentd.wire.trust import ApiKey, ApiKeySecret


def run(folder: Path, body: Callable[[TrustTeller, list[control.FromSupervisor]], Awaitable[None]]) -> str:
    """What it logged."""
    stream = io.StringIO()

    async def main() -> None:
        sent: list[control.FromSupervisor] = []
        teller = TrustTeller(folder, send=sent.append, log=Log(stream, source="x", form=Form.TEXT))
        try:
            await body(teller, sent)
        finally:
            teller.close()

    asyncio.run(main())
    return stream.getvalue()


def test_each_gateway_is_told_everything_and_then_each_change(tmp_path: Path) -> None:
    """A change comes with all signing keys, and ends with its epoch."""

    async def body(teller: TrustTeller, sent: list[control.FromSupervisor]) -> None:
        with TrustStore(tmp_path) as store:
            store.revoke_id("j1", until=0)
            teller.start()
            assert [type(message).__name__ for message in sent] == ["TrustedKeys", "Revoked", "TrustTold"]
            store.revoke_id("j2", until=0)
            waiting = asyncio.create_task(teller.spread())
            await asyncio.sleep(0)
            assert sent[4:] == [
                control.Revoked(token_ids=("j2",), subjects=(), before=0),
                control.TrustTold(epoch=2),
            ]
            teller.taken(2)
            assert await waiting is True
            sent.clear()
            teller.start()
            assert sent[1] == control.Revoked(token_ids=("j1", "j2"), subjects=(), before=0)

    run(tmp_path, body)


def test_a_gateway_that_is_silent_is_reported_and_one_that_lies_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An epoch that was never sent cannot stand for one that was."""
    monkeypatch.setattr(trust_teller, "TAKE_SECONDS", 0.05)

    async def body(teller: TrustTeller, _: list[control.FromSupervisor]) -> None:
        teller.start()
        with TrustStore(tmp_path) as store:
            store.revoke_id("j1", until=0)
        assert teller.taken(99) is False
        assert await teller.spread() is False
        with TrustStore(tmp_path) as store:
            store.revoke_id("j2", until=0)
        assert await teller.spread() is False

    assert "the gateway takes over what it was never told epoch=99" in run(tmp_path, body)


def test_a_gateways_report_of_use_adds_no_key(tmp_path: Path) -> None:
    """It notes the use of keys that there are."""
    known = ApiKey(
        id="K1", subject="a", tenant=None, scopes=(), created=1, expires=0, addresses=(),
        secrets=(ApiKeySecret(digest=bytes(32), until=0),),
    )  # fmt: skip

    async def body(teller: TrustTeller, _: list[control.FromSupervisor]) -> None:
        teller.used(["K1", "made up"])
        noting = teller._noting
        assert noting is not None
        await noting

    with TrustStore(tmp_path) as store:
        store.add_api_key(known, "a")
        epoch = store.epoch()
        run(tmp_path, body)
        assert [(row.key.id, row.used > 0) for row in store.api_keys()] == [("K1", True)]
        assert store.epoch() == epoch


def test_a_disk_that_fails_costs_a_note_of_use_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[set[str]] = []

    def fails_once(directory: Path, used: set[str]) -> None:
        noted.append(used)
        if len(noted) == 1:
            raise sqlite3.OperationalError("disk I/O error")

    async def body(teller: TrustTeller, sent: list[control.FromSupervisor]) -> None:
        for identity in ("a", "b"):
            teller.used([identity])
            assert teller._noting is not None
            await teller._noting

    monkeypatch.setattr(trust_teller, "_note_use", fails_once)
    assert 'when API keys were used cannot be noted reason="disk I/O error"' in run(tmp_path, body)
    assert noted == [{"a"}, {"b"}]
