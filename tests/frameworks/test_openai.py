"""OpenAI's client: chat completions of a stand-in behind a unix socket, whole and streamed."""

from __future__ import annotations

import pytest

from tests.frameworks.served import chunks, wait_for_log
from tests.system.daemon import Daemon

pytestmark = [pytest.mark.root, pytest.mark.kernel, pytest.mark.slow, pytest.mark.timeout(300)]

AGENT, POLICY = "openai", "base"


def test_a_chat_completion(served: Daemon) -> None:
    assert served.call(AGENT, "chat", {"question": "is anybody there"}) == (200, "IS ANYBODY THERE")


def test_the_asynchronous_client_and_all_that_the_api_says(served: Daemon) -> None:
    for question in ("one", "two"):
        status, whole = served.call(AGENT, "achat", {"question": question})
        assert status == 200
        assert (whole["object"], whole["usage"]["total_tokens"]) == ("chat.completion", 2)
        assert whole["choices"][0]["message"]["content"] == question.upper()


def test_a_completion_streams(served: Daemon) -> None:
    assert chunks(served, AGENT, "chat_stream", {"question": "is anybody there"}) == ["IS", "ANYBODY", "THERE"]


def test_the_real_api_is_out_of_reach_and_the_log_says_why(served: Daemon) -> None:
    """The client says "Connection error." to whoever calls; its author learns of the network."""
    status, body = served.call(AGENT, "call_the_real_one", {"question": "is anybody there"})
    assert (status, body["exception"], body["detail"]) == (502, "openai.APIConnectionError", "Connection error.")
    wait_for_log(served, AGENT, "runagentd: hint: there is no network")
