"""pydantic-ai: an agent with a tool and a typed answer, whose model is a function."""

from __future__ import annotations

import pytest

from tests.frameworks.served import chunks
from tests.system.daemon import Daemon

pytestmark = [pytest.mark.root, pytest.mark.kernel, pytest.mark.slow, pytest.mark.timeout(300)]

AGENT, POLICY = "pydantic_ai", "base"


@pytest.mark.parametrize("tag", ["ask", "ask_sync"])
def test_the_tool_is_called_and_the_answer_has_its_type(served: Daemon, tag: str) -> None:
    question = {"question": "How warm is it in Rome?"}
    assert served.call(AGENT, tag, question) == (200, {"city": "Rome", "degrees": 19.0})
    # Again: an event loop that a library makes and leaves behind must not be in the next call's way.
    assert served.call(AGENT, tag, question) == (200, {"city": "Rome", "degrees": 19.0})


def test_an_error_of_a_tool_reaches_the_caller(served: Daemon) -> None:
    status, body = served.call(AGENT, "ask", {"question": "How warm is it in Atlantis?"})
    assert (status, body["code"], body["exception"], "Atlantis" in body["detail"]) == (
        502, "FUNCTION_ERROR", "KeyError", True,
    )  # fmt: skip


def test_text_streams(served: Daemon) -> None:
    question = {"question": "Where is it cold?"}
    assert chunks(served, AGENT, "ask_stream", question) == ["Cold ", "in ", "Oslo, ", "warm ", "in ", "Rome."]
