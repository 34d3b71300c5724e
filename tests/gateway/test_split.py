"""Which end of a call says something about its version, and how calls are drawn."""

from __future__ import annotations

import asyncio

import pytest

from runagentd import errors
from runagentd.errors import ErrorKind, Refusal
from runagentd.gateway.split import Split, Tally, failure
from runagentd.wire.control import Ended, FromGateway, Outcomes

COUNTED = {
    errors.FUNCTION, errors.UNSERIALISABLE, errors.RESULT_TOO_LARGE, errors.IMPORT, errors.INSTANCE_DIED,
    errors.OUT_OF_MEMORY, errors.PROTOCOL, errors.TIMEOUT,
}  # fmt: skip
KINDS = {name: kind for name, kind in vars(errors).items() if isinstance(kind, ErrorKind)}


@pytest.mark.parametrize("name", KINDS)
def test_only_what_is_the_versions_fault_is_its_failure(name: str) -> None:
    """Whatever is the caller's, the host's, the operator's or ours says nothing at all."""
    refusal = Refusal(KINDS[name], "")
    assert failure(refusal, hurried=False) is (True if KINDS[name] in COUNTED else None)


def test_a_deadline_of_the_callers_own_says_nothing() -> None:
    assert failure(Refusal(errors.TIMEOUT, ""), hurried=True) is None
    assert failure(Refusal(errors.FUNCTION, ""), hurried=True) is True
    assert failure(None, hurried=True) is False


def test_what_another_call_has_cost_says_nothing() -> None:
    """That one did not stop, perhaps at a deadline of its caller's: it was counted, or not, by itself."""
    assert failure(Refusal(errors.INSTANCE_DIED, "", cause="deadline"), hurried=False) is None
    assert failure(Refusal(errors.INSTANCE_DIED, "", cause="signal"), hurried=False) is True


def test_the_supervisor_is_told_what_came_since_the_last_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all versions in one message, one for each half second, and none where nothing has ended."""
    told: list[FromGateway] = []
    monkeypatch.setattr("runagentd.gateway.split.TELL_SECONDS", 0.01)

    async def calls() -> None:
        tally = Tally("a", told.append)
        for refusal in (None, Refusal(errors.FUNCTION, ""), Refusal(errors.ARGUMENT, ""), None):
            tally.add(2, refusal, hurried=False)
        tally.add(0, Refusal(errors.INSTANCE_DIED, ""), hurried=False)
        await asyncio.sleep(0.05)
        tally.add(0, None, hurried=False)
        await asyncio.sleep(0.05)

    asyncio.run(calls())
    assert told == [
        Outcomes(agent="a", ended=(Ended(side=0, calls=1, failures=1), Ended(side=2, calls=3, failures=1))),
        Outcomes(agent="a", ended=(Ended(side=0, calls=1, failures=0),)),
    ]


def test_without_shares_nothing_is_drawn() -> None:
    main = object()
    assert Split(Tally("a", lambda message: None)).draw(main, "say") is main  # type: ignore[arg-type]
