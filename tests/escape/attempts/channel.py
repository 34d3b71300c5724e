"""Breaches of the protocol by an agent that writes on the runner's own channel, behind the runner's back.

Runs as: the agent, within the runner's process; never outside.
Reads from strangers: nothing.

The agent shares a process with the runner, so the channel is its own as much as the runner's: all that the gateway may
believe of it is that its bytes come from this instance. Each breach must cost no more than its own instance and call.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
import sys
import time
import types
from collections.abc import Callable
from dataclasses import dataclass

from tests.escape.attempts.frame import Function

PROTOCOL = "PROTOCOL_ERROR"

# The frames of the channel, written down again: an attacker has no use for our constants.
CALL, CREDIT, HELLO, DESCRIBE, FAILED, RESULT, CHUNK, END, ERROR = 1, 2, 16, 17, 18, 32, 33, 34, 35
_STRING = b'{"type":"string"}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Breach:
    """One misuse. `codes`: how this call may end ("" is an ordinary answer); `causes`: why the instance then ended."""

    name: str
    idea: str
    run: Function
    codes: tuple[str, ...]
    causes: tuple[str, ...]


BREACHES: dict[str, Breach] = {}


def _breach(codes: str = PROTOCOL, causes: str = "protocol") -> Callable[[Callable[[], None]], Callable[[], None]]:
    def put(work: Callable[[], None]) -> Callable[[], None]:
        def run() -> str:
            work()
            return "the call goes on"

        BREACHES[work.__name__] = Breach(
            name=work.__name__,
            idea=(work.__doc__ or "").strip(),
            run=run,
            codes=tuple("" if code == "-" else code for code in codes.split()),
            causes=tuple("" if cause == "-" else cause for cause in causes.split()),
        )
        return work

    return put


def channel() -> int:
    """The descriptor of the channel: the stream socket among the first ones."""
    for number in range(3, 32):
        try:
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                with socket.socket(fileno=os.dup(number)) as one:
                    if one.type == socket.SOCK_STREAM:
                        return number
        except OSError:
            continue
    raise OSError("there is no channel")


def supply() -> int:
    """The other socket, over which new channels come."""
    for number in range(3, 32):
        try:
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                with socket.socket(fileno=os.dup(number)) as one:
                    if one.type == socket.SOCK_SEQPACKET:
                        return number
        except OSError:
            continue
    raise OSError("there is no supply")


def call_number() -> int:
    """The number of the call that we are in: it lies in a frame of the runner's, below us on the stack."""
    level: types.FrameType | None = sys._getframe()
    while level is not None:
        for value in level.f_locals.values():
            number, granted = getattr(value, "number", None), getattr(value, "granted", None)
            if isinstance(number, int) and isinstance(granted, int):
                return number
        level = level.f_back
    raise LookupError("no call on the stack")


def frame(kind: int, call: int, header: bytes = b"", body: bytes = b"") -> bytes:
    return struct.pack("!IBIH", 7 + len(header) + len(body), kind, call, len(header)) + header + body


def write(data: bytes) -> None:
    """All of it, on the channel."""
    descriptor = channel()
    while data:
        data = data[os.write(descriptor, data) :]


def _settle() -> None:
    """Wait to be ended; a moment only, since some breaches go unpunished."""
    time.sleep(3)


# ---- bytes that are no frames


@_breach()
def garbage() -> None:
    """Random bytes."""
    write(os.urandom(4096))
    _settle()


@_breach()
def a_huge_frame() -> None:
    """A length of four gibibytes: whoever allocates first and reads later is lost."""
    write(struct.pack("!IBIH", 0xFFFFFFFF, RESULT, 1, 0))
    _settle()


@_breach()
def a_header_longer_than_its_frame() -> None:
    """Two lengths that contradict each other."""
    write(struct.pack("!IBIH", 7, RESULT, 1, 60000))
    _settle()


@_breach()
def an_unknown_frame() -> None:
    """A type that nobody has given a meaning."""
    write(frame(200, call_number()))
    _settle()


