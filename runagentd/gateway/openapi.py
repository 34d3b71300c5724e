"""`/openapi.json`: OpenAPI 3.1, one operation for each entrypoint that the caller may know of.

Runs as: the gateway. Pure.
Reads from strangers: what agents say of their functions. It becomes data in the document and nothing else: a type that
is not understood is any value, a default that is no JSON is left out.
"""

from __future__ import annotations

import ast
import functools
import re
import urllib.parse
from collections.abc import Iterable

from runagentd import errors
from runagentd.errors import ErrorKind
from runagentd.gateway.agents import Agent
from runagentd.gateway.describe import EntrypointDescription, Parameter, default_of
from runagentd.gateway.guard.limits import Rule
from runagentd.gateway.pipeline import Offer

VERSION = "3.1.0"
TYPE_CHARACTERS_MAX = 500
_DEPTH_MAX = 8
_PROBLEM = "application/problem+json"

Schema = dict[str, object]

_PLAIN: dict[str, Schema] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "None": {"type": "null"},
    "datetime": {"type": "string", "format": "date-time"},
    "date": {"type": "string", "format": "date"},
    "time": {"type": "string", "format": "time"},
    "timedelta": {"type": "number", "description": "seconds"},
    "UUID": {"type": "string", "format": "uuid"},
    "Path": {"type": "string"},
    "Decimal": {"type": ["number", "string"]},
    "bytes": {"type": "string", "pattern": "^([0-9A-Fa-f]{2})*$"},
    "list": {"type": "array"},
    "tuple": {"type": "array"},
    "dict": {"type": "object"},
}
_ARRAYS = frozenset({"list", "List", "Sequence", "Iterable", "deque", "set", "frozenset", "Set", "FrozenSet"})
_OBJECTS = frozenset({"dict", "Dict", "Mapping"})

# What can go wrong with a call, by its status on the native door.
_OF_CALLS: tuple[ErrorKind, ...] = tuple(
    kind for kind in vars(errors).values() if isinstance(kind, ErrorKind) and kind is not errors.METHOD
)


def document(offers: Iterable[Offer], *, version: str) -> dict[str, object]:
    """The whole document."""
    paths: dict[str, object] = {}
    tags: dict[str, object] = {}
    described: dict[str, dict[str, EntrypointDescription]] = {}
    for offer in offers:
        agent = offer.agent
        if agent.id not in described:
            described[agent.id] = {e.tag: e for e in agent.description.entrypoints} if agent.description else {}
        path = f"/v1/agents/{_quoted(agent.id)}/entrypoints/{_quoted(offer.tag)}:invoke"
        paths[path] = {"post": _operation(offer, described[agent.id].get(offer.tag))}
        tags.setdefault(agent.name, _tag(agent))
    return {
        "openapi": VERSION,
        "info": {"title": "runagentd", "version": version, "description": "Agents in sandboxes, as functions."},
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "tags": list(tags.values()),
        "paths": {**paths, **_OTHERS},
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "a JWT of this daemon's, or an API key"}
            },
            "schemas": {"Problem": _PROBLEM_SCHEMA},
            "responses": {str(status): _response(status) for status in _statuses()},
        },
    }


# ---- one entrypoint


def _tag(agent: Agent) -> dict[str, object]:
    """All operations of agents of one name have the same tag; the first one's words stand for them."""
    text = agent.manifest.description
    return {"name": agent.name, **({"description": text} if text else {})}


def _operation(offer: Offer, described: EntrypointDescription | None) -> dict[str, object]:
    agent, entrypoint = offer.agent, offer.agent.entrypoints[offer.tag]
    arguments = _arguments(described)
    operation: dict[str, object] = {
        "operationId": f"{_word(agent.id)}_{_word(entrypoint.tag)}",
        "tags": [agent.name],
        "summary": f"{agent.name}: {entrypoint.tag}",
        "parameters": _HEADERS,
        "requestBody": {
            "required": bool(arguments.get("required")),  # no body is `{}`
            "content": {"application/json": {"schema": arguments}},
        },
        "responses": {
            "200": _success(described),
            **({"304": {"description": "the answer is the one whose ETag was sent"}} if entrypoint.cache else {}),
            **{str(status): {"$ref": f"#/components/responses/{status}"} for status in _statuses()},
        },
        "x-runagentd-limits": {
            "concurrency": agent.limits.concurrency,
            "queue": agent.limits.queue,
            "deadline_seconds": agent.deadline_ms(entrypoint.tag) / 1000,
            "request_bytes": agent.limits.request_bytes,
            "result_bytes": agent.limits.result_bytes,
            "rules": [_rule(rule) for rule in offer.rules],
        },
    }
    text = entrypoint.description or (described.doc if described is not None else None)
    if text:
        operation["description"] = text
    if entrypoint.cache is not None:
        rules = entrypoint.cache
        operation["x-runagentd-cache"] = {
            "ttl": rules.ttl, "stale_while_revalidate": rules.swr, "scope": rules.scope.value, "streams": rules.streams,
        }  # fmt: skip
    return operation


