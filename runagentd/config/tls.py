"""`[tls]`: the certificate and the key that the gateway serves with.

Runs as: the foreman and runagentctl.
Reads from strangers: nothing; the files are the operator's.

    [tls]
    certificate = "/etc/runagentd/tls/fullchain.pem"
    key = "/etc/runagentd/tls/privkey.pem"

    client_ca = "/etc/runagentd/tls/clients.pem"
    client_certificates = "optional"          # or "required"

    [[tls.clients]]
    san = "URI:spiffe://example.org/shop"     # or sha256 = "..."
    subject = "shop"
    roles = ["support"]

Relative paths start at the folder of runagentd.toml. The gateway gets the contents, never a path.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from runagentd import alternative_names, schema
from runagentd.config import files, roles
from runagentd.config.table import Table
from runagentd.wire.settings import CertificateClient

_SAN = re.compile(r"(?:DNS|URI|email):[!-~]{1,512}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_HOST = re.compile(r"(?:\*\.)?[A-Za-z0-9](?:[A-Za-z0-9.-]{0,250}[A-Za-z0-9])?")
_SUBJECT_MAX = 255

_WANTED = ("optional", "required")

SCHEMA = schema.table(
    "What the gateway serves TLS with; without this table it is plain HTTP.",
    {
        "certificate": schema.text("A file in PEM: the server's own certificate first, then those of its issuers."),
        "key": schema.text("A file in PEM: the certificate's key, without a passphrase, readable by its owner alone."),
        "client_ca": schema.text("A file in PEM: who may have signed a client's certificate."),
        "client_certificates": schema.text(
            "Whether nobody connects without a certificate.", enum=list(_WANTED), default="required"
        ),
        "clients": schema.array(
            "Whose a client's certificate is.",
            schema.table(
                "One client, by a name in its certificate or by its digest.",
                {
                    "san": schema.text(
                        "The name: DNS:…, URI:… or email:….",
                        pattern=schema.whole(_SAN, or_empty=True),
                        examples=["URI:spiffe://example.org/shop"],
                    ),
                    "sha256": schema.text(
                        "The SHA-256 of the certificate, 64 hexadecimal digits.", pattern="^(?:(?:[0-9A-Fa-f]:*){64})?$"
                    ),
                    "subject": schema.text("Who the client is to us.", minLength=1, maxLength=_SUBJECT_MAX),
                    "tenant": schema.text("For whom it acts."),
                    **roles.GRANTED,
                },
                required=["subject"],
                oneOf=[schema.present("san"), schema.present("sha256")],
            ),
            default=[],
        ),
    },
    dependentRequired={
        "certificate": ["key"],
        "key": ["certificate"],
        "client_ca": ["certificate"],
        "client_certificates": ["client_ca"],
        "clients": ["client_ca"],
    },
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """PEM, as it was found; the two fit each other."""

    certificate: bytes
    key: bytes = field(repr=False)
    certificate_file: Path
    client_ca: bytes = b""
    """who may have signed a client's certificate; empty without mutual TLS"""
    required: bool = False
    """whether nobody gets in without one"""
    clients: tuple[CertificateClient, ...] = ()

    def name_at(self, address: str) -> str:
        """By which of the certificate's names a client verifies a server at this address; "" for the address itself.

        Also where the certificate names no host either, for then nothing verifies.
        """
        try:
            names = alternative_names.of(x509.load_pem_x509_certificates(self.certificate)[0])
        except ValueError:
            return ""
        if names is None or address in map(str, names.get_values_for_type(x509.IPAddress)):
            return ""
        hosts = [name for name in names.get_values_for_type(x509.DNSName) if _HOST.fullmatch(name)]
        # A wildcard stands for one whole label (RFC 6125 section 6.4.3): any name in its place is as good.
        return hosts[0].replace("*", "runagentd") if hosts else ""


def read(table: Table, folder: Path) -> Tls | None:
    """The files that a `[tls]` names, looked at; None where there is no such table, or a problem with it."""
    certificate_name, key_name = table.text("certificate"), table.text("key")
    authority_name, wanted = table.text("client_ca"), table.text("client_certificates", "required")
    clients = tuple(_client(each) for each in table.tables("clients"))
    if wanted not in _WANTED:
        table.problem("client_certificates", f"must be optional or required, not {wanted!r}")
    if (clients or table.has("client_certificates")) and not authority_name:
        table.problem("client_ca", "must name a file: whoever signs the certificates of clients")
    table.finish()
    if not certificate_name and not key_name:
        if authority_name:
            # Without them all is plain HTTP: clients that have to show a certificate would be let in without one.
            table.problem("certificate", "must name a file in PEM: clients can only show certificates over TLS")
        return None
    for key, name in (("certificate", certificate_name), ("key", key_name)):
        if not name:
            table.problem(key, "must name a file in PEM: a certificate and its key belong together")
            return None
    certificate = files.read(table, "certificate", folder / certificate_name, secret=False)
    private = files.read(table, "key", folder / key_name, secret=True)
    if certificate is None or private is None:
        return None
    authority = files.read(table, "client_ca", folder / authority_name, secret=False) if authority_name else b""
    if authority is None or not _fit(table, certificate, private):
        return None
    if authority_name and not files.is_authority(authority):
        table.problem("client_ca", "this is no certificate in PEM", "it begins with -----BEGIN CERTIFICATE-----")
    return Tls(
        certificate=certificate,
        key=private,
        certificate_file=(folder / certificate_name).absolute(),
        client_ca=authority,
        required=wanted == "required",
        clients=clients,
    )


def _client(table: Table) -> CertificateClient:
    san, fingerprint = table.text("san"), table.text("sha256").lower().replace(":", "")
    if bool(san) == bool(fingerprint):
        table.problem("san", "write either san or sha256: which certificate is meant")
    if san and not _SAN.fullmatch(san):
        table.problem("san", f"{san!r} is no name", "such as DNS:shop.example.org, URI:spiffe://example.org/shop")
    if fingerprint and not _SHA256.fullmatch(fingerprint):
        table.problem("sha256", "must be 64 hexadecimal digits: openssl x509 -noout -fingerprint -sha256")
    subject = table.text("subject")
    if not 1 <= len(subject) <= _SUBJECT_MAX or not subject.isprintable():
        table.problem("subject", "must have 1 to 255 printable characters: who the client is to us")
    granted = roles.granted(table)
    tenant = table.text("tenant") or None
    table.finish()
    return CertificateClient(san=san, sha256=fingerprint, subject=subject, tenant=tenant, scopes=granted)


def _fit(table: Table, certificate: bytes, key: bytes) -> bool:
    try:
        leaf = x509.load_pem_x509_certificates(certificate)[0]
    except ValueError:
        table.problem("certificate", "this is no certificate in PEM", "it begins with -----BEGIN CERTIFICATE-----")
        return False
    try:
        public = serialization.load_pem_private_key(key, password=None).public_key()
    except TypeError:
        table.problem("key", "the key is encrypted", "the daemon starts by itself: it needs one without a passphrase")
        return False
    except (ValueError, UnsupportedAlgorithm):
        table.problem("key", "this is no private key in PEM")
        return False
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if public.public_bytes(*form) != leaf.public_key().public_bytes(*form):
        table.problem("key", "this is not the key of the certificate", "the server's own comes first in its file")
        return False
    if leaf.not_valid_after_utc < datetime.datetime.now(datetime.UTC):
        table.problem("certificate", f"it has expired, on {leaf.not_valid_after_utc:%Y-%m-%d}")
        return False
    return True
