"""What is believed and revoked, on the disk."""

from __future__ import annotations

import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runagentd import trust
from runagentd.errors import HostError
from runagentd.trust import TrustStore
from runagentd.wire.trust import ApiKey, ApiKeySecret, SubjectRevoked


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TrustStore]:
    with TrustStore(tmp_path) as found:
        yield found


def key(identity: str = "K1", subject: str = "alice", created: int = 100) -> ApiKey:
    secrets = (ApiKeySecret(digest=identity.encode() * 16, until=0),)
    return ApiKey(
        id=identity, subject=subject, tenant=None, scopes=("agents:read", "role:clerk"), created=created, expires=0,
        addresses=("192.0.2.0/24",), secrets=secrets,
    )  # fmt: skip


def test_the_file_is_roots_alone(tmp_path: Path) -> None:
    """It says who may call; its directory is private, too."""
    with TrustStore(tmp_path):
        assert stat.S_IMODE((tmp_path / "trust.db").stat().st_mode) == 0o600


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").touch()
    (tmp_path / "trust.db").symlink_to("elsewhere")
    with pytest.raises(HostError, match="cannot be used"):
        TrustStore(tmp_path)
    assert (tmp_path / "elsewhere").read_bytes() == b""


_REVOKE = """
import pathlib, sys
from runagentd.trust import TrustStore
with TrustStore(pathlib.Path(sys.argv[1])) as store:
    store.revoke_id(sys.argv[2], until=0)
"""


def test_what_another_process_revokes_is_seen_also_after_a_second_connection_here_has_come_and_gone(
    store: TrustStore, tmp_path: Path
) -> None:
    """The supervisor keeps one connection, and opens another each time that it notes which API keys were used."""
    seen = []
    for identity in ("one", "two", "three"):
        with TrustStore(tmp_path) as second:
            second.note_api_keys_used(["K1"], 1000.0)
        subprocess.run([sys.executable, "-c", _REVOKE, str(tmp_path), identity], check=True)
        seen.append(store.changes(-1).revoked_ids)
    assert seen == [("one",), ("one", "two"), ("one", "two", "three")]


def test_a_file_that_is_no_database_is_one_sentence(tmp_path: Path) -> None:
    """It is neither used nor written over."""
    (tmp_path / "trust.db").write_bytes(b"nonsense" * 1000)
    with pytest.raises(HostError) as raised:
        TrustStore(tmp_path)
    assert str(raised.value) == f"{tmp_path}/trust.db cannot be used: file is not a database"
    assert (tmp_path / "trust.db").read_bytes() == b"nonsense" * 1000


def test_a_key_comes_back_as_it_was_added(store: TrustStore) -> None:
    """With its name, and never used."""
    store.add_api_key(key(), "for the shop")
    row = store.api_keys()[0]
    assert (row.key, row.name, row.revoked, row.used) == (key(), "for the shop", 0, 0)
    assert store.api_key("K1") == row
    assert store.api_key("K2") is None


def test_rotation_leaves_two_secrets_for_the_overlap_and_never_three(store: TrustStore) -> None:
    """Whose key leaked rotates twice and is done."""
    store.add_api_key(key(), "a")
    before = int(time.time())
    store.rotate_api_key("K1", b"2" * 32, overlap_seconds=60)
    secrets = store.api_keys()[0].key.secrets
    assert [secret.digest for secret in secrets] == [b"2" * 32, b"K1" * 16]
    assert secrets[0].until == 0
    assert before + 60 <= secrets[1].until <= before + 62
    store.rotate_api_key("K1", b"3" * 32, overlap_seconds=60)
    assert [secret.digest for secret in store.api_keys()[0].key.secrets] == [b"3" * 32, b"2" * 32]
    store.rotate_api_key("K1", b"4" * 32, overlap_seconds=0)
    assert [secret.digest for secret in store.api_keys()[0].key.secrets] == [b"4" * 32]


