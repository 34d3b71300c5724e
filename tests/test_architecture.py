"""The shape of the packages, checked: who imports whom, where ctypes is, how a module opens."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "runagentd"
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))

SANDBOXED = ("runagentd.launch", "runagentd.runner")
"""What the zygote holds, and with it every instance: the smallest and most exposed code."""
SANDBOXED_MAY_IMPORT = (*SANDBOXED, "runagentd.kernel", "runagentd.names", "runagentd.wire")

NOT_OURS_TO_NAME = re.compile(
    # Split so that this file does not name them either.
    r"pypi\.or" + r"g|pythonhoste" + r"d\.|debian\.or" + r"g/debian|ghcr\.i" + r"o|npmjs\.co" + r"m"
    r"|/wor" + r"k/|/roo" + r"t/\.pyenv|/probe-ve" + r"nv|\.librar" + r"y/"
)
GENERATED = {
    ".git",
    ".venv",
    ".venv-browser",
    ".venv-compat",
    ".venv-fuzz",
    ".venv-peers",
    "__pycache__",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
    ".hypothesis",
    "build",
    "dist",
}


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(tree: ast.AST) -> Iterator[str]:
    """The full names of all modules that a syntax tree imports, anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_below(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


@pytest.mark.slow
def test_the_import_contracts_hold() -> None:
    """The contracts are in pyproject.toml: layers, and what the gateway, the supervisor and pure code may not reach."""
    linter = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", [path for path in MODULES if is_below(dotted(path), SANDBOXED)], ids=relative)
def test_the_launcher_and_the_runner_import_the_standard_library_and_little_of_ours(path: Path) -> None:
    """Also inside functions: an import that happens late happens inside the sandbox."""
    foreign = [
        name
        for name in imported(ast.parse(path.read_bytes()))
        if name.split(".")[0] not in sys.stdlib_module_names and not is_below(name, SANDBOXED_MAY_IMPORT)
    ]
    assert foreign == []


@pytest.mark.slow
def test_the_zygote_holds_nothing_but_the_standard_library_and_ours() -> None:
    """A fresh interpreter without site imports all of launch and runner; sys.modules has no other module."""
    names = [dotted(path) for path in MODULES if is_below(dotted(path), SANDBOXED) and path.stem != "__main__"]
    program = (
        "import importlib, sys; sys.path.insert(0, sys.argv[1])\n"
        "for name in sys.argv[2:]: importlib.import_module(name)\n"
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, str(ROOT), *names],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    loaded = done.stdout.split()
    assert "runagentd.launch.zygote" in loaded
    allowed = ("runagentd", *SANDBOXED_MAY_IMPORT)
    foreign = [
        name
        for name in loaded
        if name.split(".")[0] not in {*sys.stdlib_module_names, "__main__"}
        and name not in allowed
        and not is_below(name, SANDBOXED_MAY_IMPORT)
    ]
    assert foreign == []


def test_ctypes_is_in_two_modules_only() -> None:
    """One place per native library: kernel.py for libc, supervise/libseccomp.py for libseccomp."""
    users = [
        relative(path)
        for path in MODULES
        if any(is_below(n, ("ctypes", "_ctypes", "cffi")) for n in imported(parse(path)))
    ]
    assert set(users) <= {"runagentd/kernel.py", "runagentd/supervise/libseccomp.py"}


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_bytes(), relative(path))


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_a_module_says_where_it_runs(path: Path) -> None:
    """The docstring names the process and what it reads from strangers; a package's __init__.py is empty."""
    if path.name == "__init__.py":
        assert path.read_bytes() == b""
        return
    opening = ast.get_docstring(parse(path)) or ""
    assert re.search(r"^Runs as: \S", opening, re.MULTILINE)
    assert re.search(r"^Reads from strangers: \S", opening, re.MULTILINE)


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_no_check_depends_on_assert(path: Path) -> None:
    """`python -O` removes assert, so a check that matters raises (aiohttp had CVE-2025-69227 from this)."""
    assert [node.lineno for node in ast.walk(parse(path)) if isinstance(node, ast.Assert)] == []


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_annotations_are_not_evaluated(path: Path) -> None:
    """Every module starts with `from __future__ import annotations`: the start-up time of a jail counts."""
    if path.stat().st_size == 0:
        return
    assert "__future__.annotations" in imported(parse(path))


def test_no_file_names_a_registry_or_the_machine_it_was_written_on() -> None:
    """The project is the same wherever it is cloned, and takes packages from wherever its operator says."""
    found = []
    for path in sorted(ROOT.rglob("*")):
        if GENERATED & set(path.relative_to(ROOT).parts) or not path.is_file() or path.is_symlink():
            continue
        text = path.read_text("utf-8", "replace")
        found += [f"{relative(path)}: {match[0]}" for match in NOT_OURS_TO_NAME.finditer(text)]
    assert found == []


def test_the_readme_names_the_packages_in_one_line() -> None:
    """.ci/run and .ci/preflight take the line from there, so there is one list only."""
    lines = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("apt-get install")]
    assert lines == [
        "apt-get install --yes --no-install-recommends ca-certificates git libseccomp2 make python3 python3-venv"
    ]


def test_links_between_documents_lead_somewhere() -> None:
    """Every relative link in a Markdown file of ours names a file or a folder that is there."""
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]
    broken = [
        f"{relative(path)}: {target}"
        for path in documents
        for target in re.findall(r"\]\(([^)#\s]+)", path.read_text())
        if "://" not in target and not (path.parent / target).exists()
    ]
    assert broken == []
