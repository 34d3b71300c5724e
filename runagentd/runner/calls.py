"""One call, from its CALL frame to its closing frame, without saying on which thread which part runs.

Runs as: the runner, in the sandbox.
Reads from strangers: yes, a caller's arguments and whatever the agent's function gives back.
"""

from __future__ import annotations

import asyncio
import collections.abc
import json
import os
import sys
import time
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from runagentd.runner import failure, hints, told, values
from runagentd.runner.entrypoints import Target
from runagentd.runner.handover import Limits
from runagentd.runner.parameters import WrongArgument
from runagentd.runner.values import Unserialisable
from runagentd.wire.channel import FRAME_BYTES_MAX, CallErrorKind, EndCause, Frame, RawFrame, pack

_RESULT_BYTES_MAX = FRAME_BYTES_MAX - 64 * 1024
_POINTER_BYTES_MAX = 2048
_LOGGED_TRACEBACK_BYTES = 16 * 1024
_HINT_BYTES_MAX = 1024
_NAME_BYTES_MAX = 1024
_AWAITS_MAX = 8

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_HEADERS = {
    name: b'{"type":"%s"}' % name.encode()
    for name in ("string", "integer", "number", "boolean", "array", "object", "null")
}
_VALUES = frozenset({str, int, float, bool, type(None), dict, list, tuple})
_now = time.monotonic
Cancelled = asyncio.CancelledError
"""What a plain function sees when its call is cancelled: the name that an agent's author can look up and catch."""

Encoded = tuple[str, bytes]
"""The type of a value in RunAgent's words, and its JSON."""


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


_decoder = json.JSONDecoder(parse_constant=_refuse_constant)
_decode: Callable[[str], Any] = _decoder.decode
# Without the two searches for white space around the value, a third of the time of so short a text.
_scan: Callable[[str, int], tuple[Any, int]] = _decoder.scan_once  # type: ignore[attr-defined]  # JSONDecoder.raw_decode's own


class BadHeader(ValueError):
    """A header that no gateway writes; the channel is of no further use."""


class TooLarge(Exception):
    """A result is larger than the policy allows."""


class NotSingle(Exception):
    """A single result was asked for, and there is a stream."""


@dataclass(slots=True)
class Call:
    """One open call. `granted` is written by whoever reads the channel, `chunks` by whoever runs the function."""

    number: int
    target: Target | None
    tag: str
    stream: bool
    granted: int
    body: bytes
    header: dict[str, Any]
    arrived: float
    """on time.monotonic()"""
    chunks: int = 0
    cancelled: bool = False
    closed: bool = False
    """cancelled before it began, and its caller told"""


@dataclass(frozen=True, slots=True)
class Unfinished:
    """What the function returned is not the result: something to await or to iterate over."""

    value: Any


def opened(frame: RawFrame, targets: dict[str, Target]) -> Call:
    """The call that a CALL frame asks for."""
    header = _header(frame)
    tag, credits = header.get("tag"), header.get("credits", 0)
    if not isinstance(tag, str):
        raise BadHeader(f"a call has the tag {tag!r:.80}")
    return Call(
        number=frame.call,
        target=targets.get(tag),
        tag=tag,
        stream=header.get("mode") == "stream",
        granted=credits if type(credits) is int else 0,
        body=frame.body,
        header=header,
        arrived=_now(),
    )


def _header(frame: RawFrame) -> dict[str, Any]:
    try:
        text = frame.header.decode("utf-8")
        header, end = _scan(text, 0)
    except (ValueError, StopIteration, RecursionError) as error:
        raise BadHeader("a header is no JSON") from error
    if not isinstance(header, dict) or end != len(text):
        raise BadHeader("a header is no object")
    return header


def credits_of(frame: RawFrame) -> int:
    """How many chunks a CREDIT frame allows."""
    credits = _header(frame).get("credits", 0)
    return credits if type(credits) is int and credits > 0 else 0


def evaluate(call: Call, limits: Limits) -> Encoded | Unfinished:
    """Bind the arguments, call the function, encode what it returned; all of it may run the agent's code."""
    target = call.target
    if target is None:
        raise LookupError(call.tag)
    args, kwargs = target.parameters.bind(*_arguments(call.body))
    told.current.set(call)
    if target.told.wanted:
        told.tell(call)
    value = target.function(*args, **kwargs)
    if type(value) not in _VALUES and is_unfinished(value):
        return Unfinished(value)
    return encode(call, value, limits)


def _arguments(body: bytes) -> tuple[list[Any], dict[str, Any]]:
    try:
        args, kwargs = _decode(body.decode("utf-8"))
    except RecursionError as error:
        raise WrongArgument([], "the arguments are nested too deeply") from error
    except (ValueError, TypeError) as error:
        raise WrongArgument([], f"the arguments cannot be read: {error}") from error
    if type(args) is not list or type(kwargs) is not dict:
        raise WrongArgument([], "input_args must be an array and input_kwargs an object")
    return args, kwargs


def encode(call: Call, value: Any, limits: Limits) -> Encoded:
    """A result or a chunk as JSON, through the entrypoint's extractor where it has one."""
    target = call.target
    if target is not None and target.extractor:
        plain = values.normalise(value)
        value = {name: path.first(plain) for name, path in target.extractor}
    encoded = values.encode(value)
    allowed = min(limits.result_bytes, _RESULT_BYTES_MAX)
    if len(encoded[1]) > allowed:
        raise TooLarge(f"the result has {len(encoded[1])} bytes; the policy allows {allowed}")
    return encoded


def is_unfinished(value: Any) -> bool:
    """Whether a value stands for others: an awaitable, an iterator, an asynchronous iterable."""
    return is_awaitable(value) or is_stream(value)


