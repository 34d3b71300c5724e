"""Limits as a caller meets them: which one, how long to wait, and what is left."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import datetime
import json
import select
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from runagentd.config import load
from runagentd.errors import ConfigurationError
from runagentd.gateway import pipeline
from runagentd.gateway.configuration import Configuration
from runagentd.gateway.guard import quota
from runagentd.gateway.guard.quota import Quotas
from runagentd.log import Log
from runagentd.wire.channel import Frame
from tests.fakes_gateway import LIMITS, FakeRunner, Gateway, HttpAnswer, answer

INVOKE = "/v1/agents/echo/entrypoints/say:invoke"


@contextlib.contextmanager
def limited(text: str) -> Iterator[Gateway]:
    """A gateway with these settings (TOML)."""
    settings = load.parse(text.encode(), "runagentd.toml", Path("/")).settings
    with tempfile.TemporaryDirectory(prefix="gw") as folder, Gateway(Path(folder), settings=settings) as gateway:
        yield gateway


def call(gateway: Gateway, runner: FakeRunner, token: str, **fields: str) -> HttpAnswer:
    """One call that the runner answers, where it gets it."""
    asked = gateway.send("POST", INVOKE, b"{}", token=token, **fields)
    runner.result(runner.expect(Frame.CALL).call, 1)
    return answer(asked)


def refused(gateway: Gateway, token: str, **fields: str) -> tuple[int, Any, int]:
    """(status, the limit that was hit, Retry-After). Any: JSON."""
    got = gateway.ask("POST", INVOKE, b"{}", token=token, **fields)
    return got.status, got.json().get("limit"), int(got.headers.get("retry-after", 0))


def test_a_principal_has_so_many_calls_and_then_waits_as_long_as_it_is_told() -> None:
    """Both fields of the draft; another principal is not touched."""
    with limited('[limits.principal]\nrate = "2/h"\nburst = 3\n') as gateway:
        runner = gateway.ready()
        alice, bob = gateway.token(subject="alice"), gateway.token(subject="bob")
        for left in (2, 1, 0):
            got = call(gateway, runner, alice)
            assert got.headers["ratelimit-policy"] == '"principal";q=3;w=5400'
            assert got.headers["ratelimit"] in [
                f'"principal";r={left};t={reset}' for reset in ((3 - left) * 1800, (3 - left) * 1800 - 1)
            ]
        status, limit, wait = refused(gateway, alice)
        assert (status, limit) == (429, "principal-rate")
        assert 1790 <= wait <= 1800
        assert gateway.ask("POST", INVOKE, b"{}", token=alice).json()["detail"] == (
            "more than 2 calls in an hour for this principal"
        )
        assert call(gateway, runner, bob).status == 200


def test_runagents_door_has_the_older_fields() -> None:
    """Those that RunAgent's own server sends; the body is its envelope."""
    with limited('[limits.agent]\nrate = "1/h"\nburst = 1\n') as gateway:
        runner = gateway.ready()
        body = json.dumps({"entrypoint_tag": "say"}).encode()
        asked = gateway.send("POST", "/api/v1/agents/echo/run", body)
        runner.result(runner.expect(Frame.CALL).call, 1)
        first = answer(asked).headers
        assert [first[f"x-ratelimit-{name}"] for name in ("limit", "remaining")] == ["1", "0"]
        assert int(first["x-ratelimit-reset-after"]) in (3599, 3600)
        assert abs(int(first["x-ratelimit-reset"]) - time.time() - 3600) < 10
        second = gateway.ask("POST", "/api/v1/agents/echo/run", body)
        assert (second.status, second.json()["error"]["code"]) == (429, "RATE_LIMIT_ERROR")
        assert isinstance(second.json()["detail"], str)
        assert second.headers["x-ratelimit-remaining"] == "0"
        assert int(second.headers["retry-after"]) in (3599, 3600)
        url = f"ws://127.0.0.1:{gateway.port}/api/v1/agents/echo/run-stream?token={gateway.token()}"
        with pytest.raises(InvalidStatus) as raised, connect(url, compression=None, open_timeout=5):
            pass
        assert raised.value.response.status_code == 429


