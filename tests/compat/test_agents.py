"""Three agents that were written from the RunAgent format alone run unedited, called by PyPI's own client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agents.calls import CALLS, FOLDERS
from tests.compat.runagent_client import RunAgent, runagent_client, same
from tests.system.daemon import ROOT, Daemon, serve

pytestmark = [pytest.mark.root, pytest.mark.kernel, pytest.mark.slow]


@pytest.fixture(scope="module")
def served() -> Iterator[Daemon]:
    with serve([ROOT / "tests/agents" / folder for folder in FOLDERS.values()]) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def client(served: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunAgent]:
    with runagent_client(served, tmp_path_factory.mktemp("runagent")) as client:
        yield client


def test_each_folder_is_served_under_the_name_it_gives_itself(served: Daemon) -> None:
    """The configurations are a short one, a long one and a YAML one."""
    assert [agent["name"] for agent in served.agents] == ["Greeter", "Librarian Agent", "diary"]


def test_every_call_has_the_answer_that_its_author_expects(served: Daemon, client: RunAgent) -> None:
    """In the given order: the agents keep state, in globals and in files of their folder."""
    identities = {agent["name"]: agent["id"] for agent in served.agents}
    for call in CALLS:
        answer = client.run(identities[call.agent], call.tag, *call.args, **call.kwargs)
        if call.fails_with is not None:
            assert answer["error"]["code"] == "FUNCTION_ERROR", call
            assert answer["error"]["message"].startswith(f"{call.fails_with}: "), call
        else:
            expected = {"chunks" if call.tag.endswith("_stream") else "result": call.result}
            assert same(answer, expected), (call, answer)


def test_the_folders_are_as_they_were(served: Daemon) -> None:
    """An agent writes into a layer over its snapshot: no __init__.py, cache or diary comes to lie in the folder."""
    left = {path.name for folder in FOLDERS.values() for path in Path(ROOT / "tests/agents" / folder).rglob("*")}
    assert not left & {"__pycache__", "__init__.py", "chat_storage"}
