"""The response cache as callers meet it: what is kept, for whom, how long, and who waits for whom."""

from __future__ import annotations

import dataclasses
import json
import time
from typing import Any

import pytest

from runagentd.gateway.kept import caching
from runagentd.gateway.kept.cache import Cache, Entry, size_of
from runagentd.gateway.kept.caching import Directives, directives
from runagentd.gateway.values import Value
from runagentd.wire import control
from runagentd.wire.admin import CacheState
from runagentd.wire.channel import Frame, ValueType
from runagentd.wire.manifest import CacheScope, Caching
from tests.fakes_gateway import LIMITS, FakeRunner, Gateway, HttpAnswer, abort, answer

INVOKE = "/v1/agents/echo/entrypoints/say:invoke"
PRIVATE = Caching(ttl=60, swr=0, scope=CacheScope.PRIVATE, streams=True, max_bytes=1000)


def call(gateway: Gateway, runner: FakeRunner, value: object, body: bytes = b"{}", **fields: str) -> HttpAnswer:
    """A call that reaches the runner, which answers `value`."""
    asked = gateway.send("POST", INVOKE, body, **fields)
    runner.result(runner.until(Frame.CALL).call, value)
    return answer(asked)


def age(gateway: Gateway, seconds: float) -> None:
    """As if all that is kept had been there for so much longer."""

    def older() -> None:
        for partition in gateway.application._cache._partitions.values():
            for key, entry in partition.entries.items():
                partition.entries[key] = Entry(
                    entry.values, entry.etag, entry.stored - seconds, entry.ttl, entry.swr, entry.size, entry.agent,
                    entry.tag, entry.request_id,
                )  # fmt: skip

    gateway.inside(older)


def test_without_a_word_of_its_author_nothing_is_kept(gateway: Gateway) -> None:
    """And nothing is said about caches."""
    runner = gateway.ready()
    for number in range(2):
        got = call(gateway, runner, number)
        assert (got.json(), got.headers["cache-control"], "cache-status" in got.headers) == (number, "no-store", False)


def test_an_answer_is_kept_for_its_time_and_said_to_be(gateway: Gateway) -> None:
    """RFC 9211 and RFC 9111; the order of arguments does not matter."""
    runner = gateway.ready(cache=PRIVATE)
    token = gateway.token()
    first = call(gateway, runner, [1], b'{"a": 1, "b": 2}', token=token)
    assert first.headers["cache-status"] == "runagentd; fwd=miss"
    assert first.headers["cache-control"] == "private, max-age=60"
    hit = gateway.ask("POST", INVOKE, b'{"b":2,"a":1}', token=token)
    assert (hit.status, hit.json(), hit.headers["etag"]) == (200, [1], first.headers["etag"])
    assert hit.headers["cache-status"] in ("runagentd; hit; ttl=60", "runagentd; hit; ttl=59")
    assert int(hit.headers["age"]) in (0, 1)
    assert hit.headers["vary"] == "Authorization"
    age(gateway, 61)
    again = call(gateway, runner, [2], b'{"b":2,"a":1}', token=token)
    assert (again.json(), again.headers["cache-status"]) == ([2], "runagentd; fwd=stale")
    other = call(gateway, runner, [3], b'{"b":2.0,"a":1}', token=token)
    assert other.json() == [3]


def test_who_has_an_answer_already_is_told_so(gateway: Gateway) -> None:
    """304, without a length, whether it was kept or has just been made again."""
    runner = gateway.ready(cache=PRIVATE)
    token = gateway.token()
    etag = call(gateway, runner, "same", token=token).headers["etag"]
    for field in (etag, f'"x", W/{etag}', "*"):
        got = gateway.ask("POST", INVOKE, b"{}", token=token, If_None_Match=field)
        assert (got.status, got.body, "content-length" in got.headers) == (304, b"", False)
    assert gateway.ask("POST", INVOKE, b"{}", token=token, If_None_Match='"other"').status == 200
    age(gateway, 61)
    assert call(gateway, runner, "same", token=token, If_None_Match=etag).status == 304


