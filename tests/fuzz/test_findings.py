"""What fuzzers have found, and the inputs that they start from: each parser takes it, or refuses it in its own way."""

from __future__ import annotations

import json

import pytest

from tests.fuzz.targets import TARGETS, run
from tests.loader.folders import SHORT

NO_TAG = {"file": "main.py", "module": "run", "tag": ""}
FINDINGS: list[tuple[str, bytes]] = [
    # An agent that was taken over could end the process that prints what is served.
    ("announced", b'{"entrypoints": [{"tag": "say", "parameters": 5}]}'),
    ("announced", b'{"entrypoints": [{"tag": "say", "parameters": true, "returns": [[]]}]}'),
    # After fifty problems, of which no more are kept, the next entrypoint was taken for good.
    ("configuration-json", json.dumps({**SHORT, "agent_architecture": {"entrypoints": [NO_TAG] * 60}}).encode()),
    # Unicode has blanks that int() does not know.
    ("jsonpath", b"a[-1\x1f:]"),
    ("jsonpath", b"a[:\x1c2]"),
    ("jsonpath", "a[٣]".encode()),
]


@pytest.mark.parametrize(("name", "data"), FINDINGS)
def test_what_was_found_once_is_not_found_again(name: str, data: bytes) -> None:
    """Nothing but the parser's own error."""
    run(name, data)


@pytest.mark.parametrize("name", TARGETS)
def test_a_fuzzer_starts_from_inputs_that_are_nearly_good(name: str) -> None:
    """At least one is good, or a fuzzer would never get behind the first check."""
    good = 0
    for seed in TARGETS[name].seeds:
        run(name, seed)
        try:
            TARGETS[name].parse(seed)
            good += 1
        except TARGETS[name].errors:
            pass
    assert good or name == "token"  # whose signature nobody can make
