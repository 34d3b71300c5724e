"""LangGraph: a graph of plain nodes, called and streamed, on threads and on the event loop."""

from __future__ import annotations

import pytest

from tests.frameworks.served import chunks
from tests.system.daemon import Daemon

pytestmark = [pytest.mark.root, pytest.mark.kernel, pytest.mark.slow, pytest.mark.timeout(300)]

AGENT, POLICY = "langgraph", "base"


@pytest.mark.parametrize("tag", ["run", "arun"])
def test_a_graph_runs_to_its_end(served: Daemon, tag: str) -> None:
    assert served.call(AGENT, tag, {"number": 6}) == (200, {"number": 1, "path": [6, 3, 10, 5, 16, 8, 4, 2, 1]})


@pytest.mark.parametrize("tag", ["run_stream", "arun_stream"])
def test_each_nodes_update_is_a_chunk(served: Daemon, tag: str) -> None:
    assert chunks(served, AGENT, tag, {"number": 5}) == [
        {"grow": {"number": 16, "path": [16]}},
        {"halve": {"number": 8, "path": [8]}},
        {"halve": {"number": 4, "path": [4]}},
        {"halve": {"number": 2, "path": [2]}},
        {"halve": {"number": 1, "path": [1]}},
    ]


def test_an_error_in_a_node_is_the_functions(served: Daemon) -> None:
    status, body = served.call(AGENT, "run", {"number": 0})
    assert (status, body["code"], body["exception"]) == (502, "FUNCTION_ERROR", "ValueError")


def test_a_graph_of_a_hundred_steps_needs_no_hundred_threads(served: Daemon) -> None:
    status, walk = served.call(AGENT, "run", {"number": 27})
    assert (status, len(walk["path"]), max(walk["path"])) == (200, 112, 9232)