def test_what_a_request_wants_is_honoured(gateway: Gateway) -> None:
    """RFC 9111, section 5.2.1."""
    runner = gateway.ready(cache=PRIVATE)
    token = gateway.token()
    only = gateway.ask("POST", INVOKE, b"{}", token=token, Cache_Control="only-if-cached")
    assert (only.status, only.json()["code"]) == (504, "NOT_CACHED")
    call(gateway, runner, 1, token=token)
    age(gateway, 10)
    assert gateway.ask("POST", INVOKE, b"{}", token=token, Cache_Control="max-age=30").json() == 1
    assert call(gateway, runner, 2, token=token, Cache_Control="max-age=5").json() == 2
    assert call(gateway, runner, 3, token=token, Cache_Control="no-cache").json() == 3
    assert gateway.ask("POST", INVOKE, b"{}", token=token).json() == 3
    assert call(gateway, runner, 4, token=token, Cache_Control="no-store").json() == 4
    assert gateway.ask("POST", INVOKE, b"{}", token=token).json() == 3


@pytest.mark.parametrize("scope", list(CacheScope))
def test_a_scope_says_who_shares(gateway: Gateway, scope: CacheScope) -> None:
    """Private by default; who has no tenant shares with nobody."""
    runner = gateway.ready(cache=dataclasses.replace(PRIVATE, scope=scope))
    tenants = {"alice": "acme", "bob": "acme", "eve": "other", "zoe": None}
    tokens = {name: gateway.token(subject=name, tenant=tenant) for name, tenant in tenants.items()}
    call(gateway, runner, "of alice", token=tokens["alice"])
    seen = {
        name: gateway.ask("POST", INVOKE, b"{}", token=token, Cache_Control="only-if-cached").status
        for name, token in tokens.items()
    }
    shared = {CacheScope.PRIVATE: ["alice"], CacheScope.TENANT: ["alice", "bob"], CacheScope.PUBLIC: list(tenants)}
    assert [name for name, status in seen.items() if status == 200] == shared[scope]


def test_another_tenants_entry_cannot_be_seen_timed_or_revalidated(gateway: Gateway) -> None:
    """Not by its ETag, and not by waiting with it: its call is another one."""
    runner = gateway.ready(cache=PRIVATE, limits=dataclasses.replace(LIMITS, concurrency=4))
    alice, eve = gateway.token(subject="alice"), gateway.token(subject="eve")
    etag = call(gateway, runner, "secret", token=alice).headers["etag"]
    got = call(gateway, runner, "another", token=eve, If_None_Match=etag)
    assert (got.status, got.json(), got.headers["cache-status"]) == (200, "another", "runagentd; fwd=miss")
    asked = [gateway.send("POST", INVOKE, b'{"n":1}', token=token) for token in (alice, eve)]
    calls = [runner.until(Frame.CALL).call for _ in asked]
    for number, each in enumerate(calls):
        runner.result(each, number)
    assert sorted(answer(each).json() for each in asked) == [0, 1]


def test_what_failed_or_was_cut_is_never_kept(gateway: Gateway) -> None:
    """Nor what is larger than its author allows."""
    runner = gateway.ready(cache=PRIVATE)
    token = gateway.token()
    asked = gateway.send("POST", INVOKE, b"{}", token=token)
    runner.error(runner.until(Frame.CALL).call, "exception", "no", type="ValueError")
    assert answer(asked).status == 502
    assert len(call(gateway, runner, "x" * 2000, token=token).json()) == 2000
    assert call(gateway, runner, "small", token=token).json() == "small"
    fields = {"token": token, "Accept": "text/event-stream"}
    asked = gateway.send("POST", INVOKE, b'{"s":1}', **fields)
    number = runner.until(Frame.CALL).call
    runner.chunk(number, 1)
    asked.sock.recv(10)
    abort(asked)
    runner.until(Frame.CANCEL)
    runner.error(number, "cancelled", "stopped")
    asked = gateway.send("POST", INVOKE, b'{"s":1}', **fields)
    number = runner.until(Frame.CALL).call
    runner.chunk(number, "whole")
    runner.end(number, 1)
    assert b"whole" in answer(asked).body


def test_a_stream_is_replayed_chunk_by_chunk(gateway: Gateway) -> None:
    """Where its author says so."""
    runner = gateway.ready(cache=PRIVATE, streams=True)
    fields = {"token": gateway.token(), "Accept": "text/event-stream"}
    asked = gateway.send("POST", INVOKE, b"{}", **fields)
    number = runner.until(Frame.CALL).call
    for chunk in range(3):
        runner.chunk(number, chunk)
    runner.end(number, 3)
    first, again = answer(asked), gateway.ask("POST", INVOKE, b"{}", **fields)
    assert first.body.partition(b"id: 1")[2] == again.body.partition(b"id: 1")[2] != b""
    assert again.headers["cache-status"].startswith("runagentd; hit; ttl=")
    assert again.headers["cache-control"].startswith("private, max-age=")


