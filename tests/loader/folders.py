"""A folder as a dictionary: what `loader.folder.Folder` asks for, without a disk."""

from __future__ import annotations

import json
from collections.abc import Mapping

from runagentd.loader import configuration
from runagentd.wire.manifest import LoadReport, Manifest

SHORT = {
    "agent_name": "demo",
    "agent_architecture": {"entrypoints": [{"file": "main.py", "module": "run", "tag": "main"}]},
}


class FakeFolder:
    """Paths and their contents; a directory is what lies above a path, or a path that ends in "/"."""

    def __init__(self, files: Mapping[str, bytes | str]) -> None:
        self._files = {path: text.encode() if isinstance(text, str) else text for path, text in files.items()}

    def read(self, path: str, size_max: int) -> bytes | None:
        content = self._files.get(path)
        return None if content is None else content[: size_max + 1]

    def is_file(self, path: str) -> bool:
        return path in self._files and not path.endswith("/")

    def is_directory(self, path: str) -> bool:
        return any(file.startswith(f"{path}/") for file in self._files)

    def names(self, path: str) -> list[str]:
        prefix = f"{path}/" if path else ""
        below = (file.removeprefix(prefix) for file in self._files if file.startswith(prefix))
        return sorted({rest.partition("/")[0] for rest in below if rest})


def load(config: object, **others: bytes | str) -> LoadReport:
    """The report on a folder with `config` as its runagent.config.json and a main.py; `others` by path."""
    files: dict[str, bytes | str] = {"runagent.config.json": json.dumps(config), "main.py": ""}
    return load_files({**files, **others})


def load_files(files: Mapping[str, bytes | str]) -> LoadReport:
    return configuration.load(FakeFolder(files), python=(3, 11))


def manifest(config: object, **others: bytes | str) -> Manifest:
    report = load(config, **others)
    assert report.problems == ()
    assert report.manifest is not None
    return report.manifest


def problems(report: LoadReport) -> list[str]:
    """Each problem as a person reads it, without its hints."""
    assert report.manifest is None
    return [f"{problem.where}: {problem.what}" for problem in report.problems]


def hints(report: LoadReport) -> list[str]:
    return [hint for problem in report.problems for hint in problem.hints]
