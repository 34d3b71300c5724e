"""Calls agents with PyPI's `runagent`, as its users do: one JSON request on each line of stdin, one answer on stdout.

Runs as: a process of .venv-compat, beside the tests; nothing of runagentd is imported here.
Reads from strangers: nothing.
A request: agent, tag, args, kwargs, base_url, api_key (null: none), take (null: the whole stream).
An answer: {"result"} or {"chunks"}, and {"error": {"type", "code", "message", "suggestion", "details"}} where one came.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

# Not installed where mypy runs: it pins a web stack of its own.
from runagent import RunAgentClient  # type: ignore[import-not-found]


def call(request: dict[str, Any]) -> dict[str, Any]:
    """One call by a client object of its own; Any: JSON."""
    os.environ["RUNAGENT_BASE_URL"] = request["base_url"]
    os.environ.pop("RUNAGENT_API_KEY", None)
    if request["api_key"] is not None:
        os.environ["RUNAGENT_API_KEY"] = request["api_key"]
    answer: dict[str, Any] = {}
    try:
        client = RunAgentClient(agent_id=request["agent"], entrypoint_tag=request["tag"], local=False)
        result = client.run(*request["args"], **request["kwargs"])
        if not request["tag"].endswith("_stream"):
            return {"result": result}
        answer["chunks"] = []
        for chunk in result:
            answer["chunks"].append(chunk)
            if len(answer["chunks"]) == request["take"]:
                break
    except Exception as error:
        names = ("code", "message", "suggestion", "details")
        answer["error"] = {"type": type(error).__name__, **{name: getattr(error, name, None) for name in names}}
    return answer


def main() -> None:
    # The client prints what it does: that must not come between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for line in sys.stdin:
        print(json.dumps(call(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