@_breach()
def a_frame_of_the_gateways() -> None:
    """The gateway's own words, back to it."""
    write(frame(CALL, 1, b'{"tag":"echo"}', b"[[],{}]"))
    _settle()


@_breach()
def a_very_long_header() -> None:
    """A header of 40 KiB."""
    write(frame(ERROR, call_number(), b'{"kind":"exception","message":"' + b"x" * 40_000 + b'"}'))
    _settle()


# ---- lies about calls


@_breach()
def answer_for_a_call_that_is_not_there() -> None:
    """Somebody else's call, perhaps."""
    write(frame(RESULT, 0xFFFFFFF0, _STRING, b'"stolen"'))
    _settle()


@_breach(codes="-", causes="protocol")
def answer_twice() -> None:
    """The caller gets the first answer; the second is the breach."""
    number = call_number()
    write(frame(RESULT, number, _STRING, b'"first"') + frame(RESULT, number, _STRING, b'"second"'))
    _settle()


@_breach(codes="-", causes="protocol")
def answer_and_return() -> None:
    """The same, with the runner's own answer as the second."""
    write(frame(RESULT, call_number(), _STRING, b'"forged"'))


@_breach()
def chunks_for_a_single_answer() -> None:
    """A stream where one value was asked for."""
    write(frame(CHUNK, call_number(), _STRING, b'"x"') * 3)
    _settle()


@_breach()
def end_of_no_stream() -> None:
    """An end without a stream."""
    write(frame(END, call_number(), b'{"chunks":0}'))
    _settle()


# ---- results that are not what they say


def _result(body: bytes, header: bytes = _STRING) -> Callable[[], None]:
    def send() -> None:
        write(frame(RESULT, call_number(), header, body))
        _settle()

    return send


for _name, _idea, _body, _header in (
    ("no_json", "bytes that are no JSON", b"not json", _STRING),
    ("two_values", "two JSON values", b'"a" "b"', _STRING),
    ("nothing_at_all", "no value", b"", _STRING),
    ("a_raw_newline", "a newline would end an event of a stream", b'"a\nb"', _STRING),
    ("a_newline_between", "a newline outside of a string", b'[1,\n2]', b'{"type":"array"}'),
    ("invalid_utf8", "bytes that are no text", b'"\xff\xfe"', _STRING),
    ("not_a_number", "NaN, which Python's json reads and others do not", b"NaN", b'{"type":"number"}'),
    ("deep_nesting", "many brackets, for parsers that recurse", b"[" * 90_000 + b"]" * 90_000, b'{"type":"array"}'),
    ("an_unknown_type", "a type that is not in the protocol", b"1", b'{"type":"secret"}'),
    ("no_type", "a header without a type", b"1", b"{}"),
    ("a_type_that_is_a_list", "a type that is not text", b"1", b'{"type":["string"]}'),
    ("a_header_that_is_a_list", "a header that is no object", b"1", b"[]"),
    ("a_header_that_is_no_json", "a header that is no JSON", b"1", b"{{{"),
):  # fmt: skip
    _send = _result(_body, _header)
    _send.__name__, _send.__doc__ = _name, _idea
    _breach()(_send)


def _error(header: bytes) -> Callable[[], None]:
    def send() -> None:
        write(frame(ERROR, call_number(), header))
        _settle()

    return send


for _name, _idea, _header in (
    ("an_error_of_an_unknown_kind", "a kind that is not in the table", b'{"kind":"daemon","message":"x"}'),
    ("an_error_without_a_message", "half an error", b'{"kind":"exception"}'),
    ("an_error_whose_message_is_a_number", "not text", b'{"kind":"exception","message":1}'),
):
    _send = _error(_header)
    _send.__name__, _send.__doc__ = _name, _idea
    _breach()(_send)


# ---- lies about ourselves


@_breach()
def greet_again() -> None:
    """A second HELLO in the middle of a channel."""
    write(frame(HELLO, 0, b'{"version":1}'))
    _settle()


@_breach()
def describe_too_much() -> None:
    """A description of a mebibyte."""
    write(frame(DESCRIBE, 0, b"", b'{"import_ms":1,"entrypoints":[],"x":"' + b"x" * (1 << 20) + b'"}'))
    _settle()


