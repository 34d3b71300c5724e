"""The document that describes what a caller may call."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runagentd import errors
from runagentd.gateway.describe import Parameter, default_of
from runagentd.gateway.openapi import schema_of
from runagentd.wire.channel import Frame
from runagentd.wire.manifest import CacheScope, Caching
from tests.fakes_gateway import Gateway

INVOKE = "/v1/agents/echo-1/entrypoints/say:invoke"


def document(gateway: Gateway, token: str = "") -> dict[str, Any]:
    """Any: JSON."""
    got = gateway.ask("GET", "/openapi.json", token=token)
    assert (got.status, got.headers["content-type"]) == (200, "application/json")
    found: dict[str, Any] = got.json()
    return found


def test_each_entrypoint_is_an_operation_with_its_parameters(gateway: Gateway) -> None:
    """As the runner has described them."""
    gateway.ready(cache=Caching(ttl=60, swr=5, scope=CacheScope.TENANT, streams=False, max_bytes=10))
    found = document(gateway)
    assert found["openapi"] == "3.1.0"
    operation = found["paths"][INVOKE]["post"]
    assert operation["operationId"] == "echo_2d_1_say"
    assert operation["requestBody"]["content"]["application/json"]["schema"] == {
        "type": "object",
        "properties": {"text": {"type": "string", "x-runagentd-type": "str"}},
        "required": ["text"],
        "additionalProperties": False,
    }
    assert operation["requestBody"]["required"] is True
    assert operation["description"] == "Say it."
    assert operation["x-runagentd-cache"] == {
        "ttl": 60, "stale_while_revalidate": 5, "scope": "tenant", "streams": False,
    }  # fmt: skip
    assert operation["x-runagentd-limits"]["concurrency"] == 1
    statuses = {str(kind.native_status) for kind in vars(errors).values() if isinstance(kind, errors.ErrorKind)}
    assert set(operation["responses"]) == (statuses - {"405"}) | {"200", "304"}
    for reference in [row["$ref"] for row in operation["responses"].values() if "$ref" in row]:
        assert reference.rpartition("/")[2] in found["components"]["responses"]


def test_a_body_is_needed_where_an_argument_is(gateway: Gateway) -> None:
    """No body is `{}`, and before its first start nothing is known of an agent's arguments."""
    gateway.supervisor.serve()
    assert document(gateway)["paths"][INVOKE]["post"]["requestBody"]["required"] is False


@pytest.mark.parametrize(("streams", "types"), [(True, {"text/event-stream"}), (False, {"application/json"})])
def test_a_stream_answers_with_events_and_a_function_with_json(
    gateway: Gateway, streams: bool, types: set[str]
) -> None:
    """So that who tries it out asks for the right one."""
    gateway.ready(streams=streams)
    assert set(document(gateway)["paths"][INVOKE]["post"]["responses"]["200"]["content"]) == types


def test_it_shows_what_the_caller_may_know_of_and_nothing_else(gateway: Gateway) -> None:
    """It takes a token for that."""
    gateway.ready("say", "pay")
    assert gateway.ask("GET", "/openapi.json", token=None).status == 401
    assert [path for path in document(gateway, gateway.token("other"))["paths"] if ":invoke" in path] == []
    assert len([path for path in document(gateway)["paths"] if ":invoke" in path]) == 2


def test_what_can_be_given_by_position_only_is_told(gateway: Gateway) -> None:
    """The native door takes arguments by name, so a form for the others would be of no use."""
    gateway.supervisor.serve(tags=("say",))
    runner = gateway.supervisor.offer()
    runner.hello()
    parameters = [{"name": "a", "kind": "positional_only", "required": True}, {"name": "b", "kind": "var_positional"}]
    runner.send(
        Frame.DESCRIBE, 0, None, json.dumps({"entrypoints": [{"tag": "say", "parameters": parameters}]}).encode()
    )
    gateway.supervisor.receive()
    assert document(gateway)["paths"][INVOKE]["post"]["requestBody"]["content"]["application/json"]["schema"] == {
        "type": "object",
        "properties": {},
        "additionalProperties": False,
        "description": "only RunAgent's protocol can give, by position: a, b",
    }


