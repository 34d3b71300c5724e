"""Environments on the disk: found again, shared, and never taken from under somebody."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from runagentd.supervise.environment_store import EnvironmentStore

ONE, OTHER = "1" * 64, "2" * 64
REQUEST = "a" * 64


@pytest.fixture
def store(tmp_path: Path) -> EnvironmentStore:
    return EnvironmentStore(tmp_path / "environments")


def tree(store: EnvironmentStore, name: str = "new") -> Path:
    path = store.incoming / name
    path.mkdir()
    (path / "six.py").write_text("")
    return path


def names(store: EnvironmentStore, folder: str) -> list[str]:
    return sorted(path.name for path in (store.incoming.parent / folder).iterdir())


def old(store: EnvironmentStore, digest: str) -> None:
    os.utime(store.incoming.parent / "trees" / digest, (0, 0))


def test_a_request_is_answered_by_what_was_adopted_for_it(store: EnvironmentStore) -> None:
    assert store.answer(REQUEST) is None
    store.adopt(tree(store), ONE, REQUEST).release()
    found = store.answer(REQUEST)
    assert found is not None
    assert (found.digest, os.listdir(found.descriptor)) == (ONE, ["six.py"])
    found.release()


def test_two_requests_with_the_same_contents_share_one(store: EnvironmentStore) -> None:
    store.adopt(tree(store, "first"), ONE, REQUEST).release()
    second = tree(store, "second")
    store.adopt(second, ONE, "b" * 64).release()
    assert (names(store, "trees"), names(store, "requests")) == ([ONE], [REQUEST, "b" * 64])
    assert second.exists()  # the caller's to remove


def test_what_nobody_has_used_for_long_is_collected_with_its_requests(store: EnvironmentStore) -> None:
    store.adopt(tree(store), ONE, REQUEST).release()
    old(store, ONE)
    for path in store.collect(set(), unused_seconds=60):
        shutil.rmtree(path)
    assert (names(store, "trees"), names(store, "requests"), names(store, "incoming")) == ([], [], [])
    assert store.answer(REQUEST) is None


def test_what_was_used_lately_stays(store: EnvironmentStore) -> None:
    store.adopt(tree(store), ONE, REQUEST).release()
    assert store.collect(set(), unused_seconds=60) == []


def test_what_is_leased_stays_and_is_new_again_when_it_is_released(store: EnvironmentStore) -> None:
    lease = store.adopt(tree(store), ONE, REQUEST)
    old(store, ONE)
    assert store.collect(set(), unused_seconds=60) == []
    lease.release()
    lease.release()
    assert store.collect(set(), unused_seconds=60) == []


def test_of_two_leases_one_is_enough(store: EnvironmentStore) -> None:
    first = store.adopt(tree(store), ONE, REQUEST)
    second = store.lease(ONE)
    first.release()
    old(store, ONE)
    assert store.collect(set(), unused_seconds=60) == []
    assert os.listdir(second.descriptor) == ["six.py"]
    second.release()


def test_what_a_deployment_names_stays(store: EnvironmentStore) -> None:
    store.adopt(tree(store), ONE, REQUEST).release()
    old(store, ONE)
    assert store.collect({ONE}, unused_seconds=60) == []


def test_a_request_whose_environment_is_gone_is_none(store: EnvironmentStore) -> None:
    store.adopt(tree(store), ONE, REQUEST).release()
    shutil.rmtree(store.incoming.parent / "trees" / ONE)
    assert store.answer(REQUEST) is None


@pytest.mark.parametrize("content", ["", "../../keys", "1" * 63, "1" * 64 + "/..", "\n" + "1" * 64])
def test_a_damaged_record_leads_nowhere(store: EnvironmentStore, content: str) -> None:
    (store.incoming.parent / "requests" / REQUEST).write_text(content)
    assert store.answer(REQUEST) is None


def test_what_was_not_finished_is_nobodys(store: EnvironmentStore) -> None:
    """A supervisor that is killed leaves a copy half made, or a tree on its way out."""
    tree(store, "abc.unfinished")
    (store.incoming / "abc.request").write_text(ONE)
    store.discard_unfinished()
    assert names(store, "incoming") == []
