"""What `serve` prints once all is up, as far as it depends on how many agents there are."""

from __future__ import annotations

from runagentd.foreman.announce import Announcement, serving_lines
from runagentd.wire import admin


def _serving(count: int) -> list[str]:
    rows = tuple(
        admin.Deployed(
            ok=True, agent=f"id-{number}", agent_name=f"a{number}", tags=("t",), policy="base", hints=(),
            problems=(), describe=b"{}", report=b"",
        )
        for number in range(count)
    )  # fmt: skip
    return list(serving_lines(Announcement(deployed=rows, url="http://127.0.0.1:1", token="T")))


def test_the_token_for_trying_out_names_100_agents() -> None:
    """One that names hundreds would be longer than the gateway reads."""
    assert "token for these agents, valid for 24 hours:" in _serving(100)
    assert "token for the first 100 of these agents, valid for 24 hours:" in _serving(101)
