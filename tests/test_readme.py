"""What the README tells a newcomer to type works as it is printed there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.system.daemon import serve

ROOT = Path(__file__).resolve().parent.parent


def shell_blocks() -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def hello(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the README's commands make, up to the one that serves it."""
    place = tmp_path_factory.mktemp("readme")
    [block] = [block for block in shell_blocks() if block.startswith("mkdir hello\n")]
    commands, separator, _ = block.partition(".venv/bin/runagentd serve hello\n")
    assert separator
    subprocess.run(["sh", "-eu", "-c", commands], cwd=place, check=True, timeout=10)
    return place / "hello"


@pytest.mark.root
@pytest.mark.kernel
@pytest.mark.slow
def test_the_first_agent_answers_as_the_readme_says(hello: Path) -> None:
    """Served from the folder that its commands make, called at the path that its curl line names."""
    [curl] = [block for block in shell_blocks() if block.startswith("curl ")]
    [path] = re.findall(r"http://127\.0\.0\.1:8450(/\S+)", curl)
    [body] = re.findall(r"-d '(.*?)'", curl)
    assert (path, body) == ("/v1/agents/hello/entrypoints/greet:invoke", '{"name": "you"}')
    with serve([hello]) as daemon:
        assert [agent["name"] for agent in daemon.agents] == ["hello"]
        assert daemon.request("POST", path, body={"name": "you"}) == (200, "Hello you!")
        assert daemon.call("hello", "greet", {"name": "you", "times": "2"}) == (200, "Hello you! Hello you!")


def test_every_make_target_that_the_readme_names_is_there() -> None:
    """And every target is explained by `make help`."""
    makefile = (ROOT / "Makefile").read_text()
    [declared] = re.findall(r"^\.PHONY: (help .*)$", makefile, re.MULTILINE)
    named = set(re.findall(r"\bmake ([a-z]+)\b", (ROOT / "README.md").read_text()))
    assert named <= set(declared.split())
    helped = set(re.findall(r"^\t@echo 'make ([a-z]+) ", makefile, re.MULTILINE))
    assert helped == {
        "demo",
        "test",
        "compat",
        "protections",
        "bench",
        "crowd",
        "soak",
        "fuzz",
        "timing",
        "lint",
        "lock",
        "clean",
    }
