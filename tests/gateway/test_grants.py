"""What scopes and roles allow, and what they deny."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runagentd.gateway.guard.grants import PLAIN_SCOPES, Grants, Role, grants, parse_invoke


@pytest.mark.parametrize(
    ("scope", "calls"),
    [
        ("agents:invoke:echo/run", [("echo", "run")]),
        ("agents:invoke:echo/*", [("echo", "run"), ("echo", "ruin"), ("echo", "stop")]),
        ("agents:invoke:ec*/ru*", [("echo", "run"), ("echo", "ruin"), ("ecru", "run")]),
        ("agents:invoke:*/run", [("echo", "run"), ("ecru", "run"), ("*", "run")]),
        ("agents:invoke:%2A/*", [("*", "run")]),
        ("agents:invoke:*cho/run", []),
        ("agents:invoke:echo", []),
        ("agents:invoke:echo/", []),
        ("agents:invoke:/run", []),
        ("agents:invoke:echo/run/more", []),
        ("agents:read", []),
        ("", []),
    ],
)
def test_a_scope_allows_these_calls_and_no_others(scope: str, calls: list[tuple[str, str]]) -> None:
    """A star stands at the end of a name only."""
    found = grants([scope], {})
    every = [("echo", "run"), ("echo", "ruin"), ("echo", "stop"), ("ecru", "run"), ("*", "run")]
    assert [call for call in every if found.may_invoke((call[0],), call[1])] == calls
    assert [agent for agent in ("echo", "ecru", "*") if found.sees((agent,))] == list(
        dict.fromkeys(c[0] for c in calls)
    )


def test_an_agent_goes_by_its_id_or_by_its_unique_name() -> None:
    """Any of the names will do, for allowing and for denying."""
    found = grants(["agents:invoke:chat/*"], {})
    assert found.may_invoke(("id-1", "chat"), "run")
    assert not found.may_invoke(("id-1",), "run")
    roles = {"r": Role(allow=("agents:invoke:*/*",), deny=("agents:invoke:chat/*",))}
    assert not grants(["role:r"], roles).may_invoke(("id-1", "chat"), "run")


def test_a_denial_wins_wherever_the_allowance_comes_from() -> None:
    """A role's denials hold against the token's own scopes, too."""
    roles = {
        "careful": Role(deny=("agents:invoke:bank/pay*", "metrics:read")),
        "clerk": Role(allow=("agents:invoke:bank/*", "metrics:read", "audit:read")),
    }
    found = grants(["role:clerk", "role:careful", "agents:invoke:bank/pay"], roles)
    assert [tag for tag in ("pay", "payout", "balance") if found.may_invoke(("bank",), tag)] == ["balance"]
    assert found.plain == frozenset({"audit:read"})
    assert found.sees(("bank",))
    closed = {"out": Role(deny=("agents:invoke:bank/*",))}
    assert not grants(["role:out", "agents:invoke:bank/pay"], closed).sees(("bank",))


def test_an_unknown_role_or_scope_allows_nothing() -> None:
    """Fail closed."""
    assert (
        grants(["role:nobody", "openid", "agents:invoke", "role:"], {"clerk": Role(allow=("agents:read",))}) == Grants()
    )


@given(st.text(max_size=40))
def test_any_text_is_a_scope_of_ours_or_allows_nothing(text: str) -> None:
    """And never raises."""
    if parse_invoke(text) is None and text not in PLAIN_SCOPES:
        assert grants([text], {}) == Grants()
