"""What is deployed, on the disk: what comes back after a kill, and who may have what is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from runagentd.supervise.store import Deployment, Store
from runagentd.wire.manifest import Entrypoint, Manifest


def _manifest(agent_id: str) -> Manifest:
    return Manifest(
        agent_id=agent_id,
        agent_name="Echo",
        description="",
        framework="default",
        version="1",
        entrypoints=(Entrypoint(tag="echo", file="agent.py", module="echo"),),
        environment=(),
        persistent_folders=(),
        import_paths=(),
        requirements=(),
        hints=(),
    )


def _snapshot(store: Store, name: str) -> Path:
    place = store.incoming() / name
    place.mkdir()
    return place


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_what_was_deployed_comes_back(store: Store) -> None:
    """The manifest, the version and the policy as the operator named it."""
    deployment = Deployment(manifest=_manifest("one"), version="a" * 64, policy="base")
    store.adopt(_snapshot(store, "x"), deployment, "/srv/one")
    assert store.deployments() == [], "it is tried first"
    store.remember(deployment)
    assert store.deployments() == [deployment]
    store.forget("one")
    assert store.deployments() == []


def test_a_damaged_record_is_skipped_and_the_others_come_back(store: Store, tmp_path: Path) -> None:
    """One bad file must not keep every agent from being served again."""
    good = Deployment(manifest=_manifest("one"), version="a" * 64, policy="base")
    store.adopt(_snapshot(store, "x"), good, "/srv/one")
    store.remember(good)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "deployed").write_bytes(b"\xff" * 100)
    assert store.deployments() == [good]


def test_versions_are_kept_for_as_long_as_something_runs_from_them(store: Store, tmp_path: Path) -> None:
    """The old one serves while the new one is tried; of one that runs no more nothing stays."""
    for version in ("a" * 64, "b" * 64):
        deployment = Deployment(manifest=_manifest("one"), version=version, policy="base")
        store.adopt(_snapshot(store, version[:4]), deployment, "/srv/one")
    assert sorted(path.name for path in tmp_path.glob("*/versions/*")) == ["a" * 64, "b" * 64]
    store.prune("one", {"b" * 64})
    assert [path.name for path in tmp_path.glob("*/versions/*")] == ["b" * 64]
    store.prune("nobody", set())


def test_kept_data_is_given_to_the_folder_that_made_it_and_to_no_other(store: Store, tmp_path: Path) -> None:
    """An id is what a folder says of itself; whoever knows another's id would get its data otherwise."""
    deployment = Deployment(manifest=_manifest("one"), version="a" * 64, policy="base")
    assert store.kept_by_another("one", "/srv/one") == ""
    store.adopt(_snapshot(store, "x"), deployment, "/srv/one")
    assert store.kept_by_another("one", "/srv/other") == ""  # nothing is kept yet
    next(tmp_path.glob("*/data")).joinpath("kept").mkdir()
    assert store.kept_by_another("one", "/srv/one") == ""
    assert "'one' has kept data, and it was served from '/srv/one' so far" in store.kept_by_another("one", "/srv/other")