def _rule(rule: Rule) -> dict[str, object]:
    """What an operator has set for whoever or whatever it is for; what is not limited is not there."""
    found: dict[str, object] = {"for": rule.kind}
    if rule.rate is not None:
        found |= {"count": rule.rate.count, "seconds": rule.rate.seconds, "burst": rule.rate.burst}
    if rule.concurrency:
        found["concurrency"] = rule.concurrency
    if rule.daily:
        found["daily"] = rule.daily
    return found


def _arguments(described: EntrypointDescription | None) -> Schema:
    """What the body has to be: the function's parameters by their names."""
    if described is None:
        return {"type": "object", "description": "the agent has not been started yet: its parameters are not known"}
    properties: dict[str, object] = {}
    required = []
    by_position = []
    more = False
    for parameter in described.parameters:
        match parameter.kind:
            case "var_keyword":
                more = True
            case "var_positional" | "positional_only":
                by_position.append(parameter.name)
            case _:
                properties[parameter.name] = _parameter(parameter)
                if parameter.required:
                    required.append(parameter.name)
    schema: Schema = {"type": "object", "properties": properties, "additionalProperties": more}
    if by_position:
        schema["description"] = f"only RunAgent's protocol can give, by position: {', '.join(by_position)}"
    return schema | ({"required": required} if required else {})


def _parameter(parameter: Parameter) -> Schema:
    return {**_typed(parameter.type), **default_of(parameter)}


def _success(described: EntrypointDescription | None) -> dict[str, object]:
    result = _typed(described.returns if described is not None else None)
    streams = described is not None and described.streams is True
    content: dict[str, object] = {} if streams else {"application/json": {"schema": result}}
    if described is None or described.streams is not False:
        content["text/event-stream"] = {}  # OpenAPI 3.1 has no words for a sequence of events
    return {
        "description": "what the function returned; with 'Accept: text/event-stream', a stream of events "
        "'start', 'chunk', then 'done' or 'error'",
        "headers": _ANSWER_HEADERS,
        "content": content,
    }


# ---- types


def _typed(text: str | None) -> Schema:
    """A type's schema, and the words of its author: for a dataclass there is no schema, and its name says something."""
    return {**schema_of(text), **({"x-runagentd-type": text[:TYPE_CHARACTERS_MAX]} if text else {})}


@functools.lru_cache(maxsize=4096)
def schema_of(text: str | None) -> Schema:
    """The JSON Schema (2020-12) of a type as Python writes it; the schema of any value where it is not understood.

    Remembered, and not to be changed: what an agent calls a type can take a millisecond or two to read, a hundred
    times in one description, and the document is made anew for each who asks.
    """
    if not text or len(text) > TYPE_CHARACTERS_MAX:
        return {}
    try:
        return _schema(ast.parse(text, mode="eval").body, 0)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}


def _schema(node: ast.expr, depth: int) -> Schema:
    if depth > _DEPTH_MAX:
        return {}
    match node:
        case ast.Constant(value=None):
            return {"type": "null"}
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return dict(_PLAIN.get(name, {}))
        case ast.BinOp(op=ast.BitOr(), left=left, right=right):
            return _any_of([_schema(left, depth + 1), _schema(right, depth + 1)])
        case ast.Subscript(value=ast.Name(id=name) | ast.Attribute(attr=name), slice=inner):
            items = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            return _generic(name, items, depth + 1)
    return {}


def _generic(name: str, items: list[ast.expr], depth: int) -> Schema:
    if not items:
        return {}  # `list[()]`
    if name in _ARRAYS:
        return {"type": "array", "items": _schema(items[0], depth)}
    if name in _OBJECTS and len(items) == 2:
        return {"type": "object", "additionalProperties": _schema(items[1], depth)}
    if name in ("tuple", "Tuple"):
        if len(items) == 2 and isinstance(items[1], ast.Constant) and items[1].value is Ellipsis:
            return {"type": "array", "items": _schema(items[0], depth)}
        size, schemas = len(items), [_schema(item, depth) for item in items]
        return {"type": "array", "prefixItems": schemas, "minItems": size, "maxItems": size}
    if name == "Optional":
        return _any_of([_schema(items[0], depth), {"type": "null"}])
    if name == "Union":
        return _any_of([_schema(item, depth) for item in items])
    if name == "Literal":
        values = [item.value for item in items if isinstance(item, ast.Constant)]
        if len(values) == len(items) and all(isinstance(value, str | int | bool | None) for value in values):
            for value in values:
                if isinstance(value, str):
                    value.encode()  # half a surrogate pair has no form in JSON, and is a ValueError like another
            return {"enum": values}
    return {}