def is_awaitable(value: Any) -> bool:
    """Whether `await` takes it; a class of values with such methods is a value itself."""
    return isinstance(value, collections.abc.Awaitable) or (
        isinstance(value, types.GeneratorType) and bool(value.gi_code.co_flags & 0x100)  # CO_ITERABLE_COROUTINE
    )


def is_stream(value: Any) -> bool:
    """Whether it gives its items one at a time."""
    return is_asynchronous_stream(value) or isinstance(value, collections.abc.Iterator)


def is_asynchronous_stream(value: Any) -> bool:
    """Whether `async for` takes it."""
    return isinstance(value, collections.abc.AsyncIterable) and not isinstance(value, type)


async def settled(value: Any) -> Any:
    """What remains after awaiting; a function may return an awaitable of an awaitable."""
    for _ in range(_AWAITS_MAX):
        if not is_awaitable(value):
            return value
        value = await value
    raise RecursionError("the function returned awaitables without end")


def close(iterator: Any) -> None:
    """End a generator: GeneratorExit at its `yield`. Whatever else it then does, it is not run any more."""
    finish = getattr(iterator, "close", None)
    if callable(finish):
        try:
            finish()
        except BaseException:  # noqa: BLE001  ("generator ignored GeneratorExit", sys.exit() in a finally)
            return


async def aclose(iterator: Any) -> None:
    """The same for an asynchronous generator."""
    finish = getattr(iterator, "aclose", None)
    if callable(finish):
        try:
            await finish()
        except BaseException:  # noqa: BLE001  (as above)
            return


def result_frame(call: Call, encoded: Encoded) -> bytes:
    return pack(Frame.RESULT, call.number, _HEADERS[encoded[0]], encoded[1])


def chunk_frame(call: Call, encoded: Encoded) -> bytes:
    return pack(Frame.CHUNK, call.number, _HEADERS[encoded[0]], encoded[1])


def end_frame(call: Call) -> bytes:
    return pack(Frame.END, call.number, b'{"chunks":%d}' % call.chunks)


def whole_stream(call: Call, encoded: Encoded) -> bytes:
    """A plain value where a stream was asked for: one chunk and the end."""
    call.chunks += 1
    return chunk_frame(call, encoded) + end_frame(call)


def error_frame(call: Call, error: BaseException, limits: Limits) -> bytes:
    """The closing frame of a call that ended with an exception."""
    if call.cancelled:
        return cancelled_frame(call)
    match error:
        case WrongArgument():
            return _error(call, CallErrorKind.ARGUMENT, error.what, pointer=error.pointer)
        case Unserialisable():
            return _error(call, CallErrorKind.UNSERIALISABLE, str(error))
        case TooLarge():
            return _error(call, CallErrorKind.TOO_LARGE, str(error))
        case NotSingle():
            # What to do about it differs between the doors, and they say it.
            return _error(call, CallErrorKind.STREAMS, str(error))
        case LookupError() if call.target is None:
            return _error(call, CallErrorKind.UNKNOWN_TAG, f"there is no entrypoint '{call.tag[:200]}'")
    try:
        text = failure.traceback_text(error).encode("utf-8", "replace")
        # To the agent's log always, for its author; to the caller only where the policy says so.
        _write_to_log(text, hints.hint(error))
        body = text if limits.traceback else b""
        return _error(call, CallErrorKind.EXCEPTION, failure.message(error), type=failure.type_name(error), body=body)
    except (RecursionError, MemoryError):
        return _error(call, CallErrorKind.EXCEPTION, "the error itself could not be read", type=type(error).__name__)


def _write_to_log(text: bytes, hint: str) -> None:
    """To descriptor 2 and not to sys.stderr, which is the agent's to replace; what does not fit into it is cut."""
    told_beside = f"runagentd: hint: {hint}\n".encode() if hint else b""
    try:
        os.write(2, text[:_LOGGED_TRACEBACK_BYTES] + b"\n" + told_beside)
    except OSError:
        pass  # the agent may have closed it


def cancelled_frame(call: Call) -> bytes:
    return _error(call, CallErrorKind.CANCELLED, "the call was cancelled")


def cancelled_number(number: int) -> bytes:
    """The same for a call that only its number is known of."""
    return pack(Frame.ERROR, number, b'{"kind":"cancelled","message":"the call was cancelled"}')


def died_frame(number: int, cause: EndCause, message: str) -> bytes:
    """The closing frame of a call whose own process has ended."""
    text = failure.json_text(message, failure.MESSAGE_BYTES_MAX)
    return pack(Frame.ERROR, number, b'{"kind":"died","cause":"%s","message":%s}' % (cause.value.encode(), text))


def not_single(value: Any) -> NotSingle:
    return NotSingle(f"the function returned a stream ({type(value).__name__}), and one result was asked for")


def _error(
    call: Call,
    kind: CallErrorKind,
    message: str,
    *,
    type: str | None = None,
    pointer: str | None = None,
    hint: str | None = None,
    body: bytes = b"",
) -> bytes:
    members = [
        b'"kind":"%s"' % kind.value.encode(),
        b'"message":' + failure.json_text(message, failure.MESSAGE_BYTES_MAX),
    ]
    for name, text, limit in (
        (b"type", type, _NAME_BYTES_MAX), (b"pointer", pointer, _POINTER_BYTES_MAX), (b"hint", hint, _HINT_BYTES_MAX),
    ):  # fmt: skip
        if text is not None:
            members.append(b'"%s":%s' % (name, failure.json_text(text, limit)))
    return pack(Frame.ERROR, call.number, b"{" + b",".join(members) + b"}", body)


def flush_output() -> None:
    """What a call printed is out before its closing frame."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BaseException:  # noqa: BLE001  (whatever the agent put there)
            continue
