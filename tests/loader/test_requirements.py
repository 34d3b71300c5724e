"""Which files of a folder say what is to be installed."""

from __future__ import annotations

import pytest

from tests.loader.folders import SHORT, hints, load, manifest, problems

PROJECT = '[project]\nname = "chat"\nversion = "1"\ndependencies = ["six"]\n'
VENV = {
    ".venv/pyvenv.cfg": "version = 3.11.2",
    ".venv/lib/python3.11/site-packages/six.py": "",
}


def test_a_folder_without_them_wants_nothing() -> None:
    assert manifest(SHORT).requirements == ()


@pytest.mark.parametrize("text", ["", "\n", "# numpy\n\n  # six\n"])
def test_requirements_that_name_nothing_want_nothing(text: str) -> None:
    assert manifest(SHORT, **{"requirements.txt": text}).requirements == ()


def test_requirements_are_the_main_file() -> None:
    assert manifest(SHORT, **{"requirements.txt": "six\n"}).requirements == ("requirements.txt",)


@pytest.mark.parametrize(
    "line", ["-r more/base.txt", "-rmore/base.txt", "--requirement=more/base.txt", "-c more/base.txt"]
)
def test_files_that_are_included_come_along(line: str) -> None:
    """A path in a file starts at that file, as pip has it."""
    files = {
        "requirements.txt": f"six\n{line}  # why\n",
        "more/base.txt": "--constraint ../limits.txt\n",
        "limits.txt": "",
    }
    assert manifest(SHORT, **files).requirements == ("requirements.txt", "more/base.txt", "limits.txt")


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../other.txt", "more/../../other.txt", "missing.txt", "requirements.txt"]
)
def test_nothing_outside_of_the_folder_comes_along(path: str) -> None:
    """The installer says in its own words that such a file is not there."""
    files = {"requirements.txt": f"-r {path}\n", "../other.txt": "six"}
    assert manifest(SHORT, **files).requirements == ("requirements.txt",)


def test_too_many_files_are_a_problem() -> None:
    names = [f"r{number}.txt" for number in range(16)]
    files = {"requirements.txt": "".join(f"-r {name}\n" for name in names), **dict.fromkeys(names, "six\n")}
    assert problems(load(SHORT, **files)) == ["requirements.txt: with what it includes these are more than 16 files"]


def test_a_lock_comes_first_and_with_its_project() -> None:
    files = {"uv.lock": "version = 1\n", "pyproject.toml": PROJECT, "requirements.txt": "six\n"}
    assert manifest(SHORT, **files).requirements == ("uv.lock", "pyproject.toml")


def test_a_lock_alone_is_a_problem() -> None:
    report = load(SHORT, **{"uv.lock": "version = 1\n"})
    assert problems(report) == ["uv.lock: there is no pyproject.toml beside it"]
    assert hints(report) == ["add the pyproject.toml that it was made from"]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (PROJECT, ("pyproject.toml",)),
        ('[project]\nname = "chat"\ndynamic = ["dependencies"]\n', ("pyproject.toml",)),
        ('[project]\nname = "chat"\ndependencies = []\n', ()),
        ("[tool.ruff]\nline-length = 100\n", ()),
        ('project = "no table"\n', ()),
    ],
)
def test_a_project_counts_where_it_has_dependencies(text: str, wanted: tuple[str, ...]) -> None:
    assert manifest(SHORT, **{"pyproject.toml": text}).requirements == wanted


def test_a_project_that_is_no_toml_is_a_problem() -> None:
    (problem,) = problems(load(SHORT, **{"pyproject.toml": "[project\n"}))
    assert problem.startswith("pyproject.toml: is not TOML: ")


def test_a_venv_of_the_folders_own_wins_and_that_is_said() -> None:
    made = manifest(SHORT, **VENV, **{"requirements.txt": "six\n"})
    assert (made.requirements, made.import_paths) == ((), (".venv/lib/python3.11/site-packages",))
    assert made.hints == (
        "requirements.txt: not installed: the packages are those of the folder's own .venv; remove it for others",
    )
