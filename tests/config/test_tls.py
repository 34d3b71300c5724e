"""`[tls]`: the two files are looked at before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from runagentd.config import load
from runagentd.config.tls import Tls
from runagentd.errors import ConfigurationError
from tests import certificates

TEXT = b'[tls]\ncertificate = "certificate.pem"\nkey = "key.pem"\n'


def problem(folder: Path, text: bytes = TEXT) -> str:
    with pytest.raises(ConfigurationError) as raised:
        load.parse(text, "runagentd.toml", folder)
    return str(raised.value).replace(str(folder), "HERE")


def test_a_certificate_and_its_key_are_read_from_the_folder_of_the_file(tmp_path: Path) -> None:
    """And the key is in no representation of it."""
    certificates.write(tmp_path)
    found = load.parse(TEXT, "runagentd.toml", tmp_path).tls
    assert found is not None
    assert found.certificate == (tmp_path / "certificate.pem").read_bytes()
    assert found.key == (tmp_path / "key.pem").read_bytes()
    assert found.certificate_file == tmp_path / "certificate.pem"
    assert "PRIVATE" not in repr(found)


def test_files_that_are_not_there_or_not_both_named_are_told(tmp_path: Path) -> None:
    """With the key of the table that names them."""
    assert (
        problem(tmp_path).splitlines()[0]
        == "runagentd.toml: tls.certificate: HERE/certificate.pem: no such file or directory"
    )
    assert problem(tmp_path, b'[tls]\nkey = "key.pem"\n') == (
        "runagentd.toml: tls.certificate: must name a file in PEM: a certificate and its key belong together"
    )


def test_clients_cannot_have_to_show_certificates_without_tls(tmp_path: Path) -> None:
    """It would be plain HTTP for everybody, and nobody would be told."""
    certificates.write(tmp_path)
    assert problem(tmp_path, b'[tls]\nclient_ca = "certificate.pem"\nclient_certificates = "required"\n') == (
        "runagentd.toml: tls.certificate: must name a file in PEM: clients can only show certificates over TLS"
    )


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """With the command that mends it."""
    certificates.write(tmp_path, mode=0o644)
    assert problem(tmp_path) == (
        "runagentd.toml: tls.key: HERE/key.pem: can be read by others than its owner\nhint: chmod 0600 HERE/key.pem"
    )


def test_a_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    """The first handshake would fail, and nobody would know why."""
    certificates.write(tmp_path)
    certificate = (tmp_path / "certificate.pem").read_bytes()
    certificates.write(tmp_path)
    (tmp_path / "certificate.pem").write_bytes(certificate)
    assert problem(tmp_path) == (
        "runagentd.toml: tls.key: this is not the key of the certificate\n"
        "hint: the server's own comes first in its file"
    )


def test_an_expired_certificate_an_encrypted_key_and_other_files_are_refused(tmp_path: Path) -> None:
    """Each in words of its own."""
    certificates.write(tmp_path, days=-1)
    assert problem(tmp_path).startswith("runagentd.toml: tls.certificate: it has expired, on 20")
    certificates.write(tmp_path, passphrase=b"secret")
    assert problem(tmp_path).startswith("runagentd.toml: tls.key: the key is encrypted\nhint: ")
    (tmp_path / "key.pem").write_text("nothing")
    assert problem(tmp_path) == "runagentd.toml: tls.key: this is no private key in PEM"
    (tmp_path / "certificate.pem").write_text("nothing")
    assert problem(tmp_path).startswith("runagentd.toml: tls.certificate: this is no certificate in PEM\nhint: ")


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ('client_ca = "none.pem"\n', "tls.client_ca: "),
        ('client_ca = "key.pem"\n', "tls.client_ca: this is no certificate in PEM"),
        ('client_certificates = "maybe"\n', "tls.client_certificates: must be optional or required, not 'maybe'"),
        ('client_certificates = "required"\n', "tls.client_ca: must name a file"),
        ('[[tls.clients]]\nsan = "DNS:a"\nsubject = "a"\n', "tls.client_ca: must name a file"),
        ('client_ca = "certificate.pem"\n[[tls.clients]]\nsubject = "a"\n', "write either san or sha256"),
        ('client_ca = "certificate.pem"\n[[tls.clients]]\nsan = "a"\nsubject = "a"\n', "'a' is no name"),
        ('client_ca = "certificate.pem"\n[[tls.clients]]\nsha256 = "ab"\nsubject = "a"\n', "must be 64 hexadecimal"),
        ('client_ca = "certificate.pem"\n[[tls.clients]]\nsan = "DNS:a"\n', "subject: must have 1 to 255"),
    ],
)
def test_a_wrong_part_of_mutual_tls_is_told_with_its_place(tmp_path: Path, more: str, problem: str) -> None:
    """Before anything starts."""
    certificates.write(tmp_path)
    text = f'[tls]\ncertificate = "certificate.pem"\nkey = "key.pem"\n{more}'
    with pytest.raises(ConfigurationError) as raised:
        load.parse(text.encode(), "runagentd.toml", tmp_path)
    assert problem in str(raised.value)


@pytest.mark.parametrize(
    ("hosts", "address", "name"),
    [
        ((), "127.0.0.1", ""),
        ((), "127.0.0.2", ""),
        (("agents.example.org", "other.example.org"), "127.0.0.1", "agents.example.org"),
        (("*.example.org",), "::1", "runagentd.example.org"),
    ],
    ids=["its address", "no host at all", "the first host", "a wildcard"],
)
def test_it_is_called_by_a_name_that_its_certificate_has(
    tmp_path: Path, hosts: tuple[str, ...], address: str, name: str
) -> None:
    """By its address where that is among them, which nothing has to look up."""
    certificates.write(tmp_path, hosts=hosts)
    found = load.parse(TEXT, "runagentd.toml", tmp_path).tls
    assert found is not None
    assert found.name_at(address) == name


def test_a_certificate_with_a_name_of_another_kind_names_no_host() -> None:
    """OpenSSL serves with it."""
    pem = certificates.with_x400_address().public_bytes(Encoding.PEM)
    assert Tls(certificate=pem, key=b"", certificate_file=Path("/x")).name_at("127.0.0.1") == ""
