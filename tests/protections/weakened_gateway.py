"""A gateway that keeps callers less apart than it should.

Runs as: the gateway, in place of runagentd.gateway.__main__, in daemons of `make protections` only.
Reads from strangers: what the gateway reads; its callers are tests of ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runagentd.gateway import __main__ as gateway_main
from runagentd.gateway import binding
from runagentd.gateway.instances import Instance
from tests.protections.weakenings import CHECKS_NOBODY, CHOOSES_ANY, WEAKENINGS


def main(whole: Sequence[str]) -> int:
    """The gateway's own main, after all the changes."""
    marks = {mark for name in whole for mark in WEAKENINGS[name].marks}
    if CHOOSES_ANY in marks:
        _choose_any()
    if CHECKS_NOBODY in marks:
        _check_nobody()
    return gateway_main.main()


def _choose_any() -> None:
    def choose(seats: Sequence[Any], caller: str, target: int) -> Any:
        """Any: an instance. The first one, whoever has it."""
        return seats[0] if seats else None

    binding.choose = choose


def _check_nobody() -> None:
    bind = Instance._bind

    def unchecked(self: Instance, caller: str, now: float) -> None:
        bind(self, self.caller or caller, now)

    Instance._bind = unchecked  # type: ignore[method-assign]
