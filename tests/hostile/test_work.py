"""Whether something exists, and how much of a secret is right, cannot be told from the time that an answer takes.

Time itself is nothing that a test can rely on, so this counts work: every instruction of ours that is carried out for
a request in the gateway, from its first byte to its last. Two requests that must look alike have to take exactly as
many. Each comparison is also made with a gateway that leaks, which has to be found out; `make timing` measures the same
with a clock, and shows how large a leak has to be to be seen.
"""

from __future__ import annotations

import functools
import hmac
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

from runagentd import apikeys
from runagentd.gateway.call_log import CallLog
from runagentd.gateway.directory import Directory
from runagentd.gateway.guard import keyring
from runagentd.gateway.guard.grants import Role
from runagentd.gateway.guard.identity import Credentials, Principal, refused
from runagentd.gateway.guard.keyring import ApiKeys
from runagentd.gateway.pipeline import Pipeline
from tests import fakes_gateway
from tests.fakes_gateway import Gateway
from tests.hostile.raw import PROBE, Client
from tests.timing.gateways import EarlyKeys, ask, early_find, leak_keys, new_key, with_another_secret

ROOT = Path(__file__).resolve().parents[2]
TIMES = 5


OURS = ("runagentd.", "tests.hostile.", "tests.timing.")


class Work:
    """Instructions of ours that the thread which starts it carries out, and its comparisons of secrets."""

    def __init__(self) -> None:
        self.instructions = 0
        self.comparisons = 0

    # Any, below: what the interpreter passes.

    if sys.version_info >= (3, 12):
        # sys.settrace is built on this, and begins to tell of instructions only now and then.
        def start(self) -> None:
            self._thread = threading.get_ident()
            events = sys.monitoring.events
            sys.monitoring.use_tool_id(sys.monitoring.DEBUGGER_ID, "work")
            sys.monitoring.register_callback(sys.monitoring.DEBUGGER_ID, events.INSTRUCTION, self._instruction)
            sys.monitoring.register_callback(sys.monitoring.DEBUGGER_ID, events.CALL, self._call)
            sys.monitoring.set_events(sys.monitoring.DEBUGGER_ID, events.INSTRUCTION | events.CALL)

        def stop(self) -> None:
            sys.monitoring.set_events(sys.monitoring.DEBUGGER_ID, 0)
            sys.monitoring.free_tool_id(sys.monitoring.DEBUGGER_ID)

        def _instruction(self, code: CodeType, offset: int) -> None:
            if threading.get_ident() == self._thread and _module(code).startswith(OURS):
                self.instructions += 1

        def _call(self, code: CodeType, offset: int, called: Any, first: Any) -> None:
            if threading.get_ident() == self._thread and called is hmac.compare_digest:
                self.comparisons += 1

    else:

        def start(self) -> None:
            sys.settrace(self._enter)
            sys.setprofile(self._called)

        def stop(self) -> None:
            sys.settrace(None)
            sys.setprofile(None)

        def _enter(self, frame: FrameType, event: str, argument: Any) -> Callable[[FrameType, str, Any], Any] | None:
            if not _module(frame.f_code).startswith(OURS):
                return None
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            return self._step

        def _step(self, frame: FrameType, event: str, argument: Any) -> Callable[[FrameType, str, Any], Any]:
            if event == "opcode":
                self.instructions += 1
            return self._step

        def _called(self, frame: FrameType, event: str, argument: Any) -> None:
            if event == "c_call" and argument is hmac.compare_digest:
                self.comparisons += 1


@functools.cache
def _module(code: CodeType) -> str:
    """The name of the module that a piece of code is of, as far as it lies in this project."""
    path = Path(code.co_filename)
    return ".".join(path.relative_to(ROOT).with_suffix("").parts) if path.is_relative_to(ROOT) else ""


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    for running in fakes_gateway.running():
        for number in range(TIMES):
            running.supervisor.serve(agent=f"id-{number:02}", name=f"there-{number:02}", tags=("say", "pay"))
        running.wait_until(functools.partial(has_all, running.application.directory))
        with pytest.MonkeyPatch.context() as patch:
            # Whether there is room for another line depends on what came before, for all alike.
            patch.setattr(CallLog, "_has_room", lambda self, peer: True)
            yield running


def has_all(directory: Directory) -> bool:
    return len(directory.all()) == TIMES


def work(gateway: Gateway, asks: Sequence[str], expected: int) -> tuple[int, int]:
    """(instructions, comparisons) of the cheapest of some requests.

    The cheapest, because now and then one pays for what all share: the date of a new second. All on one connection, so
    that none pays for the beginning or the end of another's.
    """
    found = []
    with Client(gateway.port) as client:
        client.send(PROBE)
        assert client.answer() is not None
        for text in asks:
            settle(gateway)
            counted = Work()
            gateway.inside(counted.start)
            client.send(text.encode())
            answer = client.answer()
            settle(gateway)
            gateway.inside(counted.stop)
            assert answer is not None
            assert answer.status == expected
            found.append((counted.instructions, counted.comparisons))
    return min(found)


def settle(gateway: Gateway) -> None:
    """Let the gateway's loop finish what follows an answer."""
    for _ in range(10):
        gateway.inside(bool)


def key_of(gateway: Gateway, expires: int = 0) -> str:
    text = new_key(gateway, expires=expires)
    gateway.spread()
    return text


def ends_soon(gateway: Gateway) -> str:
    return with_another_secret(key_of(gateway, int(time.time()) + 900))


def rotated(gateway: Gateway) -> str:
    """One with two secrets that are good."""
    text = key_of(gateway)
    identity = apikeys.parse(text) or ""
    gateway.store.rotate_api_key(identity, apikeys.digest(with_another_secret(text)), overlap_seconds=900)
    gateway.spread()
    return with_another_secret(text)