def test_all_who_ask_the_same_at_once_share_one_call_and_the_first_may_leave(gateway: Gateway) -> None:
    """Each has the result; the function ran once."""
    runner = gateway.ready(cache=PRIVATE)
    token = gateway.token()
    first = gateway.send("POST", INVOKE, b"{}", token=token)
    number = runner.until(Frame.CALL).call
    others = [gateway.send("POST", INVOKE, b"{}", token=token) for _ in range(5)]
    gateway.wait_until(lambda: gateway.application._cache.count("echo-1").joined == 5)
    abort(first)
    gateway.wait_until(lambda: len(gateway.application._pipeline._running) == 5)
    runner.result(number, "shared")
    answers = [answer(each) for each in others]
    assert {(got.status, got.json()) for got in answers} == {(200, "shared")}
    assert {got.headers["cache-status"] for got in answers} == {"runagentd; fwd=miss; collapsed"}


def test_the_last_one_to_leave_ends_the_call(gateway: Gateway) -> None:
    """Nobody is there to have it."""
    runner = gateway.ready(cache=PRIVATE)
    token = gateway.token()
    asked = [gateway.send("POST", INVOKE, b"{}", token=token) for _ in range(2)]
    runner.until(Frame.CALL)
    gateway.wait_until(lambda: gateway.application._cache.count("echo-1").joined == 1)
    for each in asked:
        abort(each)
    runner.until(Frame.CANCEL)


def test_a_failure_is_shared_once_and_each_keeps_its_own_deadline(gateway: Gateway) -> None:
    """One who has less patience hurts nobody."""
    runner = gateway.ready(cache=PRIVATE)
    token = gateway.token()
    hasty = gateway.send("POST", INVOKE, b"{}", token=token, Runagent_Timeout="100ms")
    number = runner.until(Frame.CALL).call
    patient = gateway.send("POST", INVOKE, b"{}", token=token)
    gateway.wait_until(lambda: gateway.application._cache.count("echo-1").joined == 1)
    assert answer(hasty).status == 504
    runner.error(number, "exception", "no", type="ValueError")
    assert answer(patient).status == 502
    assert call(gateway, runner, "now", token=token).json() == "now"


def test_a_shared_call_has_its_entrypoints_deadline(gateway: Gateway) -> None:
    """Not the policy's, which is further away, nor that of the caller who came first."""
    runner = gateway.ready(cache=PRIVATE, timeout_ms=1500)
    asked = gateway.send("POST", INVOKE, b"{}", Runagent_Timeout="1s")
    call = runner.until(Frame.CALL)
    assert 1000 < json.loads(call.header)["deadline_ms"] <= 1500
    runner.result(call.call, 1)
    assert answer(asked).json() == 1


def test_a_stale_answer_is_given_while_a_new_one_is_made(gateway: Gateway) -> None:
    """Once, in the background."""
    runner = gateway.ready(cache=dataclasses.replace(PRIVATE, swr=100))
    token = gateway.token()
    call(gateway, runner, "old", token=token)
    age(gateway, 70)
    for _ in range(2):
        got = gateway.ask("POST", INVOKE, b"{}", token=token)
        assert (got.json(), "detail=stale" in got.headers["cache-status"]) == ("old", True)
        assert got.headers["cache-control"] == "private, max-age=0, stale-while-revalidate=100"
    runner.result(runner.until(Frame.CALL).call, "new")
    gateway.wait_until(lambda: gateway.application._cache.count("echo-1").stored == 2)
    assert gateway.ask("POST", INVOKE, b"{}", token=token).json() == "new"
    assert gateway.inside(lambda: gateway.application._pipeline._caching._refreshes) == 0


def test_a_revoked_caller_has_nothing_of_a_shared_call(gateway: Gateway) -> None:
    """The others have."""
    runner = gateway.ready(cache=dataclasses.replace(PRIVATE, scope=CacheScope.PUBLIC))
    alice, bob = gateway.token(subject="alice"), gateway.token(subject="bob")
    first = gateway.send("POST", INVOKE, b"{}", token=alice)
    number = runner.until(Frame.CALL).call
    second = gateway.send("POST", INVOKE, b"{}", token=bob)
    gateway.wait_until(lambda: gateway.application._cache.count("echo-1").joined == 1)
    gateway.store.revoke_subject("alice", before=int(time.time()) + 1)
    gateway.spread()
    assert answer(first).status == 401
    runner.result(number, "for bob")
    assert answer(second).json() == "for bob"


