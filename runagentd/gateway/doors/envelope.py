"""RunAgent's envelope and stream frames, built around a result's bytes without parsing them.

Runs as: the gateway. Pure.
Reads from strangers: nothing; results were checked to be JSON, messages are encoded here.
The shapes are those that all of RunAgent's clients read (docs/api.md): `data` and `content` are strings of JSON;
`detail`, `message` and a frame's `error` are strings; `details` is a string or null.
"""

from __future__ import annotations

import datetime

import msgspec

from runagentd import errors
from runagentd.errors import Refusal
from runagentd.gateway.values import Value

_ENCODE = msgspec.json.Encoder().encode


def _timestamp() -> bytes:
    # Local time without a zone, as RunAgent's own server writes it.
    now = datetime.datetime.now(datetime.UTC).astimezone().replace(tzinfo=None)
    return now.isoformat().encode("ascii")


def typed(value: Value) -> bytes:
    """`{"type", "payload"}` as a JSON string: the value's JSON text, encoded as JSON text twice over."""
    payload = _ENCODE(value.body.decode("utf-8"))
    return _ENCODE((b'{"type": "%b", "payload": %b}' % (value.type.encode("ascii"), payload)).decode("utf-8"))


def success(data: bytes, message: str, request_id: str) -> bytes:
    """The envelope of an answer; `data` is JSON text, for a call that of a string."""
    return b'{"success":true,"data":%b,"message":%b,"error":null,"timestamp":"%b","request_id":"%b"}' % (
        data,
        _ENCODE(message),
        _timestamp(),
        request_id.encode("ascii"),
    )


def failure(refusal: Refusal, request_id: str) -> bytes:
    """The one error body that every client reads well."""
    message = error_message(refusal)
    return _ENCODE(
        {
            "success": False,
            "data": None,
            "message": message,
            "detail": message,
            "error": {
                "code": refusal.kind.code,
                "type": refusal.kind.concept,
                "message": message,
                "suggestion": suggestion(refusal),
                "details": refusal.traceback,
                "field": None,
            },
            "timestamp": _timestamp().decode("ascii"),
            "request_id": request_id,
        }
    )


def error_message(refusal: Refusal) -> str:
    """The exception's type before its text, and the place of a wrong argument after it: no field would reach all."""
    message = refusal.message
    if refusal.kind is errors.FUNCTION and refusal.exception_type is not None:
        message = f"{refusal.exception_type}: {message}" if message else refusal.exception_type
    if refusal.pointer and refusal.pointer not in message:
        message = f"{message} (at {refusal.pointer})"
    return message


def suggestion(refusal: Refusal) -> str | None:
    """What the caller can do."""
    if refusal.hint is None and refusal.kind is errors.FUNCTION:
        # Where there is none, the Python client makes one up from the words of the message: an exception that says
        # "permission" then sends its caller to RunAgent's dashboard (seen with runagent 0.1.49).
        return "the agent's own function raised this: look at its arguments, or ask its author"
    if refusal.hint is None and refusal.kind is errors.STREAMS:
        return "give the function an entrypoint whose tag ends in '_stream', and call that one"
    return refusal.hint


# ---- frames of the WebSocket


def started(invocation_id: str) -> bytes:
    """The first frame."""
    return b'{"type":"status","status":"stream_started","invocation_id":"%b"}' % invocation_id.encode("ascii")


def chunk(value: Value) -> bytes:
    """One chunk."""
    return b'{"type":"data","content":%b}' % typed(value)


def completed(invocation_id: str, *, chunks: int, seconds: float) -> bytes:
    """The last frame of a stream that is complete."""
    return _ENCODE(
        {
            "type": "status",
            "status": "stream_completed",
            "total_chunks": chunks,
            "execution_time": round(seconds, 6),
            "invocation_id": invocation_id,
        }
    )


def error_frame(refusal: Refusal) -> bytes:
    """The one error frame that every client reads as well as it can."""
    message = error_message(refusal)
    return _ENCODE(
        {
            "type": "error",
            "error": message,
            "detail": message,
            "code": refusal.kind.code,
            "message": message,
            "suggestion": suggestion(refusal),
        }
    )
