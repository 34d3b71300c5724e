"""What PyPI's `runagent` 0.1.49 raises when a call is refused or fails: code and message as its users see them.

Where a status decides the client's code, ours is the one that upstream's own table gives (CONNECTION_ERROR for a 404).
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.compat.conftest import Mint
from tests.compat.runagent_client import RunAgent

pytestmark = [pytest.mark.root, pytest.mark.kernel, pytest.mark.slow]


def refused(runagent: RunAgent, tag: str, token: str | None) -> str:
    error = runagent.error("compat-values", tag, 1, token=token)
    return f"{error['code']}: {error['message']}"


@pytest.mark.parametrize("token", [None, "", "wrong", "x.y.z"])
def test_no_token_or_a_wrong_one_is_an_authentication_error(runagent: RunAgent, token: str | None) -> None:
    """Before the handshake of a stream, so that the client knows what it is."""
    assert refused(runagent, "echo", token).startswith("AUTHENTICATION_ERROR: ")
    stream = refused(runagent, "count_stream", token)
    assert stream == "AUTHENTICATION_ERROR: Authentication failed for the streaming request."


def test_an_expired_token_is_an_authentication_error(runagent: RunAgent, mint: Mint) -> None:
    """The message says that it is its age."""
    assert runagent.result("compat-values", "give", "integer", token=mint()) == 7
    expired = mint(issued_seconds_ago=3600)
    assert refused(runagent, "echo", expired) == "AUTHENTICATION_ERROR: the token has expired"
    assert refused(runagent, "count_stream", expired).startswith("AUTHENTICATION_ERROR: ")


def test_a_token_that_another_key_signed_is_an_authentication_error(
    runagent: RunAgent, mint: Mint, tmp_path: Path
) -> None:
    """Everything else in it is right."""
    tmp_path.chmod(0o700)
    forged = mint(keys=tmp_path)
    assert refused(runagent, "echo", forged).startswith("AUTHENTICATION_ERROR: ")
    assert refused(runagent, "count_stream", forged).startswith("AUTHENTICATION_ERROR: ")


def test_a_token_for_another_agent_does_not_help(runagent: RunAgent, mint: Mint) -> None:
    """It opens its own agent, by id and name, and does not tell that the other one exists."""
    token = mint(agents=["compat-hasty"])
    assert runagent.result("hasty", "give", "integer", token=token) == 7
    assert runagent.chunks("compat-hasty", "count_stream", 1, token=token) == [0]
    other = runagent.error("compat-values", "give", "integer", token=token)
    missing = runagent.error("no-such-agent", "give", "integer", token=token)
    assert other["code"] == missing["code"] == "CONNECTION_ERROR"
    assert other["message"] == missing["message"].replace("no-such-agent", "compat-values")
    assert runagent.error("compat-values", "count_stream", 1, token=token)["code"] == "NOT_FOUND"


def test_an_unknown_tag_is_not_found(runagent: RunAgent) -> None:
    """The message quotes it, which is where this client takes its suggestion from."""
    single = runagent.error("compat-values", "nay")
    assert (single["code"], single["message"]) == (
        "CONNECTION_ERROR",
        "entrypoint 'nay' not found in agent 'Values & streams'",
    )
    assert single["suggestion"].startswith("Check that the entrypoint tag `nay` exists for this agent.")
    stream = runagent.error("compat-values", "nay_stream")
    assert (stream["code"], stream["message"]) == ("NOT_FOUND", "The agent or entrypoint tag was not found.")
    assert stream["suggestion"].startswith("Check that the entrypoint tag `nay_stream` exists for this agent.")


def test_an_exception_keeps_its_type_and_message(runagent: RunAgent) -> None:
    """RunAgent's own server loses the type."""
    error = runagent.error("compat-values", "fail", "no such city")
    assert (error["code"], error["message"], error["details"]) == ("FUNCTION_ERROR", "ValueError: no such city", None)
    assert runagent.error("compat-values", "give", "nothing")["message"] == "KeyError: 'nothing'"


@pytest.mark.parametrize("text", ["you do not have permission", "403", "file not found", "500"])
def test_an_exceptions_words_do_not_change_what_it_is(runagent: RunAgent, text: str) -> None:
    """Without a suggestion of ours this client makes one up from them, about accounts and dashboards."""
    error = runagent.error("compat-values", "fail", text)
    assert (error["code"], error["message"]) == ("FUNCTION_ERROR", f"ValueError: {text}")
    assert error["suggestion"] == "the agent's own function raised this: look at its arguments, or ask its author"


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        (["x"], {}, 'expected an integer, not "x" (at /input_args/0)'),
        ([], {}, 'the argument "count" is missing (at /input_kwargs/count)'),
        ([1], {"names": ["a", 2]}, "expected a string, not the number 2 (at /input_kwargs/names/1)"),
        ([1], {"count": 2}, 'the argument "count" is given twice, by position too (at /input_kwargs/count)'),
        ([1], {"other": 1}, 'the function has no argument "other" (at /input_kwargs/other)'),
    ],
)
def test_a_wrong_argument_is_named(
    runagent: RunAgent, args: list[object], kwargs: dict[str, object], message: str
) -> None:
    """With its place in the request, as a JSON pointer."""
    error = runagent.error("compat-values", "typed", *args, **kwargs)
    assert (error["code"], error["message"]) == ("VALIDATION_ERROR", message)


def test_a_generator_behind_a_plain_tag_is_explained(runagent: RunAgent) -> None:
    """RunAgent's own server answers with the text `<generator object …>`."""
    error = runagent.error("compat-values", "generator", 3)
    assert error["code"] == "VALIDATION_ERROR"
    assert error["message"] == "the function returned a stream (generator), and one result was asked for"
    assert error["suggestion"] == "give the function an entrypoint whose tag ends in '_stream', and call that one"


def test_a_call_that_reaches_its_deadline_says_so_in_time(runagent: RunAgent) -> None:
    """The policy's second, not the client's 300; the agent answers the next call."""
    began = time.monotonic()
    error = runagent.error("hasty", "rest", 60)
    assert 1 <= time.monotonic() - began < 4
    assert (error["code"], error["message"]) == (
        "TIMEOUT_ERROR",
        "the call reached its deadline while its function ran",
    )
    assert "deadline" in error["suggestion"]
    assert runagent.result("hasty", "give", "text") == "hi"
