"""Trace context (W3C Trace Context, level 1): which trace a call belongs to, and what its function and caller are told.

Runs as: the gateway. Pure, but for chance.
Reads from strangers: yes, the fields `traceparent` and `tracestate`. What is not exactly of their form is as if it was
not there; what is goes on into the sandbox and into the log, so nothing else may.

A call that comes without a trace begins one. Its id is that of the request where that is a UUID: then whoever knows one
knows the other.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator

import msgspec

STATE_CHARACTERS_MAX = 512
"""Section 3.3.1.5: at least so many are passed on, and we pass on no more."""
MEMBER_CHARACTERS_MAX = 128
"""Longer ones go first where there are too many."""
_FIELD_CHARACTERS_MAX = 8 * 1024
_MEMBERS_MAX = 32
_SAMPLED = 0x01

# Section 3.2.2; a later version may have more after it (section 3.2.4).
_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
# Section 3.3.1; the key's form is that of level 2, which takes what level 1 does and more.
_MEMBER = re.compile(r"([a-z0-9][a-z0-9_*/@-]{0,255})=([ -+\--<>-~]{0,255}[!-+\--<>-~])")
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16


class Trace(msgspec.Struct, frozen=True):
    """One call's place in a trace. Ids are lower-case hexadecimal digits: 32 of a trace, 16 of a span."""

    id: str
    caller: str
    """the span of the caller's from which the call came; empty where none was told"""
    span: str
    """the call's own"""
    function: str
    """that of the function, within the call's"""
    sampled: bool
    recorded: bool
    """whether the spans are written down here"""
    state: str | None
    """tracestate"""

    @property
    def traceparent(self) -> str:
        """What the function is told: where nothing is recorded here, its parent is the caller's span."""
        parent = self.function if self.recorded else self.caller or self.span
        return f"00-{self.id}-{parent}-{'01' if self.sampled else '00'}"

    @property
    def traceresponse(self) -> str:
        """What the caller is told (Trace Context HTTP Response Headers, a W3C draft)."""
        return f"00-{self.id}-{self.span}-{'01' if self.sampled else '00'}"


class Tracer:
    """Gives each call its place. `recording` is whether spans are written down at all; `share` of the calls without a
    trace are, of those with one the ones whose caller has said so."""

    def __init__(self, *, recording: bool, share: float, chance: random.Random | None = None) -> None:
        self._recording = recording
        self._share = share
        self._bits: Callable[[int], int] = (chance or random).getrandbits
        self._spans = self._two_spans()
        self._draw: Callable[[], float] = (chance or random).random

    def begin(self, traceparent: str | None, tracestate: str | None, request_id: str) -> Trace:
        """The place of one call, by the fields that came with it."""
        span, function = next(self._spans)
        parent = None if traceparent is None else _parse(traceparent)
        if parent is None:
            sampled = self._recording and self._draw() < self._share
            return Trace(self._new_id(request_id), "", span, function, sampled, sampled, None)
        trace_id, caller, sampled = parent
        state = None if tracestate is None else parse_state(tracestate)
        return Trace(trace_id, caller, span, function, sampled, sampled and self._recording, state)

    def _two_spans(self) -> Iterator[tuple[str, str]]:
        """Ids of a call's and its function's span, none of which is zero. Many at a time cost a fifth of one by one."""
        while True:
            digits = f"{self._bits(64 * 128):02048x}"
            for start in range(0, len(digits), 32):
                span, function = digits[start : start + 16], digits[start + 16 : start + 32]
                if span != _NO_SPAN and function != _NO_SPAN:
                    yield span, function

    def _new_id(self, request_id: str) -> str:
        if len(request_id) == 36:
            digits = request_id.replace("-", "").lower()
            if digits != _NO_TRACE:
                return digits
        return f"{self._bits(128) or 1:032x}"


def _parse(field: str) -> tuple[str, str, bool] | None:
    match = _PARENT.fullmatch(field[:_FIELD_CHARACTERS_MAX].strip(" \t"))
    if match is None:
        return None
    version, trace_id, span, flags, more = match.groups()
    if version == "ff" or (version == "00" and more is not None) or trace_id == _NO_TRACE or span == _NO_SPAN:
        return None
    return trace_id, span, bool(int(flags, 16) & _SAMPLED)


def parse_state(field: str) -> str | None:
    """`tracestate` as it goes on: in one line, without empty members, at most STATE_CHARACTERS_MAX; None for none.

    One member that is not of the form, a key that is there twice, or more than 32 members: all of it goes.
    """
    if len(field) > _FIELD_CHARACTERS_MAX:
        return None
    members = [member for part in field.split(",") if (member := part.strip(" \t"))]
    keys = set()
    for member in members:
        match = _MEMBER.fullmatch(member)
        if match is None:
            return None
        keys.add(match[1])
    if len(keys) != len(members) or len(members) > _MEMBERS_MAX:
        return None
    if len(",".join(members)) > STATE_CHARACTERS_MAX:
        members = [member for member in members if len(member) <= MEMBER_CHARACTERS_MAX]
    while len(state := ",".join(members)) > STATE_CHARACTERS_MAX:
        members.pop()
    return state or None