def test_a_key_of_its_own_asks_no_cache(gateway: Gateway) -> None:
    """Whoever wants a call to run once wants it to run."""
    runner = gateway.ready(cache=PRIVATE)
    token = gateway.token()
    call(gateway, runner, 1, token=token)
    assert call(gateway, runner, 2, token=token, Idempotency_Key="sixteen-letters-k").json() == 2


def test_another_version_or_policy_finds_nothing(gateway: Gateway) -> None:
    """And its room is free at once."""
    runner = gateway.ready(cache=PRIVATE)
    token = gateway.token()
    call(gateway, runner, "old", token=token)
    gateway.supervisor.serve(cache=PRIVATE, version="f" * 64)
    gateway.wait_until(lambda: gateway.application._cache.size == 0)
    assert call(gateway, runner, "new", token=token).json() == "new"


def test_the_operator_can_look_and_throw_away(gateway: Gateway) -> None:
    """Of all, an agent, or an entrypoint."""
    runner = gateway.ready(cache=PRIVATE)
    token = gateway.token()
    call(gateway, runner, 1, token=token)
    gateway.ask("POST", INVOKE, b"{}", token=token)
    for question, purged, entries in (
        (control.CacheQuestion(number=1, purge=False, agent="", tag=""), 0, 1),
        (control.CacheQuestion(number=2, purge=True, agent="echo-1", tag="other"), 0, 1),
        (control.CacheQuestion(number=3, purge=True, agent="echo-1", tag="say"), 1, 0),
    ):
        gateway.supervisor.send(question)
        said = gateway.supervisor.receive()
        assert isinstance(said, control.CacheAnswer)
        state: CacheState = said.state
        row = state.rows[0]
        assert (said.number, state.purged, row.entries, row.hits, row.misses, row.stored) == (
            question.number, purged, entries, 1, 1, 1,
        )  # fmt: skip


def test_runagents_door_shares_the_stage_and_has_no_etag(gateway: Gateway) -> None:
    """Its body has a time in it."""
    runner = gateway.ready(cache=PRIVATE)
    token = gateway.token()
    body = json.dumps({"entrypoint_tag": "say"}).encode()
    asked = gateway.send("POST", "/api/v1/agents/echo/run", body, token=token)
    runner.result(runner.until(Frame.CALL).call, 5)
    answer(asked)
    hit = gateway.ask("POST", "/api/v1/agents/echo/run", body, token=token)
    assert (hit.status, hit.headers["cache-status"][:15], "etag" in hit.headers) == (200, "runagentd; hit;", False)


# ---- the store itself


def entry(agent: str, size: int) -> Entry:
    value = Value(ValueType.STRING, b"x" * size)
    return Entry((value,), "e", 0.0, 1, 0, size_of((value,)), agent, "t", "r")


def test_a_partition_that_floods_pushes_out_its_own() -> None:
    """A small one keeps what it has."""
    cache = Cache(100_000)
    assert cache.store("small", b"mine", entry("a", 100))
    for number in range(1000):
        cache.store("flood", b"%d" % number, entry("b", 1000))
        assert cache.size <= 100_000
    assert cache.find("small", b"mine") is not None
    assert cache.find("flood", b"999") is not None
    assert cache.find("flood", b"0") is None
    assert cache.count("b").evicted > 900
    assert not cache.store("small", b"huge", entry("a", 20_000))


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (None, Directives()),
        ("no-store", Directives(no_store=True)),
        ("No-Cache, max-age=0", Directives(no_cache=True, max_age=0)),
        (' only-if-cached , x="y" ,,', Directives(only_if_cached=True)),
        ("max-age=soon", Directives()),
        ("max-age=99999999999999", Directives()),
    ],
)
def test_directives_are_read_as_far_as_they_are_known(field: str | None, expected: Directives) -> None:
    """Anything else is as if it was not there."""
    assert directives(field) == expected


def test_nothing_of_this_waits_for_ever(gateway: Gateway) -> None:
    """No flight is left over when its call has ended."""
    runner = gateway.ready(cache=PRIVATE)
    for number in range(3):
        call(gateway, runner, number, b'{"n":%d}' % number)
    stage: Any = gateway.application._pipeline._caching
    assert isinstance(stage, caching.Stage)
    gateway.wait_until(lambda: not stage._flights)