@_breach()
def describe_again() -> None:
    """Other entrypoints than before."""
    write(frame(DESCRIBE, 0, b"", b'{"import_ms":1,"entrypoints":[]}'))
    _settle()


@_breach(codes="PROTOCOL_ERROR IMPORT_ERROR INSTANCE_DIED UNAVAILABLE", causes="protocol import")
def fail_after_all() -> None:
    """FAILED from an agent that is already serving."""
    write(frame(FAILED, 0, b"", b'{"problems":[{"where":"x","what":"y","hints":[]}]}'))
    _settle()


# ---- too much, too little


@_breach(codes="PROTOCOL_ERROR RESULT_TOO_LARGE", causes="protocol")
def flood() -> None:
    """Frames without end, as fast as the socket takes them."""
    piece = frame(CHUNK, call_number(), _STRING, b'"' + b"x" * 60_000 + b'"') * 16
    end = time.monotonic() + 10
    while time.monotonic() < end:
        write(piece)


@_breach(codes="PROTOCOL_ERROR INSTANCE_DIED", causes="protocol exit")
def close_the_channel() -> None:
    """Silence of the firm kind."""
    with socket.socket(fileno=os.dup(channel())) as one:
        one.shutdown(socket.SHUT_RDWR)
    _settle()


@_breach(codes="PROTOCOL_ERROR INSTANCE_DIED", causes="protocol exit")
def close_half_of_the_channel() -> None:
    """No more from us; we still listen."""
    with socket.socket(fileno=os.dup(channel())) as one:
        one.shutdown(socket.SHUT_WR)
    _settle()


@_breach(codes="TIMEOUT_ERROR", causes="deadline protocol")
def half_a_frame_and_silence() -> None:
    """The gateway waits for the rest, but not for ever."""
    write(frame(RESULT, call_number(), _STRING, b'"' + b"x" * 1000 + b'"')[:500])
    time.sleep(30)


@_breach(codes="PROTOCOL_ERROR TIMEOUT_ERROR", causes="protocol deadline")
def half_a_frame_and_an_answer() -> None:
    """The runner's own frame becomes the middle of ours."""
    write(frame(RESULT, call_number(), _STRING, b'"' + b"x" * 1000 + b'"')[:500])


# ---- descriptors


@_breach(codes="- PROTOCOL_ERROR", causes="protocol")
def pass_descriptors() -> None:
    """Descriptors beside the bytes of an answer: whoever receives with room for some collects them.

    The runner's own answer is the second one, which ends the instance; the gateway must not have kept a descriptor.
    """
    answer = frame(RESULT, call_number(), _STRING, b'"with descriptors"')
    with socket.socket(fileno=os.dup(channel())) as one:
        held = [os.open("/dev/null", os.O_RDONLY) for _ in range(50)]
        socket.send_fds(one, [answer[:1]], held)
        for byte in answer[1:]:
            socket.send_fds(one, [bytes([byte])], held)


@_breach(codes="-", causes="- protocol exit")
def write_on_the_supply() -> None:
    """The supervisor never reads that socket; what is written there must go nowhere and wake nobody."""
    with socket.socket(fileno=os.dup(supply())) as one:
        one.setblocking(False)
        try:
            for _ in range(10_000):
                socket.send_fds(one, [b"C" * 4096], [0, 1, 2])
        except OSError:
            pass


@_breach(codes="-", causes="-")
def flood_standard_output() -> None:
    """Sixteen mebibytes of log, in one line: cut, and the rest dropped with a word about it."""
    for _ in range(256):
        sys.stdout.write("x" * 65_536)
    print()


@_breach(codes="-", causes="-")
def forge_the_log() -> None:
    """Control characters and newlines that would look like lines of the daemon's own."""
    print("\x1b[2J\x1b]0;owned\x07\r\n2026-01-01 error supervisor everything is fine\x00\x85\u2028next")


def beyond_the_credits() -> None:
    """In a stream: a thousand chunks that nobody asked for."""
    write(frame(CHUNK, call_number(), _STRING, b'"x"') * 1000)
    _settle()
