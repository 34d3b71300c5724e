"""The agent in docs/writing-agents.md is one: its blocks are taken from the page and run.

Runs as: the test process.
Reads from strangers: nothing.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent.parent.parent / "docs" / "writing-agents.md"


def _block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


def test_the_smallest_agent_of_the_page_works() -> None:
    """Its configuration names functions that its code has, and they do what they say."""
    functions: dict[str, Any] = {}
    exec(compile(_block("python"), "agent.py", "exec"), functions)
    entrypoints = json.loads(_block("json"))["agent_architecture"]["entrypoints"]
    assert [(one["file"], one["module"], one["tag"]) for one in entrypoints] == [
        ("agent.py", "greet", "greet"),
        ("agent.py", "count_stream", "count_stream"),
    ]
    assert functions["greet"]("you", 2) == "Hello you! Hello you!"
    assert list(functions["count_stream"](3)) == [1, 2, 3]


def test_the_page_leads_to_files_that_exist() -> None:
    """No link of the page is broken."""
    targets = re.findall(r"\]\(([^)#]+)\)", PAGE.read_text())
    assert targets
    assert [target for target in targets if not (PAGE.parent / target).exists()] == []
