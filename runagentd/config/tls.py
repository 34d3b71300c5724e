"""`[tls]`: the certificate and the key that the gateway serves with.

Runs as: the foreman and runagentctl.
Reads from strangers: nothing; the files are the operator's.

    [tls]
    certificate = "/etc/runagentd/tls/fullchain.pem"
    key = "/etc/runagentd/tls/privkey.pem"

Relative paths start at the folder of runagentd.toml. The gateway gets the contents, never a path.
"""

from __future__ import annotations

import datetime
import stat
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from runagentd.config.table import Table

FILE_BYTES_MAX = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """PEM, as it was found; the two fit each other."""

    certificate: bytes
    key: bytes = field(repr=False)
    certificate_file: Path


def read(table: Table, folder: Path) -> Tls | None:
    """The files that a `[tls]` names, looked at; None where there is no such table, or a problem with it."""
    certificate_name, key_name = table.text("certificate"), table.text("key")
    table.finish()
    if not certificate_name and not key_name:
        return None
    for key, name in (("certificate", certificate_name), ("key", key_name)):
        if not name:
            table.problem(key, "must name a file in PEM: a certificate and its key belong together")
            return None
    certificate = _file(table, "certificate", folder / certificate_name, secret=False)
    private = _file(table, "key", folder / key_name, secret=True)
    if certificate is None or private is None:
        return None
    if not _fit(table, certificate, private):
        return None
    return Tls(certificate=certificate, key=private, certificate_file=(folder / certificate_name).absolute())


def _file(table: Table, key: str, path: Path, *, secret: bool) -> bytes | None:
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(path.stat().st_mode)
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        table.problem(key, f"{path}: {(error.strerror or 'cannot be read').lower()}")
        return None
    if len(content) > FILE_BYTES_MAX:
        table.problem(key, f"{path} is larger than {FILE_BYTES_MAX} bytes")
        return None
    if secret and mode & 0o077:
        table.problem(key, f"{path} can be read by others than its owner", f"chmod 0600 {path}")
        return None
    return content


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
