"""Certificates for tests, each its own authority, for 127.0.0.1."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtensionOID, NameOID


def write_client(folder: Path, name: str, uri: str, *, authority: Path) -> str:
    """`NAME.pem`, certificate and key, signed with what `write` made in `authority`; its SHA-256 in hexadecimal."""
    return _write_signed(folder, name, x509.UniformResourceIdentifier(uri), authority)


def write_server(folder: Path, name: str, *, authority: Path) -> None:
    """The same of a server at 127.0.0.1: some clients believe no server that shows an authority's own certificate."""
    _write_signed(folder, name, x509.IPAddress(ipaddress.ip_address("127.0.0.1")), authority)


def _write_signed(folder: Path, name: str, whose: x509.GeneralName, authority: Path) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    signer = x509.load_pem_x509_certificate((authority / "certificate.pem").read_bytes())
    private = serialization.load_pem_private_key((authority / "key.pem").read_bytes(), password=None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(signer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([whose]), critical=False)
        .sign(private, hashes.SHA256())
    )
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    (folder / f"{name}.pem").write_bytes(pem + key.private_bytes(*form))
    return certificate.fingerprint(hashes.SHA256()).hex()


def write(
    folder: Path,
    *,
    serial: int = 1,
    days: int = 2,
    mode: int = 0o600,
    passphrase: bytes | None = None,
    hosts: Sequence[str] = (),
) -> None:
    """`certificate.pem` and `key.pem` in `folder`; `serial` tells one from another; `hosts` in place of 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    named: list[x509.GeneralName] = [x509.DNSName(host) for host in hosts]
    named = named or [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - datetime.timedelta(days=10))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName(named), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    encryption = (
        serialization.NoEncryption() if passphrase is None else serialization.BestAvailableEncryption(passphrase)
    )
    path = folder / "key.pem"
    path.touch(mode=mode)
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))
    path.chmod(mode)


def with_x400_address() -> x509.Certificate:
    """One whose only name is of a kind (RFC 5280, section 4.2.1.6) that the library here cannot read."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, bytes.fromhex("3002a300"))
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    return builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