def test_an_exception_by_name_wins_and_each_kind_counts_apart() -> None:
    """A call that its entrypoint refuses has cost its caller."""
    text = """
        [limits.principal]
        rate = "1/h"
        [limits.principal.for.batch]
        rate = "3/h"
        [limits.tag]
        rate = "2/h"
    """
    with limited(text) as gateway:
        runner = gateway.ready()
        batch, other = gateway.token(subject="batch"), gateway.token(subject="other")
        for _ in range(2):
            assert call(gateway, runner, batch).status == 200
        assert refused(gateway, batch)[:2] == (429, "tag-rate")
        assert refused(gateway, other)[:2] == (429, "tag-rate")


def test_places_are_counted_apart_from_rates_and_given_back_when_the_code_has_stopped() -> None:
    """Not when the caller has gone away."""
    with limited("[limits.principal]\nconcurrency = 1\n") as gateway:
        runner = gateway.ready()
        token = gateway.token()
        first = gateway.send("POST", INVOKE, b"{}", token=token)
        number = runner.expect(Frame.CALL).call
        assert refused(gateway, token) == (429, "principal-concurrency", 1)
        first.close()
        runner.until(Frame.CANCEL)
        assert refused(gateway, token) == (429, "principal-concurrency", 1)
        runner.error(number, "cancelled", "stopped")
        gateway.wait_until(lambda: not gateway.application._limits._places)
        assert call(gateway, runner, token).status == 200
        assert gateway.inside(lambda: dict(gateway.application._limits._places)) == {}


def test_a_refused_call_holds_no_place() -> None:
    """Whatever stage refuses it."""
    with limited("[limits.principal]\nconcurrency = 1\n") as gateway:
        runner = gateway.ready()
        for _ in range(3):
            assert gateway.ask("POST", INVOKE, b"not json").status == 422
            assert gateway.ask("POST", INVOKE.replace("say", "none"), b"{}").status == 404
        runner.socket.close()
        gateway.wait_until(lambda: not gateway.application._limits._places)


def test_a_daily_quota_is_told_with_its_end() -> None:
    """At midnight, UTC."""
    with limited("[limits.principal]\ndaily = 1\n") as gateway:
        runner = gateway.ready()
        got = call(gateway, runner, gateway.token())
        assert got.headers["ratelimit-policy"] == '"principal-daily";q=1;w=86400'
        assert got.headers["ratelimit"].startswith('"principal-daily";r=0;t=')
        status, limit, wait = refused(gateway, gateway.token())
        assert (status, limit) == (429, "principal-daily")
        midnight = 86400 - time.time() % 86400
        assert abs(wait - midnight) < 10 or midnight > 86390


def test_a_restart_forgets_no_call_and_loses_at_most_a_block(tmp_path: Path) -> None:
    """A twentieth of the quota; never one more than the quota gets through."""
    log = Log(None, source="x")
    let_through = 0
    for _ in range(30):
        quotas = Quotas(tmp_path, log)  # as after kill -9: nothing is said to the one before
        for _ in range(7):
            let_through += quotas.take("principal:a", 100, 1_000_000.0)
        quotas.close()
    assert 100 // 2 <= let_through <= 100
    quotas = Quotas(tmp_path, log)
    assert (quotas.left("principal:a", 100, 1_000_000.0), quotas.left("principal:b", 100, 1_000_000.0)) == (0, 100)
    assert quotas.left("principal:a", 100, 1_000_000.0 + 86_400) == 100
    quotas.close()


def test_without_a_database_nothing_with_a_quota_is_let_through(tmp_path: Path) -> None:
    """Fail closed."""
    (tmp_path / quota.NAME).write_bytes(b"nonsense" * 1000)
    quotas = Quotas(tmp_path, Log(None, source="x"))
    assert quotas.take("principal:a", 100, 1_000_000.0) is False