def test_what_an_agent_makes_up_is_data_and_nothing_else(gateway: Gateway) -> None:
    """Types that are none, defaults that are no JSON, names with braces and slashes."""
    gateway.supervisor.serve(tags=("{say}/x",))
    runner = gateway.supervisor.offer()
    runner.hello()
    parameters = [
        {"name": "$ref", "kind": "keyword_only", "required": True, "type": "__import__('os').system('x')"},
        {"name": "b", "kind": "nonsense", "type": "(" * 600, "default": "}{"},
        {"name": "c", "kind": "var_keyword"},
    ]
    body = json.dumps({"entrypoints": [{"tag": "{say}/x", "parameters": parameters, "doc": "<img onerror=x>"}]})
    runner.send(Frame.DESCRIBE, 0, None, body.encode())
    gateway.supervisor.receive()
    operation = document(gateway)["paths"]["/v1/agents/echo-1/entrypoints/%7Bsay%7D%2Fx:invoke"]["post"]
    assert operation["requestBody"]["content"]["application/json"]["schema"] == {
        "type": "object",
        "properties": {
            "$ref": {"x-runagentd-type": "__import__('os').system('x')"},
            "b": {"x-runagentd-type": "(" * 500},
        },
        "additionalProperties": True,
        "required": ["$ref"],
    }
    assert operation["description"] == "<img onerror=x>"


@pytest.mark.parametrize("depth", [32, 33, *range(980, 1000)])
def test_no_default_is_too_deep_for_the_document_that_it_is_in(depth: int) -> None:
    """At some depth one can just be read, and not be written as a part of something else."""
    parameter = Parameter(name="x", default="[" * depth + "]" * depth)
    found = default_of(parameter)
    assert ("default" in found) is (depth <= 32)
    whole: object = found
    for _ in range(12):
        whole = [whole]
    assert msgspec.json.decode(msgspec.json.encode(whole)) == whole


@pytest.mark.parametrize(
    ("text", "schema"),
    [
        ("str", {"type": "string"}),
        ("list[int]", {"type": "array", "items": {"type": "integer"}}),
        ("dict[str, float]", {"type": "object", "additionalProperties": {"type": "number"}}),
        ("str | None", {"anyOf": [{"type": "string"}, {"type": "null"}]}),
        ("int | str | None", {"anyOf": [{"type": "integer"}, {"type": "string"}, {"type": "null"}]}),
        ("typing.Optional[bool]", {"anyOf": [{"type": "boolean"}, {"type": "null"}]}),
        ("Literal['a', 1, None]", {"enum": ["a", 1, None]}),
        ("tuple[int, ...]", {"type": "array", "items": {"type": "integer"}}),
        (
            "tuple[int, str]",
            {
                "type": "array",
                "prefixItems": [{"type": "integer"}, {"type": "string"}],
                "minItems": 2,
                "maxItems": 2,
            },
        ),
        ("datetime.datetime", {"type": "string", "format": "date-time"}),
        ("int | MyModel", {}),
        ("MyModel", {}),
        ("Literal[x]", {}),
        ("not a type", {}),
        ("list[()]", {}),
        ("Optional[()]", {}),
        ("Literal['\\ud800']", {}),
        (None, {}),
        ("list[" * 50 + "int" + "]" * 50, None),
    ],
)
def test_a_type_becomes_a_schema_where_it_is_understood(text: str | None, schema: object) -> None:
    """Any value where it is not."""
    assert schema is None or schema_of(text) == schema


def test_a_type_is_read_once_whoever_asks_for_the_document() -> None:
    """Such a text takes a millisecond, and an agent can have a hundred of them."""
    text = ("f(a=" * 500)[:499] + "!"
    assert schema_of(text) is schema_of(text)


@given(st.text(max_size=120))
def test_any_text_becomes_a_schema(text: str) -> None:
    """Whatever an agent calls a type."""
    assert isinstance(msgspec.json.encode(schema_of(text)), bytes)


@given(
    st.lists(
        st.sampled_from(["list", "Optional", "Literal", "tuple", "[", "]", "(", ")", ",", "'\\ud800'", "..."]),
        max_size=12,
    )
)
def test_any_text_that_is_nearly_a_type_becomes_a_schema(words: list[str]) -> None:
    assert isinstance(msgspec.json.encode(schema_of("".join(words))), bytes)
