"""Which of two policies grants more is a preorder, key by key; a policy widens another where any key says so."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runagentd.policy.compare import Difference, differences, widening
from runagentd.policy.files import find
from runagentd.policy.keys import BY_NAME, KEYS, Key, value_of
from runagentd.policy.kinds import Cores, Count, Duration, Flag, GroupNames, HostFolders, Kind, OneOf, Size
from runagentd.policy.model import History, HostFolder, Policy, Runtime
from runagentd.policy.order import Comparison
from runagentd.schema import Schema

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
        (["/srv", "/opt"], ["/srv"], WIDER),
        (["/srv", "/opt"], ["/opt", "/srv"], EQUAL),
        (["/srv"], ["/srv/words"], INCOMPARABLE),
        (["/srv", "/srv/words"], ["/srv"], WIDER),
    ],
)
def test_a_folder_covers_itself_alone(a: list[str], b: list[str], expected: Comparison) -> None:
    """A mount below it is not shown with it, and a folder without permission to enter hides what it holds."""
    first, second = (tuple(HostFolder(path=path, optional=False) for path in paths) for paths in (a, b))
    assert HostFolders().compare(first, second) is expected


def test_an_optional_folder_grants_what_a_required_one_does() -> None:
    """`optional` is about a host that lacks it, not about access."""
    required, optional = (HostFolder(path="/srv/words", optional=optional) for optional in (False, True))
    assert HostFolders().compare((required,), (optional,)) is EQUAL


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
@given(data=st.data())
def test_other_values_are_never_the_same_grant(key: Key[Any], data: st.DataObject) -> None:
    """But for what is said twice over: the order of a list, and `optional`. So nothing that changes is passed over."""
    a, b = (data.draw(values(key)) for _ in range(2))
    if isinstance(key.kind, HostFolders):
        a, b = (frozenset(folder.path for folder in value) for value in (a, b))
    elif isinstance(key.kind, GroupNames):
        a, b = frozenset(a), frozenset(b)
    folders = isinstance(key.kind, HostFolders)
    first, second = (
        tuple(HostFolder(path=path, optional=False) for path in value) if folders else value for value in (a, b)
    )
    assert (key.kind.compare(first, second) is EQUAL) == (a == b)


def test_every_kind_of_value_says_its_own_order() -> None:
    """A kind without one cannot be made, so no key comes without a relation."""

    class Unordered(Kind[int]):
        def read(self, raw: object) -> int:
            raise NotImplementedError

        def text(self, value: int) -> str:
            raise NotImplementedError

        def range(self) -> str:
            raise NotImplementedError

        def schema(self) -> Schema:
            raise NotImplementedError

    with pytest.raises(TypeError, match="compare"):
        Unordered()  # type: ignore[abstract]  # that it cannot be made is the point
    assert {type(key.kind) for key in KEYS} == {Flag, OneOf, Cores, Count, Size, Duration, GroupNames, HostFolders}


def changed(**tables: dict[str, object]) -> Policy:
    """base, with other values: `changed(resources={"pids_max": 65})`."""
    base = find("base")
    return dataclasses.replace(
        base, **{table: dataclasses.replace(getattr(base, table), **keys) for table, keys in tables.items()}
    )


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
@given(data=st.data())
def test_a_widening_of_any_key_is_found_by_its_name(key: Key[Any], data: st.DataObject) -> None:
    """Nothing else of the two policies differs, and exactly one of the two directions or both is a widening."""
    a, b = (changed(**{key.table: {key.field: data.draw(values(key))}}) for _ in range(2))
    there, back = widening(a, b), widening(b, a)
    assert {difference.key for difference in (*there, *back)} <= {key.name}
    relation = key.kind.compare(value_of(b, key), value_of(a, key))
    assert (bool(there), bool(back)) == {
        EQUAL: (False, False),
        WIDER: (True, False),
        NARROWER: (False, True),
        INCOMPARABLE: (True, True),
    }[relation]


@pytest.mark.parametrize("name", ["compute", "tools", "persistent"])
def test_every_other_shipped_policy_is_wider_than_base(name: str) -> None:
    """They add to it and take nothing away; base is therefore the narrowest."""
    assert widening(find("base"), find(name)) != ()
    assert widening(find(name), find("base")) == ()


def test_differences_name_the_key_both_values_and_how_the_second_relates_to_the_first() -> None:
    """As a policy would have them written."""
    assert differences(find("base"), find("persistent")) == (
        Difference(key="files.persistent", a="false", b="true", relation=WIDER),
    )


def test_what_neither_contains_nor_is_contained_is_a_widening() -> None:
    """One group is given up for another: the second allows what the first does not."""
    one, other = changed(syscalls={"groups": ("memfd",)}), changed(syscalls={"groups": ("splice",)})
    assert widening(one, other) == (
        Difference(key="syscalls.groups", a='["memfd"]', b='["splice"]', relation=INCOMPARABLE),
    )


def test_what_is_only_written_otherwise_is_a_difference_and_no_widening() -> None:
    """A folder that may be missing is the same folder."""
    one, other = (
        changed(files={"read": (HostFolder(path="/srv/words", optional=optional),)}) for optional in (False, True)
    )
    assert [difference.relation for difference in differences(one, other)] == [EQUAL]
    assert widening(one, other) == ()


def test_a_policy_differs_in_nothing_from_itself_under_another_name() -> None:
    """Neither the name nor the origins grant anything."""
    base = find("base")
    assert differences(base, dataclasses.replace(base, name="other", origins=())) == ()
