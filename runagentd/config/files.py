"""Files that runagentd.toml names: read as root, so that no daemon needs a path to them.

Runs as: the foreman and runagentctl.
Reads from strangers: nothing; the files are the operator's.
"""

from __future__ import annotations

import stat
from pathlib import Path

from cryptography import x509

from runagentd.config.table import Table

FILE_BYTES_MAX = 256 * 1024


def is_authority(content: bytes) -> bool:
    """Whether it is one certificate or more, in PEM."""
    try:
        return bool(x509.load_pem_x509_certificates(content))
    except ValueError:
        return False


def read(table: Table, key: str, path: Path, *, secret: bool) -> bytes | None:
    """What is in the file that `key` names; None where it cannot be used, which is a problem of the table's then."""
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