def test_a_reader_is_told_what_came_since(store: TrustStore) -> None:
    """Keys that are gone by their id; to who knows nothing, not at all."""
    store.add_api_key(key("K1"), "a")
    epoch = store.changes(-1).epoch
    store.add_api_key(key("K2"), "b")
    store.revoke_api_key("K1")
    store.revoke_id("j1", until=int(time.time()) + 100)
    changes = store.changes(epoch)
    assert ([known.id for known in changes.known], changes.gone, changes.revoked_ids) == (["K2"], ("K1",), ("j1",))
    everything = store.changes(-1)
    assert ([known.id for known in everything.known], everything.gone) == (["K2"], ())
    nothing = store.changes(everything.epoch)
    assert (nothing.known, nothing.gone, nothing.revoked_ids, nothing.epoch) == ((), (), (), everything.epoch)


def test_to_revoke_a_subject_ends_what_it_has_and_not_what_it_gets_later(store: TrustStore) -> None:
    """API keys for good: a revocation that is forgotten one day must not bring them back."""
    store.add_api_key(key("OLD", created=100), "a")
    store.add_api_key(key("NEW", created=201), "b")
    store.add_api_key(key("OTHER", subject="bob", created=100), "c")
    store.revoke_subject("alice", before=200)
    store.revoke_subject("alice", before=150)  # never less than before
    changes = store.changes(-1)
    assert changes.revoked_subjects == (SubjectRevoked(subject="alice", before=200),)
    assert [known.id for known in changes.known] == ["OTHER", "NEW"]
    assert (store.issue_after("alice"), store.issue_after("bob")) == (200, 0)
    store.revoke_all(before=300)
    assert store.changes(-1).known == ()
    assert (store.changes(-1).revoked_before, store.issue_after("bob")) == (300, 300)


def test_what_has_expired_anyway_is_forgotten_and_the_rest_is_not(store: TrustStore) -> None:
    """A certificate's fingerprint stays."""
    now = int(time.time())
    store.revoke_id("expired", until=now - 10)
    store.revoke_id("certificate", until=0)
    store.revoke_id("certificate", until=now + 5)
    store.revoke_id("live", until=now + 100)
    assert sorted(store.changes(-1).revoked_ids) == ["certificate", "live"]
    ids = [row[0] for row in store._database.execute("SELECT id FROM revoked_ids ORDER BY id")]
    assert ids == ["certificate", "live"]
    assert store._one("SELECT until FROM revoked_ids WHERE id = 'certificate'") == 0


def test_there_is_room_for_so_many(store: TrustStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever needs more is told what to do; nothing was changed."""
    monkeypatch.setattr(trust, "API_KEYS_MAX", 1)
    monkeypatch.setattr(trust, "REVOCATIONS_MAX", 1)
    store.add_api_key(key("K1"), "a")
    with pytest.raises(HostError) as raised:
        store.add_api_key(key("K2"), "b")
    assert str(raised.value) == "there are 1 API keys already\nhint: revoke those that nobody uses"
    store.revoke_id("a", until=0)
    epoch = store.epoch()
    with pytest.raises(HostError):
        store.revoke_id("b", until=0)
    assert store.epoch() == epoch


def test_use_is_noted_to_the_minute_and_changes_nothing_else(store: TrustStore) -> None:
    """Unknown ids, which a captured gateway could send, change nothing at all."""
    store.add_api_key(key(), "a")
    epoch = store.epoch()
    store.note_api_keys_used(["K1", "nonsense"], 1_000_000.5)
    store.note_api_keys_used(["K1"], 5.0)
    assert (store.api_keys()[0].used, store.epoch(), len(store.api_keys())) == (999_960, epoch, 1)


def test_large_changes_come_in_pieces_that_fit(store: TrustStore) -> None:
    """With the largest of everything."""
    large = ["😀" * 255, *["x" * 63] * 32]
    for number in range(65):
        store.add_api_key(
            ApiKey(
                id=f"K{number:025}", subject=large[0], tenant=large[0], scopes=tuple(large[1:]), created=1, expires=0,
                addresses=tuple(["ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"] * 16),
                secrets=(ApiKeySecret(digest=bytes(32), until=0),),
            ),
            "n",
        )  # fmt: skip
        store.revoke_id("😀" * 250 + str(number), until=0)
        store.revoke_subject("😀" * 250 + str(number), before=1)
    from runagentd.wire import control

    messages = list(store.changes(-1).messages())
    assert [type(message).__name__ for message in messages] == [
        "TrustedKeys", *["ApiKeysKnown"] * 3, *["Revoked"] * 6, "TrustTold",
    ]  # fmt: skip
    for message in messages:
        assert control.parse_from_supervisor(control.pack(message)) == message