def revoked(gateway: Gateway) -> str:
    text = key_of(gateway)
    gateway.store.revoke_api_key(apikeys.parse(text) or "")
    gateway.spread()
    return text


KEYS: Mapping[str, Callable[[Gateway], str]] = {
    "another secret": lambda gateway: with_another_secret(key_of(gateway)),
    "another secret of a key that ends": ends_soon,
    "another secret in a rotation": rotated,
    "revoked": revoked,
    "revoked, and another secret": lambda gateway: with_another_secret(revoked(gateway)),
}


def asks_with(gateway: Gateway, make: Callable[[Gateway], str]) -> list[str]:
    return [ask("GET", "/v1/agents", make(gateway)) for _ in range(TIMES)]


def unknown(gateway: Gateway) -> str:
    return apikeys.create(apikeys.new_id())


@pytest.mark.slow
@pytest.mark.parametrize("make", KEYS.values(), ids=KEYS)
def test_an_api_key_that_is_known_and_one_that_is_not_take_the_same_work(
    gateway: Gateway, make: Callable[[Gateway], str]
) -> None:
    """To the instruction; and two comparisons of digests, which take the same time wherever they differ."""
    expected = work(gateway, asks_with(gateway, unknown), 401)
    assert work(gateway, asks_with(gateway, make), 401) == expected
    assert expected[0] > 500
    assert expected[1] == 2


class Plain(ApiKeys):
    """Leaks: compares as any two values are, up to the first byte that differs."""

    async def verify(self, credentials: Credentials, roles: Mapping[str, Role], now: float) -> Principal:
        text = credentials.token or ""
        key = self._find(apikeys.parse(text) or "")
        until = 0.0
        for secret in (key.secrets + keyring._NO_SECRETS)[:2]:
            if secret.digest == apikeys.digest(text):
                until = math.inf
        if now >= until:
            raise refused(keyring.UNKNOWN)
        return await super().verify(credentials, roles, now)


@pytest.mark.slow
@pytest.mark.parametrize("leaky", [EarlyKeys, Plain])
def test_an_authenticator_that_leaks_is_found_out(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, leaky: type[ApiKeys]
) -> None:
    """By what the test above asks."""
    identity = gateway.application.identity
    monkeypatch.setattr(identity, "_authenticators", identity._authenticators)  # to have them again
    leak_keys(gateway, leaky)
    absent = work(gateway, asks_with(gateway, unknown), 401)
    wrong = work(gateway, asks_with(gateway, KEYS["another secret"]), 401)
    assert absent != wrong or absent[1] != 2


# ---- agents and entrypoints

SHAPES: Mapping[str, tuple[str, str, str]] = {
    "an agent by its name": ("GET", "/v1/agents/{}", "there-{:02}"),
    "an agent by its id": ("GET", "/v1/agents/{}", "id-{:02}"),
    "a call": ("POST", "/v1/agents/{}/entrypoints/say:invoke", "there-{:02}"),
    "an architecture": ("GET", "/api/v1/agents/{}/architecture", "there-{:02}"),
    "a run": ("POST", "/api/v1/agents/{}/run", "there-{:02}"),
}


def asks_for(gateway: Gateway, shape: tuple[str, str, str], *, there: bool) -> list[str]:
    """For one agent after the other, each for the first time, by a caller who has had all listed that is theirs."""
    method, path, name = shape
    token = gateway.token("mine")
    assert gateway.ask("GET", "/v1/agents", token=token).json() == {"agents": []}
    names = [name.format(number) for number in range(TIMES)]
    if not there:
        names = [each[:-1] + "abcde"[number] for number, each in enumerate(names)]
    return [ask(method, path.format(each), token) for each in names]


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_an_agent_of_somebody_elses_and_none_take_the_same_work(gateway: Gateway, shape: tuple[str, str, str]) -> None:
    """On both doors, by id and by name."""
    absent = work(gateway, asks_for(gateway, shape, there=False), 404)
    assert work(gateway, asks_for(gateway, shape, there=True), 404) == absent
    assert absent[0] > 500


@pytest.mark.slow
def test_a_lookup_that_leaks_is_found_out(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what the test above asks."""
    monkeypatch.setattr(Pipeline, "_find", early_find)
    shape = SHAPES["an agent by its name"]
    absent = work(gateway, asks_for(gateway, shape, there=False), 404)
    assert work(gateway, asks_for(gateway, shape, there=True), 404) != absent


@pytest.mark.slow
def test_an_entrypoint_that_is_not_theirs_and_none_take_the_same_work(gateway: Gateway) -> None:
    """A token for `say` learns nothing about `pay`."""
    text = new_key(gateway, "agents:invoke:there-*/say")
    gateway.spread()
    assert gateway.ask("GET", "/v1/agents", token=text).status == 200
    path = "/v1/agents/there-{:02}/entrypoints/{}:invoke"
    theirs, none = ([ask("POST", path.format(number, tag), text) for number in range(TIMES)] for tag in ("pay", "yap"))
    assert work(gateway, theirs, 404) == work(gateway, none, 404)


def test_a_secret_is_compared_by_digests_of_one_length() -> None:
    """hmac.compare_digest(3): its time depends on the length of what it compares, which is always 32 bytes here."""
    assert {len(secret.digest) for secret in keyring._NO_SECRETS} == {32}
    assert len(apikeys.digest("x")) == len(apikeys.digest("x" * 8192)) == 32
    assert not hmac.compare_digest(apikeys.digest(""), bytes(32))