def test_an_address_is_limited_before_its_token_is_looked_at() -> None:
    """Also where the token is good; other addresses are not touched."""
    with limited('[limits]\nloopback = true\n[limits.address]\nrate = "1/h"\nburst = 2\n') as gateway:
        asked = [gateway.ask("GET", "/v1/agents", token=token) for token in ("bad", None, "")]
        assert [got.status for got in asked] == [401, 401, 429]
        assert asked[2].json()["detail"] == "too many requests from this address"
        assert asked[2].json()["limit"] == "address-rate"


def test_failed_logins_cost_the_address_and_not_who_is_known_already() -> None:
    """A token that was found good goes on; one that nobody has seen has to wait."""
    with limited('[limits]\nloopback = true\n[limits.failed_login]\nrate = "1/h"\nburst = 2\n') as gateway:
        known, unknown = gateway.token(), gateway.token()
        assert gateway.ask("GET", "/v1/agents", token=known).status == 200
        assert [gateway.ask("GET", "/v1/agents", token=token).status for token in ("a", None, "b", "c")] == [
            401, 401, 401, 429,
        ]  # fmt: skip
        assert [gateway.ask("GET", "/v1/agents", token=token).status for token in (known, unknown)] == [200, 429]


def test_an_address_beyond_its_limit_waits_for_its_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood is no faster than its answers; of those that wait there are so many and no more."""
    monkeypatch.setattr(pipeline, "HELD_BACK_SECONDS", 1.0)
    monkeypatch.setattr(pipeline, "HELD_BACK_MAX", 2)
    with limited('[limits]\nloopback = true\n[limits.failed_login]\nrate = "1/h"\nburst = 1\n') as gateway:
        assert gateway.ask("GET", "/v1/agents", token="bad").status == 401
        asked = [gateway.send("GET", "/v1/agents", token="bad") for _ in range(2)]
        gateway.wait_until(lambda: gateway.application._pipeline._held_back == 2)
        assert gateway.ask("GET", "/v1/agents", token="bad").status == 429
        assert select.select([each.sock for each in asked], [], [], 0)[0] == []
        assert [answer(each).status for each in asked] == [429, 429]
        gateway.wait_until(lambda: gateway.application._pipeline._held_back == 0)


def test_without_settings_only_failed_logins_are_limited_and_not_those_of_this_machine() -> None:
    """Behind a proxy on it everybody would share the address."""
    with limited("") as gateway:
        assert {gateway.ask("GET", "/v1/agents", token="bad").status for _ in range(30)} == {401}
    with limited('[http]\ntrusted_proxies = ["127.0.0.0/8"]\n') as gateway:
        asked = [gateway.ask("GET", "/v1/agents", token="bad", X_Forwarded_For="192.0.2.7").status for _ in range(22)]
        assert asked == [401] * 20 + [429] * 2
        assert gateway.ask("GET", "/v1/agents", token="bad", X_Forwarded_For="192.0.2.8").status == 401
        peers = {row["peer"] for row in gateway.records()}
        assert peers <= {"192.0.2.7", "192.0.2.8"}


def test_the_document_shows_each_caller_the_limits_that_concern_them() -> None:
    """An exception in place of the rule for all, and nothing of tenants for a caller who has none."""
    text = """
    [limits.principal]
    rate = "100/s"
    [limits.principal.for."alice"]
    rate = "5/m"
    daily = 1000
    [limits.tenant]
    rate = "7/s"
    [limits.tag.for."echo/say"]
    concurrency = 2
    [limits.agent.for."another"]
    rate = "1/s"
    [limits.address]
    rate = "10/s"
    """
    with limited(text) as gateway:
        gateway.ready()
        found = gateway.ask("GET", "/openapi.json", token=gateway.token(subject="alice")).json()
    limits = found["paths"]["/v1/agents/echo-1/entrypoints/say:invoke"]["post"]["x-runagentd-limits"]
    assert limits["rules"] == [
        {"for": "address", "count": 10, "seconds": 1, "burst": 10},
        {"for": "principal", "count": 5, "seconds": 60, "burst": 5, "daily": 1000},
        {"for": "tag", "concurrency": 2},
    ]


def test_changed_settings_keep_what_was_used() -> None:
    """SIGHUP is no way to a full bucket."""
    with limited('[limits.principal]\nrate = "1/h"\nburst = 1\n') as gateway:
        runner = gateway.ready()
        assert call(gateway, runner, gateway.token()).status == 200
        text = b'[limits.principal]\nrate = "1/h"\nburst = 1\n[limits.agent]\nrate = "9/s"\n'
        changed = Configuration(load.parse(text, "x", Path("/")).settings, {})
        gateway.inside(lambda: gateway.application.configure(changed))
        assert refused(gateway, gateway.token())[:2] == (429, "principal-rate")


def test_me_says_who_is_asking_and_what_is_left() -> None:
    """And nothing of anybody else's."""
    with limited('[limits.principal]\nrate = "1/h"\nburst = 5\n') as gateway:
        token = gateway.token("echo", subject="alice")
        shown = gateway.ask("GET", "/v1/me", token=token).json()
        says = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))["exp"]
        # As the token says it, without what it is believed for longer because clocks may differ.
        assert datetime.datetime.fromisoformat(shown["expires"]).timestamp() == says
        assert (shown["subject"], shown["tenant"], shown["scopes"]) == ("alice", None, ["agents:invoke:echo/*"])
        assert shown["limits"] == [{"name": "principal", "quota": 5, "window": 18000, "left": 5, "reset": 0}]
        assert gateway.ask("GET", "/v1/me", token="bad").status == 401


