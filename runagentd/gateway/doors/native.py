"""The native door: one JSON object of keyword arguments in, the bare result out; problems as RFC 9457.

Runs as: the gateway.
Reads from strangers: requests; every way in which one can be wrong is a `Refusal`.
Only translates: what a call may do is the pipeline's business.
"""

from __future__ import annotations

import math
import re

import msgspec

from runagentd import errors
from runagentd.errors import Refusal
from runagentd.gateway.agents import Agent
from runagentd.gateway.calls import Mode
from runagentd.gateway.describe import default_of
from runagentd.gateway.doors import sse
from runagentd.gateway.doors.problems import problem
from runagentd.gateway.exchange import JSON, Exchange, Reply
from runagentd.gateway.guard.identity import Credentials, Principal
from runagentd.gateway.pipeline import Pipeline, View
from runagentd.gateway.requests import Decoded, Request
from runagentd.gateway.values import is_json_object
from runagentd.log import utc

EVENT_STREAM = "text/event-stream"
_ROUTE = "POST /v1/agents/{agent}/entrypoints/{entrypoint}:invoke"

_TIMEOUT = re.compile(r"([0-9]{1,9})(ms|s|m)")
_UNIT_MS = {"ms": 1, "s": 1000, "m": 60_000}
_ENCODE = msgspec.json.Encoder().encode


