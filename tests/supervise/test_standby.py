"""Whose next sandbox is kept at its gate."""

from __future__ import annotations

from runagentd.supervise.standby import Standbys


class Keeper:
    def __init__(self) -> None:
        self.given_up = 0

    def give_up_standby(self) -> None:
        self.given_up += 1


def test_the_agent_that_started_longest_ago_gives_up_its_own() -> None:
    """To start again is to be the last again."""
    standbys = Standbys(2)
    one, two, three = Keeper(), Keeper(), Keeper()
    assert [standbys.admit(each) for each in (one, two, one, three)] == [True, True, True, True]
    assert [each.given_up for each in (one, two, three)] == [0, 1, 0]
    assert len(standbys) == 2


def test_none_is_kept_where_none_is_wanted() -> None:
    """`--standbys 0`."""
    standbys, one = Standbys(0), Keeper()
    assert standbys.admit(one) is False
    assert len(standbys) == 0


def test_all_are_given_up_at_once() -> None:
    """Where the host is short of memory."""
    standbys, one, two = Standbys(3), Keeper(), Keeper()
    standbys.admit(one)
    standbys.admit(two)
    standbys.leave(one)
    standbys.give_up_all()
    assert (one.given_up, two.given_up, len(standbys)) == (0, 1, 0)
