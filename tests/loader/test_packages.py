"""A virtual environment in the agent's folder, for Python 3.11."""

from __future__ import annotations

import pytest

from tests.loader.folders import SHORT, manifest


def venv(name: str = ".venv", line: str = "version = 3.11.2", python: str = "3.11") -> dict[str, str]:
    return {
        f"{name}/pyvenv.cfg": f"home = /usr/bin\n{line}\n",
        f"{name}/lib/python{python}/site-packages/x.py": "",
    }


@pytest.mark.parametrize("name", [".venv", "venv"])
@pytest.mark.parametrize("line", ["version = 3.11.2", "version_info = 3.11.7.final.0", "version=3.11"])
def test_an_environment_of_the_running_version_is_on_the_agents_path(name: str, line: str) -> None:
    made = manifest(SHORT, **venv(name, line))
    assert (made.import_paths, made.hints) == ((f"{name}/lib/python3.11/site-packages",), ())


def test_an_environment_of_another_version_is_ignored_and_says_both() -> None:
    made = manifest(SHORT, **venv(line="version = 3.12.4", python="3.12"))
    assert made.import_paths == ()
    assert made.hints == (
        ".venv/pyvenv.cfg: ignored: it is for Python 3.12, but the agent runs on 3.11; make it anew with python3.11",
    )


def test_an_environment_that_does_not_say_its_version_is_ignored() -> None:
    assert manifest(SHORT, **venv(line="nothing")).hints == (
        ".venv/pyvenv.cfg: ignored: it does not say which version of Python it is for",
    )


def test_an_environment_without_packages_is_ignored() -> None:
    assert manifest(SHORT, **venv(python="3.1")).hints == (".venv: ignored: it has no lib/python3.11/site-packages",)


def test_the_first_that_fits_is_taken() -> None:
    made = manifest(SHORT, **venv(".venv", "version = 3.12.0"), **venv("venv"))
    assert made.import_paths == ("venv/lib/python3.11/site-packages",)