class NativeDoor:
    """`answer` takes every exchange below /v1."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    async def answer(self, exchange: Exchange, segments: tuple[str, ...]) -> Reply | None:
        """Everything this door knows, by the path after `v1`."""
        try:
            # Nearly all requests are calls, so they do not stand in line.
            if len(segments) == 4 and segments[0] == "agents" and segments[2] == "entrypoints":
                tag, _, action = segments[3].rpartition(":")
                if action == "invoke" and tag:
                    check_method(exchange, "POST")
                    return await self._invoke(exchange, segments[1], tag)
            match segments:
                case ("me",):
                    check_method(exchange, "GET")
                    return me(*await self._pipeline.me(credentials(exchange)))
                case ("agents",):
                    check_method(exchange, "GET")
                    agents = await self._pipeline.visible_all(credentials(exchange))
                    return Reply(200, _ENCODE({"agents": [summary(view) for view in agents]}))
                case ("agents", agent):
                    check_method(exchange, "GET")
                    return show(await self._pipeline.visible(credentials(exchange), agent))
            raise Refusal(errors.NOT_FOUND, "there is nothing at this path")
        except Refusal as refusal:
            return problem(refusal.settle(), exchange.id)

    # ---- calls

    async def _invoke(self, exchange: Exchange, agent: str, tag: str) -> Reply | None:
        streaming = _accepts_events(exchange.header("accept"))

        async def decode(limit: int) -> Decoded:
            timeout_ms = timeout_of(exchange.header("runagent-timeout"))
            arguments = kwargs_of(
                exchange.header("content-type"), exchange.header("content-encoding"), await exchange.read_body(limit)
            )
            return Decoded(tag, Mode.STREAM if streaming else Mode.SINGLE, arguments, timeout_ms)

        shown = credentials(exchange)
        request = Request(
            exchange.id,
            "native",
            shown.address,
            shown,
            agent,
            exchange.arrived,
            exchange.declared_bytes,
            decode,
            exchange.header("traceparent"),
            exchange.header("tracestate"),
            exchange.header("idempotency-key"),
            exchange.header("cache-control"),
            exchange.header("user-agent"),
            _ROUTE,
            exchange.path,
        )
        with self._pipeline.begin(request) as running:
            await running.start()
            if streaming:
                return await sse.respond(exchange, running)
            value = await running.next()
        if unchanged(running.headers.get("ETag"), exchange.header("if-none-match")):
            return Reply(304, b"", headers=running.headers)
        return Reply(200, value.body if value is not None else b"null", JSON, running.headers)


def unchanged(etag: str | None, field: str | None) -> bool:
    """Whether the client has this answer already (RFC 9110, section 13.1.2).

    There only GET and HEAD are answered with 304. Here POST is, too, where an entrypoint's author has declared its
    answers kept: it is then as safe as a GET, and 412 would be of no use to anybody.
    """
    if etag is None or field is None:
        return False
    return field.strip() == "*" or etag in (part.strip().removeprefix("W/") for part in field[:4096].split(","))


def me(principal: Principal, limits: list[dict[str, object]]) -> Reply:
    """Who the caller is to us, and what is left of what they may do."""
    until = min(principal.expires, principal.says)
    expires = None if math.isinf(until) else utc(until)
    shown = {
        "subject": principal.subject,
        "tenant": principal.tenant,
        "issuer": principal.issuer,
        "token_id": principal.token_id,
        "scopes": principal.scopes,
        "expires": expires,
        "limits": limits,
    }
    return Reply(200, _ENCODE(shown))


# ---- what a request says


def check_method(exchange: Exchange, *methods: str) -> None:
    """`Refusal` METHOD, with Allow (RFC 9110, section 15.5.6), for another one."""
    if exchange.method not in methods:
        allowed = ", ".join(methods)
        raise Refusal(
            errors.METHOD, f"this path takes {allowed} and not {exchange.method[:20]!r}", headers={"Allow": allowed}
        )


def bearer(exchange: Exchange) -> str | None:
    """The token in `Authorization: Bearer TOKEN` (RFC 6750; the scheme's case does not matter)."""
    field = exchange.header("authorization")
    if field is None:
        return None
    scheme, _, token = field.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def credentials(exchange: Exchange) -> Credentials:
    """What the client shows of itself."""
    found = exchange.found
    if found.credentials is None:
        found.credentials = Credentials(bearer(exchange), exchange.certificate, exchange.peer)
    return found.credentials


def _accepts_events(accept: str | None) -> bool:
    if accept is None or EVENT_STREAM not in accept:
        return False
    return any(part.partition(";")[0].strip().lower() == EVENT_STREAM for part in accept.split(","))


def timeout_of(field: str | None) -> int | None:
    """`Runagent-Timeout: 500ms`, `30s`, `2m`, in milliseconds."""
    if field is None:
        return None
    match = _TIMEOUT.fullmatch(field.strip())
    if match is None or int(match[1]) == 0:
        raise Refusal(
            errors.MALFORMED, "the header Runagent-Timeout is not a duration", hint='write "500ms", "30s" or "2m"'
        )
    return int(match[1]) * _UNIT_MS[match[2]]


def kwargs_of(content_type: str | None, content_encoding: str | None, body: bytes) -> bytes:
    """The JSON text `[[], kwargs]` for a body that is one JSON object, or nothing."""
    if content_encoding not in (None, "", "identity"):
        raise Refusal(errors.MEDIA_TYPE, "the body must not be compressed")
    if not body or body.isspace():
        return b"[[],{}]"
    kind = (content_type or "application/json").partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise Refusal(errors.MEDIA_TYPE, f"the body must be application/json and not {kind[:80]!r}")
    if not is_json_object(body):
        if body.lstrip()[:1] in (b"{", b""):
            raise Refusal(errors.MALFORMED, "the body is not JSON in UTF-8")
        raise Refusal(
            errors.BODY, "the body must be one JSON object, whose members are the function's keyword arguments"
        )
    return b"[[],%b]" % body


# ---- what agents look like


def show(view: View) -> Reply:
    """All about one agent."""
    return Reply(200, _ENCODE({**summary(view), "entrypoints": entrypoints(view), "limits": limits(view.agent)}))


def summary(view: View) -> dict[str, object]:
    """One agent in a list."""
    agent = view.agent
    return {
        "id": agent.id,
        "name": agent.name,
        "description": agent.manifest.description,
        "framework": agent.manifest.framework,
        "version": agent.manifest.version,
        "digest": agent.version,
        "policy": agent.policy,
        "state": agent.state(),
        "tags": [tag for tag in agent.entrypoints if tag in view.tags],
    }


def entrypoints(view: View) -> list[dict[str, object]]:
    """What can be called, with what the runner has found out about it; before the first start only the tags."""
    agent = view.agent
    described = {entry.tag: entry for entry in agent.description.entrypoints} if agent.description is not None else {}
    rows: list[dict[str, object]] = []
    for tag, entrypoint in agent.entrypoints.items():
        if tag not in view.tags:
            continue
        found = described.get(tag)
        row: dict[str, object] = {
            "tag": tag,
            "description": entrypoint.description,
            "deadline_seconds": agent.deadline_ms(tag) / 1000,
        }
        if found is not None:
            row |= {
                "doc": found.doc,
                "parameters": [
                    {"name": p.name, "kind": p.kind, "required": p.required, "type": p.type, **default_of(p)}
                    for p in found.parameters
                ],
                "returns": found.returns,
                "streams": found.streams,
                "asynchronous": found.asynchronous,
            }
        rows.append(row)
    return rows


def limits(agent: Agent) -> dict[str, object]:
    """The part of the policy that a caller meets."""
    bounds = agent.limits
    return {
        "concurrency": bounds.concurrency,
        "queue": bounds.queue,
        "deadline_seconds": bounds.deadline_ms / 1000,
        "request_bytes": bounds.request_bytes,
        "result_bytes": bounds.result_bytes,
    }