def _any_of(schemas: list[Schema]) -> Schema:
    flat: list[object] = []
    for schema in schemas:
        if not schema:
            return {}  # any value at all
        inner = schema.get("anyOf")
        flat += inner if isinstance(inner, list) else [schema]
    return {"anyOf": flat}


# ---- what is the same for all


def _statuses() -> list[int]:
    return sorted({kind.native_status for kind in _OF_CALLS})


def _response(status: int) -> dict[str, object]:
    kinds = [kind for kind in _OF_CALLS if kind.native_status == status]
    response: dict[str, object] = {
        # One a line: a title can have a semicolon in it.
        "description": "\n".join(dict.fromkeys(f"{kind.code}: {kind.title}" for kind in kinds)),
        "content": {_PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    headers: dict[str, object] = {}
    if status in (429, 503):
        headers["Retry-After"] = {"schema": {"type": "integer"}, "description": "seconds to wait"}
    if status in (401, 403):
        headers["WWW-Authenticate"] = {"schema": {"type": "string"}}
    return response | ({"headers": headers} if headers else {})


_PROBLEM_SCHEMA: Schema = {
    "type": "object",
    "description": "RFC 9457",
    "required": ["type", "title", "status", "code", "retryable", "request_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "enum": sorted({kind.code for kind in _OF_CALLS} | {errors.METHOD.code})},
        "retryable": {"type": "boolean"},
        "request_id": {"type": "string"},
        "instance": {"type": "string"},
        "hint": {"type": "string"},
        "cause": {"type": "string"},
        "limit": {"type": "string"},
        "exception": {"type": "string"},
        "traceback": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}


def _header(name: str, description: str, schema: Schema) -> dict[str, object]:
    return {"name": name, "in": "header", "required": False, "description": description, "schema": schema}


_HEADERS = [
    _header(
        "Idempotency-Key",
        "the call with this key runs once, for a day",
        {"type": "string", "pattern": "^[!#-~]{16,255}$"},
    ),
    _header(
        "Runagent-Timeout",
        "an earlier deadline than the entrypoint's",
        {"type": "string", "pattern": "^[1-9][0-9]{0,8}(ms|s|m)$"},
    ),
]
_ANSWER_HEADERS: dict[str, object] = {
    "X-Request-ID": {"schema": {"type": "string"}},
    "RateLimit": {"schema": {"type": "string"}, "description": "what is left, where limits are set"},
    "Cache-Status": {"schema": {"type": "string"}, "description": "where answers are kept (RFC 9211)"},
    "Idempotency-Replayed": {"schema": {"type": "string", "enum": ["true"]}},
}


def _get(summary: str, operation: str, *statuses: int, free: bool = False, **more: object) -> dict[str, object]:
    responses: dict[str, object] = {"200": {"description": summary, "content": {"application/json": {"schema": {}}}}}
    for status in statuses:
        responses[str(status)] = {"$ref": f"#/components/responses/{status}"}
    found: dict[str, object] = {"operationId": operation, "summary": summary, "responses": responses, **more}
    return {"get": found | ({"security": []} if free else {})}


_AGENT = {
    "name": "agent",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "description": "an id or a name",
}
_OTHERS: dict[str, object] = {
    "/v1/agents": _get("the agents that the caller may know of", "list_agents", 401, 429, 503),
    "/v1/agents/{agent}": _get("one agent", "show_agent", 400, 401, 404, 429, 503, parameters=[_AGENT]),
    "/v1/me": _get("who the caller is, and what is left of their limits", "show_me", 401, 429, 503),
    "/openapi.json": _get("this document", "show_openapi", 401, 429, 503),
    "/livez": _get("the gateway answers", "show_liveness", free=True),
    "/readyz": _get("calls are taken", "show_readiness", 503, free=True),
}


def _quoted(text: str) -> str:
    # Braces would begin a template.
    return urllib.parse.quote(text, safe="")


def _word(text: str) -> str:
    """Stable, and different for different texts."""
    return re.sub(r"[^A-Za-z0-9]", lambda match: f"_{ord(match[0]):x}_", text)
