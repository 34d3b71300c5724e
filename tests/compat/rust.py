"""The crate `runagent` 0.1.49 against a real daemon, where there is cargo: `python -m tests.compat.rust`.

Runs as: root, by `make compat`. Not part of `make test`: it compiles some 300 crates, which takes minutes.
The Rust client is the strict one: it fetches the architecture first, and sends its token in the query of a WebSocket.
The first build takes the newest crates that fit and keeps their lock beside what it built; the tree has no lock of
them, since cargo writes the name of the registry into it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.compat.runagent_client import RunAgent, runagent_client, same
from tests.system.daemon import ROOT, serve

SOURCE = ROOT / "tests/compat/rust_client"
BUILD = ROOT / ".venv-compat/rust"

NO_TAG = "Validation error: Entrypoint `nay` not found in agent compat-values"

# One line each: agent, tag, arguments, keywords, and what comes of it. Any: JSON.
EXPECTED: tuple[tuple[str, str, list[Any], dict[str, Any], dict[str, Any]], ...] = (
    ("compat-values", "give", ["text"], {}, {"result": "hi"}),
    ("compat-values", "give", [], {"what": "nested"}, {"result": {"a": {"b": {"c": [[[1]]]}}}}),
    ("compat-values", "give", ["nan"], {}, {"result": None}),
    ("compat-values", "echo", [1, "zwei"], {"k": [True]}, {"result": {"args": [1, "zwei"], "kwargs": {"k": [True]}}}),
    ("compat-values", "count_stream", [1000], {}, {"chunks": list(range(1000))}),
    ("compat-values", "count_stream", [0], {}, {"chunks": []}),
    ("compat-values", "echo_stream", [], {"x": 1}, {"chunks": [{"args": [], "kwargs": {"x": 1}}]}),
)


def compiled() -> Path:
    """The program, built in a folder that `make clean` removes."""
    print("building the Rust client; the first time takes some minutes", flush=True)
    shutil.copytree(SOURCE, BUILD, dirs_exist_ok=True)
    subprocess.run(
        ["cargo", "build", "--quiet"], cwd=BUILD, check=True, env={**os.environ, "CARGO_TARGET_DIR": "target"}
    )
    return BUILD / "target/debug/compat"


def failures(client: RunAgent) -> list[str]:
    """What went another way than expected, printing each call."""
    found = []

    def expect(what: str, answer: object, expected: object) -> None:
        good = same(answer, expected)
        print(f"{'ok  ' if good else 'NOT '} {what}")
        if not good:
            found.append(f"{what}\n  expected {json.dumps(expected)}\n  not      {json.dumps(answer)}")

    for agent, tag, args, kwargs, expected in EXPECTED:
        expect(f"{agent} {tag} {args} {kwargs}"[:100], client.run(agent, tag, *args, **kwargs), expected)
    wrong_token = client.run("compat-values", "give", "text", token="x.y.z")
    expect("a wrong token", wrong_token["error"]["message"].startswith("Authentication error: "), True)
    expect("a wrong tag", client.run("compat-values", "nay")["error"]["message"], NO_TAG)
    failing = client.run("compat-values", "fail", "no such city")["error"]["message"]
    expect("a failing function", failing, "Server error: [FUNCTION_ERROR] ValueError: no such city")
    broken = client.run("compat-values", "break_off_stream", 2, "it broke")
    expect("a stream that fails midway: what came before", broken["chunks"], [0, 1])
    expect("a stream that fails midway: why", "RuntimeError: it broke" in broken["error"]["message"], True)
    return found


def main() -> int:
    if shutil.which("cargo") is None:
        print("cargo is missing: the Rust client is not tried")
        return 0
    try:
        program = compiled()
    except subprocess.CalledProcessError as error:
        print(f"the Rust client does not build here (cargo: status {error.returncode}); it is not tried")
        return 1
    with (
        serve([ROOT / "tests/compat/agent"]) as daemon,
        tempfile.TemporaryDirectory(prefix="runagentd-rust-") as folder,
        runagent_client(daemon, Path(folder), [program]) as client,
    ):
        found = failures(client)
    print("\n".join(found) if found else "the Rust client gets what it should")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
