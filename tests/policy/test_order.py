"""Which of two policies grants more is a preorder, key by key and as a whole."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runagentd.policy.compare import Difference, compare, differences
from runagentd.policy.files import find
from runagentd.policy.keys import BY_NAME, KEYS, Key
from runagentd.policy.kinds import Cores, Count, Duration, Flag, GroupNames, HostFolders, OneOf, Size
from runagentd.policy.model import History, HostFolder, Runtime
from runagentd.policy.order import Comparison, all_together

EQUAL, NARROWER = Comparison.EQUAL, Comparison.NARROWER
WIDER, INCOMPARABLE = Comparison.WIDER, Comparison.INCOMPARABLE


def values(key: Key[Any]) -> st.SearchStrategy[Any]:  # Any: keys have values of different types
    """Values of a key that are often comparable: few of them, from its whole range."""
    match key.kind:
        case Flag():
            return st.booleans()
        case OneOf(choices=choices):
            return st.sampled_from(choices)
        case Cores():
            return st.sampled_from([0.05, 0.5, 1.0, 2.0])
        case GroupNames():
            return st.lists(st.sampled_from(["memfd", "splice", "sched"]), unique=True).map(tuple)
        case HostFolders():
            paths = st.sampled_from(["/srv", "/srv/a", "/srv/a/b", "/srv/ab", "/opt"])
            folders = st.builds(HostFolder, path=paths, optional=st.booleans())
            return st.lists(folders, max_size=4, unique_by=lambda folder: folder.path).map(tuple)
        case Count() | Size() | Duration():
            return st.sampled_from([key.kind.least, key.default, key.kind.most])
        case _:
            raise AssertionError(f"{key.name} is of a kind that this test does not know")


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
@given(data=st.data())
def test_the_order_of_each_key_is_a_preorder(key: Key[Any], data: st.DataObject) -> None:
    """Reflexive; swapping the operands swaps the answer; wider than what is wider is wider."""
    a, b, c = (data.draw(values(key)) for _ in range(3))
    order = key.kind.compare
    assert order(a, a) is EQUAL
    assert order(b, a) is order(a, b).swapped()
    if order(a, b) in (EQUAL, WIDER) and order(b, c) in (EQUAL, WIDER):
        assert order(a, c) in (EQUAL, WIDER)
        assert order(a, c) is (EQUAL if order(a, b) is order(b, c) is EQUAL else WIDER)


@pytest.mark.parametrize(
    ("name", "a", "b", "expected"),
    [
        ("resources.memory_max", 2**30, 2**28, WIDER),
        ("resources.cpu_max", 0.5, 1.0, NARROWER),
        ("process.exec", True, False, WIDER),
        ("files.runtime", Runtime.PYTHON, Runtime.SYSTEM, NARROWER),
        ("calls.deadline", 1000, 1000, EQUAL),
        ("calls.history", History.CONTENT, History.FACTS, WIDER),
        ("syscalls.groups", ("memfd",), ("splice",), INCOMPARABLE),
        ("syscalls.groups", ("memfd", "splice"), ("splice",), WIDER),
        ("syscalls.groups", ("memfd", "splice"), ("splice", "memfd"), EQUAL),
    ],
)
def test_the_wider_of_two_values(name: str, a: object, b: object, expected: Comparison) -> None:
    """More, true, and a larger set are wider; two sets of which neither has the other cannot be compared."""
    assert BY_NAME[name].kind.compare(a, b) is expected


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([], [], EQUAL),
        (["/srv"], [], WIDER),
        (["/srv"], ["/srv/words", "/srv/models"], WIDER),
        (["/srv/words"], ["/srv/wordsmith"], INCOMPARABLE),
        (["/srv", "/srv/words"], ["/srv"], EQUAL),
        (["/srv", "/opt"], ["/srv/words"], WIDER),
    ],
)
def test_a_folder_covers_what_lies_below_it(a: list[str], b: list[str], expected: Comparison) -> None:
    """By path components and not by letters."""
    first, second = (tuple(HostFolder(path=path, optional=False) for path in paths) for paths in (a, b))
    assert HostFolders().compare(first, second) is expected


def test_an_optional_folder_grants_what_a_required_one_does() -> None:
    """`optional` is about a host that lacks it, not about access."""
    required, optional = (HostFolder(path="/srv/words", optional=optional) for optional in (False, True))
    assert HostFolders().compare((required,), (optional,)) is EQUAL


@pytest.mark.parametrize("name", ["compute", "tools", "persistent"])
def test_every_other_shipped_policy_is_wider_than_base(name: str) -> None:
    """They add to it and take nothing away; base as a whole is therefore the narrowest."""
    assert compare(find(name), find("base")) is WIDER
    assert compare(find("base"), find(name)) is NARROWER


def test_compute_and_tools_cannot_be_compared() -> None:
    """One has more memory, the other may start programs."""
    assert compare(find("compute"), find("tools")) is INCOMPARABLE


def test_differences_name_the_keys_and_both_values() -> None:
    """As a policy would have them written."""
    assert differences(find("persistent"), find("base")) == (
        Difference(key="files.persistent", comparison=WIDER, first="true", second="false"),
    )


def test_a_policy_is_equal_to_itself_under_another_name() -> None:
    """Neither the name nor the origins grant anything."""
    base = find("base")
    assert compare(base, dataclasses.replace(base, name="other", origins=())) is EQUAL


@given(st.lists(st.sampled_from(list(Comparison))))
def test_together_is_wider_only_if_nothing_is_narrower(parts: list[Comparison]) -> None:
    """The product order."""
    together = all_together(parts)
    assert (together is WIDER) == (WIDER in parts and not {NARROWER, INCOMPARABLE} & set(parts))
    assert (together is EQUAL) == (set(parts) <= {EQUAL})
