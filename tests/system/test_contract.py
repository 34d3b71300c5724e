"""`/openapi.json` and what a real daemon does, held together by schemathesis: what the one says, the other does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.daemon import ROOT, serve

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(300)]

FOLDERS = [
    *(ROOT / "examples" / name for name in ("data", "analysis", "chat")),
    *(ROOT / "tests" / "agents" / name for name in ("diary", "greeter", "librarian")),
]
# 502 and 504 are answers about a function that the caller has named: it raised, or took too long. 500 and 503 would be
# ours, and are findings. A call that fits the document may still be refused by the function itself (422), or end as
# above. A stream has to be asked for as one,
# and one that reaches its deadline is cut on purpose (docs/api.md), which the tool takes for a broken connection.
CONFIGURATION = """
color = false
seed = 1
[cache]
enabled = false
[generation]
max-examples = 5
[checks]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", 502, 504]
positive_data_acceptance.expected-statuses = ["2xx", 422, 502, 504]
[parameters]
agent = "{agent}"
[[operations]]
include-path-regex = "_stream:invoke$"
headers = {{ Accept = "text/event-stream" }}
parameters = {{ "header.Runagent-Timeout" = "30s" }}
"""


def test_the_daemon_does_what_its_document_says_and_nothing_else(tmp_path: Path) -> None:
    """Statuses, types, bodies and fields; no 5xx of ours; no answer without a token; 405 for other methods.

    With values that fit, values that do not, missing ones, and sequences of calls. In a folder of its own, where the
    tool may leave what it wants.
    """
    with serve(FOLDERS) as daemon:
        (tmp_path / "schemathesis.toml").write_text(CONFIGURATION.format(agent=daemon.agents[0]["id"]))
        program = "import sys; from schemathesis.cli import schemathesis; sys.exit(schemathesis())"
        done = subprocess.run(
            [sys.executable, "-c", program, "run", f"{daemon.url}/openapi.json",
             "--header", f"Authorization: Bearer {daemon.token}"],
            cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        [generated] = re.findall(r"([0-9]+) generated, [0-9]+ passed", done.stdout)
        assert int(generated) > 300, "fewer would have tried nothing"
        for phase in ("Coverage", "Fuzzing", "Stateful"):
            assert f"✅ {phase}" in done.stdout, done.stdout[-3000:]
        assert "level=error" not in daemon.log.read_text()
        status, agents = daemon.request("GET", "/v1/agents")
        assert (status, len(agents["agents"])) == (200, len(FOLDERS))
