"""A file whose whole way is root's alone, for tests in which somebody else gets a part of it."""

from __future__ import annotations

from pathlib import Path

NOBODYS = 12345
"""A uid that has nothing here."""


def of_roots(place: Path, name: str, text: str) -> Path:
    """The file `name` below two folders in `place`."""
    folder = place / "upper" / "lower"
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    folder.parent.chmod(0o755)
    found = folder / name
    found.write_text(text)
    found.chmod(0o644)
    return found
