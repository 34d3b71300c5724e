"""What is deployed, on the disk: versions, which one serves, and what a damaged file says."""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from runagentd.errors import HostError
from runagentd.supervise.identity import Identity
from runagentd.supervise.store import NAME, VERSIONS_MAX, Deployment, Store
from runagentd.wire.manifest import Entrypoint, Manifest

MANIFEST = Manifest(
    agent_id="one",
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


def made(letter: str, agent: str = "one", *, code: str = "") -> tuple[Deployment, Identity]:
    identity = Identity(code=code or letter * 64, environment="", configuration="c", policy="p", runtime="3.11.2 r")
    manifest = dataclasses.replace(MANIFEST, agent_id=agent)
    return Deployment(
        manifest=manifest, version=identity.digest, code=identity.code, policy="base", runtime=identity.runtime
    ), identity


def serve(store: Store, letter: str, agent: str = "one", *, stays: bool = True, alias: str = "") -> int:
    deployment, identity = made(letter, agent)
    return store.serve(
        deployment, identity, policy="version = 1\n", origin="/srv/one", stays=stays, aliases=[alias] if alias else []
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path)
    yield opened
    opened.close()


def test_versions_have_numbers_and_the_last_one_serves(store: Store) -> None:
    """v1, v2; the one before is remembered, and what was deployed is there again as it was."""
    assert store.agents() == []
    assert (serve(store, "a"), serve(store, "b")) == (1, 2)
    known = store.find("one")
    assert known is not None
    assert (store.agents(), known.serving, known.former, known.numbers) == (["one"], 2, 1, [2, 1])
    release = known.releases[1]
    assert (release.deployment, release.identity) == made("a")
    assert (release.policy, release.origin) == ("version = 1\n", "/srv/one")
    assert release.created_unix_ms > 1_700_000_000_000
    assert store.codes("one") == {"a" * 64, "b" * 64}


def test_what_was_there_before_keeps_its_number(store: Store) -> None:
    """To deploy the code of v1 again is to have v1 serve again; numbers of forgotten versions are not used again."""
    serve(store, "a")
    serve(store, "b")
    assert serve(store, "a") == 1
    known = store.find("one")
    assert known is not None
    assert (known.serving, known.former) == (1, 2)
    store.remove("one", 2)
    assert serve(store, "b") == 3


def test_to_promote_what_serves_does_not_forget_what_served_before(store: Store) -> None:
    serve(store, "a")
    serve(store, "b")
    store.promote("one", 2)
    known = store.find("one")
    assert known is not None
    assert (known.serving, known.former) == (2, 1)
    store.promote("one", 1)
    known = store.find("one")
    assert known is not None
    assert (known.serving, known.former) == (1, 2)


def test_aliases_lead_to_versions(store: Store) -> None:
    serve(store, "a", alias="stable")
    serve(store, "b")
    store.alias("one", "canary", 2)
    known = store.find("one")
    assert known is not None
    assert known.aliases == {"stable": 1, "canary": 2}
    store.alias("one", "stable", 2)
    store.alias("one", "canary", 0)
    known = store.find("one")
    assert known is not None
    assert known.aliases == {"stable": 2}


def test_what_serve_brought_goes_and_what_was_deployed_stays(store: Store) -> None:
    """Whoever made the agent decides, also for versions that come later."""
    serve(store, "a", "one", stays=True)
    serve(store, "a", "two", stays=False)
    serve(store, "b", "two", stays=True)
    store.forget_passing()
    assert store.agents() == ["one"]
    assert store.find("two") is None
    assert store.codes("two") == set()


def test_old_versions_go_but_for_those_that_something_leads_to(store: Store) -> None:
    """So many are kept, and what serves, served before, or has an alias."""
    serve(store, "0", alias="first")
    for number in range(VERSIONS_MAX + 5):
        serve(store, chr(ord("A") + number))
    known = store.find("one")
    assert known is not None
    assert len(known.numbers) == VERSIONS_MAX + 1
    assert 1 in known.numbers
    assert 2 not in known.numbers
    assert {known.serving, known.former} == {VERSIONS_MAX + 6, VERSIONS_MAX + 5}


def test_a_damaged_row_is_told_and_hides_no_other(store: Store, tmp_path: Path) -> None:
    """The version is listed with what is wrong with it."""
    serve(store, "a")
    serve(store, "b")
    store.close()
    with sqlite3.connect(tmp_path / NAME) as database:
        database.execute("UPDATE versions SET manifest = x'ff' WHERE number = 1")
    database.close()
    again = Store(tmp_path)
    known = again.find("one")
    again.close()
    assert known is not None
    assert (list(known.releases), known.numbers) == ([2], [2, 1])
    assert (known.unread[1].code, known.unread[1].reason[:27]) == ("a" * 64, "its record cannot be read: ")
    again = Store(tmp_path)
    again.reread("one", 1, MANIFEST)
    known = again.find("one")
    again.close()
    assert known is not None
    assert known.releases[1].deployment.manifest == MANIFEST


@pytest.mark.parametrize("content", [b"\xff" * 8192, b"SQLite format 3\0" + b"\0" * 5000])
def test_a_damaged_file_is_refused_in_words(tmp_path: Path, content: bytes) -> None:
    """Nothing is served from it, and nothing is skipped silently."""
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(HostError) as refused:
        Store(tmp_path)
    assert f"{NAME} is damaged: " in str(refused.value)
    assert "hint: put a copy of it back, or move it away" in str(refused.value)


def test_a_file_that_lost_a_page_is_refused(store: Store, tmp_path: Path) -> None:
    for number in range(20):
        serve(store, chr(ord("A") + number), f"agent {number}")
    store.close()
    path = tmp_path / NAME
    content = bytearray(path.read_bytes())
    content[4096 * 2 : 4096 * 3] = b"\0" * 4096
    path.write_bytes(content)
    with pytest.raises(HostError, match="is damaged"):
        Store(tmp_path)


@pytest.mark.parametrize("pragma", ["user_version = 4", "user_version = 0", "application_id = 7"])
def test_a_file_of_another_format_is_refused(store: Store, tmp_path: Path, pragma: str) -> None:
    store.close()
    with sqlite3.connect(tmp_path / NAME) as database:
        database.execute(f"PRAGMA {pragma}")
    database.close()
    with pytest.raises(HostError, match="this version knows 3"):
        Store(tmp_path)


def test_a_file_from_before_there_were_runtimes_is_brought_to_this_form(store: Store, tmp_path: Path) -> None:
    """Nothing of it is lost; which runtime a version was made for is not known."""
    serve(store, "a")
    store.close()
    with sqlite3.connect(tmp_path / NAME) as database:
        database.execute("ALTER TABLE versions DROP COLUMN runtime")
        database.execute("ALTER TABLE agents DROP COLUMN managed_by")
        database.execute("PRAGMA user_version = 1")
    database.close()
    again = Store(tmp_path)
    assert serve(again, "b") == 2
    known = again.find("one")
    again.close()
    assert known is not None
    runtimes = {number: release.identity.runtime for number, release in known.releases.items()}
    assert runtimes == {1: "", 2: "3.11.2 r"}


def test_a_file_of_the_format_before_is_taken_over(store: Store, tmp_path: Path) -> None:
    """Nobody manages its agents by files; what it has is all there, and it is of today's format from then on."""
    serve(store, "a", alias="stable")
    serve(store, "b")
    store.close()
    with sqlite3.connect(tmp_path / NAME) as database:
        database.execute("ALTER TABLE agents DROP COLUMN managed_by")
        database.execute("PRAGMA user_version = 2")
    database.close()
    for _ in range(2):
        again = Store(tmp_path)
        known = again.find("one")
        assert known is not None
        assert (known.managed_by, known.serving, known.former, known.aliases) == ("", 2, 1, {"stable": 1})
        assert again.managed() == {}
        again.close()
    again = Store(tmp_path)
    again.lead("one", 2, origin="/srv/one", aliases=("stable", "blue"), managed_by="/etc/one.toml")
    known = again.find("one")
    again.close()
    assert known is not None
    assert (known.managed_by, known.aliases) == ("/etc/one.toml", {"stable": 2, "blue": 2})


def test_who_manages_an_agent_is_known_until_it_is_forgotten(store: Store) -> None:
    """To deploy by hand in between changes nothing of that; another file takes it over."""

    def apply(file: str, *aliases: str) -> None:
        deployment, identity = made("a")
        store.serve(
            deployment, identity, policy="version = 1\n", origin="/srv", stays=True, managed_by=file, aliases=aliases
        )

    apply("/etc/one.toml", "x", "y")
    known = store.find("one")
    assert known is not None
    assert known.aliases == {"x": 1, "y": 1}
    serve(store, "b")
    serve(store, "a", "two")
    assert store.managed() == {"one": "/etc/one.toml"}
    apply("/etc/other.toml")
    assert store.managed() == {"one": "/etc/other.toml"}
    store.forget("one")
    serve(store, "a")
    assert store.managed() == {}


def test_a_change_that_the_disk_does_not_take_changes_nothing(store: Store, tmp_path: Path) -> None:
    """A database that somebody else holds for too long stands for any disk that fails."""
    serve(store, "a")
    other = sqlite3.connect(tmp_path / NAME, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(HostError, match="nothing was changed"):
        serve(store, "b")
    other.execute("ROLLBACK")
    other.close()
    known = store.find("one")
    assert known is not None
    assert known.numbers == [1]


def test_a_path_that_is_no_text_is_kept_as_one(store: Store) -> None:
    deployment, identity = made("a")
    store.serve(deployment, identity, policy="", origin="/srv/\udcff", stays=True)
    known = store.find("one")
    assert known is not None
    assert known.releases[1].origin == "/srv/\\xff"