def test_a_limit_is_exact_under_concurrency() -> None:
    """Sixty at once; exactly ten get through."""
    with limited('[limits.principal]\nrate = "1/h"\nburst = 10\n') as gateway:
        runner = gateway.ready(limits=dataclasses.replace(LIMITS, concurrency=64, queue=64))
        token = gateway.token()
        asked = [gateway.send("POST", INVOKE, b"{}", token=token) for _ in range(60)]
        for _ in range(10):
            runner.result(runner.expect(Frame.CALL).call, 1)
        statuses = [answer(each).status for each in asked]
        assert (statuses.count(200), statuses.count(429)) == (10, 50)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[limits.principal]\nrate = "fast"\n', "runagentd.toml: limits.principal.rate: must be a number per second"),
        ("[limits.principal]\nburst = 5\n", "runagentd.toml: limits.principal.burst: says nothing without a rate"),
        ("[limits.address]\ndaily = 5\n", "runagentd.toml: limits.address.daily: there is no such key"),
        ("[limits.agents]\n", "runagentd.toml: limits.agents: there is no such key"),
        ("[limits.agent.for.a]\nconcurrency = -1\n", "runagentd.toml: limits.agent.for.a.concurrency: must be from 0"),
        ('[http]\ntrusted_proxies = ["x"]\n', "runagentd.toml: http.trusted_proxies: 'x' is no network"),
        ('[http]\nforwarded = "x"\n', "runagentd.toml: http.forwarded: must be one of x-forwarded-for, forwarded"),
        ('[http]\ncors_origins = ["*"]\n', "runagentd.toml: http.cors_origins: '*' is not an origin"),
        ('[http]\ncors_origins = ["https://a/"]\n', "runagentd.toml: http.cors_origins: 'https://a/' is not an origin"),
    ],
)
def test_a_wrong_key_is_told_with_its_place(text: str, problem: str) -> None:
    """And what to write instead."""
    with pytest.raises(ConfigurationError) as raised:
        load.parse(text.encode(), "runagentd.toml", Path("/"))
    assert problem in str(raised.value)
