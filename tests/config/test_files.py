"""runagentd.toml and what it names: whoever else could have written them decides nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from runagentd.config import load
from runagentd.errors import ConfigurationError
from runagentd.foreman.settings_link import SettingsLink
from runagentd.log import Log
from tests import certificates, ways
from tests.ways import NOBODYS

pytestmark = pytest.mark.root


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A configuration below two folders, all of them root's alone."""
    return ways.of_roots(tmp_path, "runagentd.toml", "")


def problem(file: Path) -> str:
    with pytest.raises(ConfigurationError) as raised:
        load.load(file)
    return str(raised.value).replace(str(file.parents[2]), "HERE")


def test_a_configuration_of_roots_own_is_read(file: Path) -> None:
    """Also one that everybody can read, in a folder that lies in /tmp."""
    assert load.load(file) == load.Document()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            lambda file: os.chown(file, NOBODYS, -1),
            (
                "belongs to uid 12345: others could change what the daemon trusts\n"
                "hint: read it, then run chown root HERE/upper/lower/runagentd.toml"
            ),
        ),
        (
            lambda file: file.chmod(0o664),
            (
                "can be written by others than its owner: others could change what the daemon trusts\n"
                "hint: read it, then run chmod go-w HERE/upper/lower/runagentd.toml"
            ),
        ),
        (
            lambda file: file.parents[1].chmod(0o777),
            (
                "the way to it leads through HERE/upper, which can be written by others than its owner: "
                "others could change what the daemon trusts\n"
                "hint: run chown root and chmod go-w on HERE/upper, or keep the file elsewhere"
            ),
        ),
    ],
    ids=["owner", "mode", "way"],
)
def test_a_configuration_that_others_can_change_is_refused(
    file: Path, change: Callable[[Path], None], expected: str
) -> None:
    """With what to do about it."""
    change(file)
    assert problem(file) == f"HERE/upper/lower/runagentd.toml: {expected}"


def test_a_fifo_keeps_nobody_waiting(file: Path) -> None:
    file.unlink()
    os.mkfifo(file, 0o600)
    assert problem(file) == "HERE/upper/lower/runagentd.toml: is not a regular file"


def test_a_file_that_others_can_change_by_now_changes_nothing_when_it_is_read_again(file: Path) -> None:
    """What held before goes on to hold."""
    file.write_text('[roles.support]\nallow = ["agents:read"]\n')
    link = SettingsLink(file, Log(None, source="x"))
    file.write_text("")
    file.chmod(0o666)
    assert not link.reload()
    assert [role.name for role in link.document.settings.roles] == ["support"]
    file.chmod(0o644)
    assert link.reload()
    assert link.document.settings.roles == ()


@pytest.mark.parametrize("key", ["certificate", "key", "client_ca"])
def test_what_tls_is_made_of_is_refused_where_others_can_change_it(file: Path, key: str) -> None:
    """Whoever writes client_ca says who every client is; the owner of a key can read it."""
    certificates.write(file.parent)
    (file.parent / "client_ca.pem").write_bytes((file.parent / "certificate.pem").read_bytes())
    file.write_text('[tls]\ncertificate = "certificate.pem"\nkey = "key.pem"\nclient_ca = "client_ca.pem"\n')
    assert load.load(file).tls is not None
    os.chown(file.parent / f"{key}.pem", NOBODYS, -1)
    assert problem(file) == (
        f"runagentd.toml: tls.{key}: HERE/upper/lower/{key}.pem: belongs to uid 12345: "
        "others could change what the daemon trusts\n"
        f"hint: read it, then run chown root HERE/upper/lower/{key}.pem"
    )


def test_a_path_that_is_none_is_told(file: Path) -> None:
    file.write_text('[tls]\ncertificate = "a\\u0000b"\nkey = "key.pem"\n')
    assert "certificate: HERE/upper/lower/a\0b: is no path" in problem(file)


def test_a_usual_file_that_is_a_link_to_nothing_is_not_taken_for_none(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon without the limits, roles and certificates that it should have would be worse than none."""
    monkeypatch.setattr(load, "DEFAULT", str(file.parent / "usual.toml"))
    assert load.configured(None) is None
    (file.parent / "usual.toml").symlink_to("nothing.toml")
    named = load.configured(None)
    assert named is not None
    assert problem(named) == "HERE/upper/lower/usual.toml: no such file or directory"
