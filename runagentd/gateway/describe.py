"""What a runner says about its entrypoints, as values.

Runs as: the gateway.
Reads from strangers: yes. The text was written by an agent; `parse` gives values or raises ChannelError.
"""

from __future__ import annotations

import msgspec

from runagentd.wire.channel import ChannelError

DEFAULT_DEPTH_MAX = 32


class Parameter(msgspec.Struct, frozen=True):
    """One parameter of a function; `type` is for people."""

    name: str
    kind: str = ""
    required: bool = False
    type: str | None = None
    default: str | None = None
    """JSON text, or what an agent that lies says in its place"""


class EntrypointDescription(msgspec.Struct, frozen=True):
    """One function as the runner found it."""

    tag: str
    parameters: list[Parameter] = []
    doc: str | None = None
    streams: bool | None = None
    asynchronous: bool | None = None
    returns: str | None = None


class Description(msgspec.Struct, frozen=True):
    """All that DESCRIBE says."""

    entrypoints: list[EntrypointDescription]
    import_ms: float = 0.0


class _Problem(msgspec.Struct, frozen=True):
    where: str = ""
    what: str = ""


class _Failure(msgspec.Struct, frozen=True):
    problems: list[_Problem] = []


_DESCRIPTION = msgspec.json.Decoder(Description)
_FAILURE = msgspec.json.Decoder(_Failure)


def parse(body: bytes) -> Description:
    """The description in the body of a DESCRIBE frame."""
    try:
        return _DESCRIPTION.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ChannelError("DESCRIBE does not have the right form") from error


def first_problem(body: bytes) -> str:
    """The first problem in the body of a FAILED frame, for a caller; ChannelError where it has another form."""
    try:
        problems = _FAILURE.decode(body).problems
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ChannelError("FAILED does not have the right form") from error
    if not problems:
        return "the agent cannot be loaded"
    return f"{problems[0].where}: {problems[0].what}"[:500]


def default_of(parameter: Parameter) -> dict[str, object]:
    """`default`, where the runner told one that is JSON and not too deep to be told on; nothing where not.

    What can just be read may be too deep to be written as a part of something else.
    """
    if parameter.default is None:
        return {}
    try:
        value = msgspec.json.decode(parameter.default)
    except (msgspec.MsgspecError, RecursionError):
        return {}
    return {"default": value} if _is_shallow(value, DEFAULT_DEPTH_MAX) else {}


def _is_shallow(value: object, depth: int) -> bool:
    if isinstance(value, dict):
        return depth > 0 and all(_is_shallow(each, depth - 1) for each in value.values())
    return not isinstance(value, list) or (depth > 0 and all(_is_shallow(each, depth - 1) for each in value))
