"""What `serve` prints once all is up, as far as it depends on how many agents there are."""

from __future__ import annotations

from runagentd.foreman.announce import Announcement, serving_lines
from runagentd.wire import admin


def _serving(count: int, named: int) -> list[str]:
    rows = tuple(
        admin.Deployed(
            ok=True, agent=f"id-{number}", agent_name=f"a{number}", tags=("t",), policy="base", hints=(),
            problems=(), describe=b"{}", report=b"",
        )
        for number in range(count)
    )  # fmt: skip
    return list(serving_lines(Announcement(deployed=rows, url="http://127.0.0.1:1", token="T", named=named)))


def test_the_token_for_trying_out_is_said_to_name_those_that_it_names() -> None:
    """One that names hundreds would be longer than the gateway reads."""
    assert "token for these agents, valid for 24 hours:" in _serving(2, named=2)
    assert "token for the first 104 of these agents, valid for 24 hours:" in _serving(105, named=104)
