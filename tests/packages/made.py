"""Wheels and source distributions that tests make, hostile ones among them: a wheel is a zip, nothing is downloaded."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path


def wheel(
    folder: Path,
    name: str,
    version: str,
    files: Mapping[str, str | bytes],
    *,
    requires: Sequence[str] = (),
    entries: Sequence[tuple[zipfile.ZipInfo, bytes]] = (),
) -> Path:
    """A wheel as PEP 427 has it; `entries` are put in as they are, whatever they are."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    whole: dict[str, str | bytes] = {
        **files,
        f"{info}/METADATA": metadata + "".join(f"Requires-Dist: {each}\n" for each in requires),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    names = [*whole, *(entry.filename for entry, _ in entries)]
    whole[f"{info}/RECORD"] = "".join(f'"{each}",,\n' for each in (*names, f"{info}/RECORD"))
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for each, content in whole.items():
            archive.writestr(zipfile.ZipInfo(each), content)
        for entry, content in entries:
            archive.writestr(entry, content)
    path.chmod(0o644)
    return path


def entry(name: str, *, mode: int) -> zipfile.ZipInfo:
    """An entry with the mode of a file of any kind (zip's external attributes, as Info-ZIP writes them)."""
    made = zipfile.ZipInfo(name)
    made.create_system = 3
    made.external_attr = mode << 16
    return made


def source(folder: Path, name: str, version: str, backend: str) -> Path:
    """A source distribution with its own build backend (PEP 517), whose code is `backend`."""
    root = f"{name}-{version}"
    files = {
        "pyproject.toml": f'[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        f'[project]\nname = "{name}"\nversion = "{version}"\n',
        "backend.py": backend,
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
    }
    path = folder / f"{root}.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for each, text in files.items():
            member = tarfile.TarInfo(f"{root}/{each}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    path.chmod(0o644)
    return path
