"""`[packages]`: from where environments are installed, and what is never to be shown of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from runagentd.config import load, packages
from runagentd.errors import ConfigurationError
from runagentd.wire.packages import Target
from runagentd.wire.settings import PackageSettings

INDEX = 'index = "https://packages.example.com/simple"\n'


def read(text: str, folder: Path = Path("/etc/runagentd")) -> PackageSettings:
    return load.parse(f"[packages]\n{text}".encode(), "runagentd.toml", folder).packages


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        read(text)
    return [f"{problem.where}: {problem.what}" for problem in caught.value.problems]


def test_nothing_is_installed_where_nothing_is_said() -> None:
    document = load.parse(b"", "runagentd.toml", Path("/"))
    assert (document.packages, document.egress.package_hosts, document.packages_named) == (PackageSettings(), (), False)


def test_the_index_and_further_hosts_are_all_that_can_be_reached() -> None:
    text = INDEX + 'hosts = ["files.example.com", "mirror.example.com:8443", "packages.example.com"]\n'
    document = load.parse(f"[packages]\n{text}".encode(), "runagentd.toml", Path("/"))
    assert document.egress.package_hosts == document.packages.hosts == (
        Target(host="packages.example.com", port=443),
        Target(host="files.example.com", port=443),
        Target(host="mirror.example.com", port=8443),
    )  # fmt: skip


def test_all_of_a_table() -> None:
    found = read(INDEX + 'source = true\nsize = "4GiB"\ntimeout = "30m"\nkeep = "1d"\n')
    assert (found.source, found.size, found.seconds, found.keep) == (True, 4 * 1024**3, 1800, 86400)


def test_wheels_are_a_folder_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    assert read('wheels = "wheels"', tmp_path).wheels == str(tmp_path / "wheels")
    assert problems('wheels = "/nowhere/at-all"') == ["runagentd.toml: packages.wheels: /nowhere/at-all is no folder"]


@pytest.mark.parametrize(
    ("address", "secrets", "shown"),
    [
        ("https://alice:p%40ss@packages.example.com/simple", ("p%40ss", "p@ss"), "https://packages.example.com/simple"),
        ("https://token123@packages.example.com:8443/x", ("token123",), "https://packages.example.com:8443/x"),
    ],
)
def test_a_password_is_kept_apart(address: str, secrets: tuple[str, ...], shown: str) -> None:
    found = read(f'index = "{address}"')
    assert (found.index, found.secrets, found.index_shown) == (address, secrets, shown)
    assert found.redacted(f"cannot reach {address}") == f"cannot reach {address.replace(secrets[0], '****')}"


@pytest.mark.parametrize(
    "address",
    [
        "ftp://packages.example.com/", "packages.example.com", "https://", "https://[::1]/simple", "https://a b/",
        "https://packages.example.com/?x=1", "https://packages.example.com/#x", "https://127.1/simple",
        "https://2130706433/simple", "https://packages.example.com:0/", "https://packages.example.com:99999/",
        "https://-x.example.com/", "https://täst.example.com/", "https://user:pa ss@x.example.com/",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused_without_repeating_it(address: str) -> None:
    assert problems(f'index = "{address}"') == ["runagentd.toml: packages.index: is no address of a package index"]


@pytest.mark.parametrize("login", ["alice:p%20ss", "alice:p%0ass", "alice:p%00ss", "al%1bice:pass", "to%09ken"])
def test_a_password_that_could_be_cut_in_two_is_refused(login: str) -> None:
    assert problems(f'index = "https://{login}@packages.example.com/simple"') == [
        "runagentd.toml: packages.index: has a space or a control character in its user or password"
    ]


def test_an_unencrypted_index_takes_a_word_of_the_operators() -> None:
    text = 'index = "http://packages.example.com/simple"\n'
    assert problems(text) == [
        "runagentd.toml: packages.index: is unencrypted: anybody on the way could change what is installed"
    ]
    assert read(text + "http = true\n").hosts == (Target(host="packages.example.com", port=80),)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9"])
def test_an_index_on_this_machine_needs_no_encryption(host: str) -> None:
    assert read(f'index = "http://{host}:8080/simple"').hosts == (Target(host=host, port=8080),)


def test_code_of_packages_never_runs_where_it_could_read_a_password() -> None:
    (problem,) = problems('index = "https://alice:secret@packages.example.com/"\nsource = true\n')
    assert problem == "runagentd.toml: packages.source: cannot be true where the index's address holds a password"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('hosts = ["files.example.com/x"]', "packages.hosts: 'files.example.com/x' is no host, nor HOST:PORT"),
        ('hosts = ["*.example.com"]', "packages.hosts: '*.example.com' is no host, nor HOST:PORT"),
        ('size = "1KiB"', "packages.size: must be a size from 16MiB to 64GiB such as \"2GiB\", not '1KiB'"),
        ('timeout = "2d"', "packages.timeout: must be a time up to a day such as \"10m\", not '2d'"),
        ('keep = "soon"', 'packages.keep: must be a time up to ten years such as "7d", or "0", not \'soon\''),
        ('ca = "/etc/hostname"', "packages.ca: this is no certificate in PEM"),
        ("mirror = true", "packages.mirror: there is no such key"),
    ],
)
def test_a_wrong_key_is_told_with_its_place(line: str, problem: str) -> None:
    assert problems(INDEX + line) == [f"runagentd.toml: {problem}"]


def test_hosts_without_an_index_say_nothing() -> None:
    assert problems('hosts = ["files.example.com"]') == [
        "runagentd.toml: packages.hosts: says from where else files may come, but there is no index"
    ]


def test_there_is_a_most_of_hosts() -> None:
    hosts = ", ".join(f'"f{number}.example.com"' for number in range(16))
    assert problems(f"{INDEX}hosts = [{hosts}]") == [
        "runagentd.toml: packages.hosts: with the index there are 17, and 16 at most may be"
    ]


# ---- the operator's own environment


def test_the_variables_of_uv_and_pip_count_in_this_order() -> None:
    variables = {
        "PIP_INDEX_URL": "https://pip.example.com/simple",
        "UV_INDEX_URL": "https://old.example.com/simple",
        "UV_DEFAULT_INDEX": "https://uv.example.com/simple",
    }
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"):
        assert packages.usual(variables).index == variables.pop(name)
    assert packages.usual(variables) == PackageSettings()


def test_a_file_that_says_anything_of_packages_is_all_that_counts() -> None:
    document = load.parse(b"[packages]\n", "runagentd.toml", Path("/"))
    assert document.packages_named


def test_the_usual_index_is_reached_through_the_egress_process() -> None:
    document = load.with_usual_index(load.Document(), {"PIP_INDEX_URL": "https://pip.example.com/simple"})
    assert document.egress.package_hosts == (Target(host="pip.example.com", port=443),)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("https://alice:secret@packages.example.com:99999/", "is no address of a package index"),
        (
            "http://alice:secret@packages.example.com/simple",
            "is unencrypted: anybody on the way could change what is installed",
        ),
    ],
)
def test_a_variable_that_cannot_be_taken_is_told_to_who_needs_it_and_not_repeated(address: str, reason: str) -> None:
    """And it is no reason not to serve: most agents need no index."""
    found = packages.usual({"UV_INDEX_URL": address})
    assert found == PackageSettings(not_taken=f"UV_INDEX_URL is not taken: it {reason}")
