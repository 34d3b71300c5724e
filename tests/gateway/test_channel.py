"""Any bytes from a runner: events of open calls, or one violation of the protocol. Never an exception."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runagentd.errors import Refusal
from runagentd.gateway.calls import Asked, Call, Mode, State
from runagentd.gateway.channel import Channel
from runagentd.wire import channel as wire
from runagentd.wire.channel import ChannelError, Frame
from tests.fakes_gateway import TRACE

RESULT_BYTES = 4096


class Owner:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def described(self, body: bytes) -> None:
        if body == b"refuse":
            raise ChannelError("DESCRIBE does not have the right form")
        self.notes.append("described")

    def import_failed(self, body: bytes) -> None:
        self.notes.append("failed")

    def closed(self, call: Call) -> None:
        self.notes.append(f"closed {call.number}")

    def writable(self) -> None:
        self.notes.append("writable")

    def violated(self, reason: str) -> None:
        self.notes.append(f"violated: {reason}")

    def lost(self) -> None:
        self.notes.append("lost")


class Transport:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written = b""
        self.aborted = False

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def write(self, data: bytes) -> None:
        self.written += data

    def abort(self) -> None:
        self.aborted = True


def asked(mode: Mode) -> Asked:
    return Asked(
        request_id="r",
        tag="say",
        mode=mode,
        arguments=b"[[],{}]",
        deadline=10.0,
        principal="p",
        caller="p",
        traceparent=TRACE.traceparent,
    )


def on_channel(
    steps: Callable[[Channel, Owner, Transport, Call, Call], None],
) -> tuple[Owner, Transport, Call, Call]:
    """A channel with HELLO and DESCRIBE done and two open calls, 1 single and 2 stream, and `steps` done to it."""

    async def run() -> tuple[Owner, Transport, Call, Call]:
        owner, transport = Owner(), Transport()
        channel = Channel(owner, result_bytes=RESULT_BYTES, traceback=False)
        channel.connection_made(cast(asyncio.Transport, transport))
        channel.data_received(wire.pack(Frame.HELLO, 0, b'{"version":1}') + wire.pack(Frame.DESCRIBE, 0, b"", b"{}"))
        single, stream = Call(asked(Mode.SINGLE)), Call(asked(Mode.STREAM))
        channel.start(single, now=0.0)
        channel.start(stream, now=0.0)
        steps(channel, owner, transport, single, stream)
        await asyncio.sleep(0)
        return owner, transport, single, stream

    return asyncio.run(run())


def frame(type: Frame, call: int, header: object = None, body: bytes = b"") -> bytes:
    return wire.pack(type, call, b"" if header is None else json.dumps(header).encode(), body)


RESULT = frame(Frame.RESULT, 1, {"type": "integer"}, b"1")
CHUNK = frame(Frame.CHUNK, 2, {"type": "integer"}, b"1")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (frame(Frame.HELLO, 0, {"version": 1}), "a second HELLO"),
        (frame(Frame.DESCRIBE, 0, None, b"{}"), "a second DESCRIBE"),
        (frame(Frame.FAILED, 0, None, b"{}"), "a second FAILED"),
        (RESULT + RESULT, "RESULT for a call that is not open"),
        (frame(Frame.RESULT, 3, {"type": "integer"}, b"1"), "RESULT for a call that is not open"),
        (frame(Frame.ERROR, 77, {"kind": "exception", "message": ""}), "ERROR for a call that is not open"),
        (frame(Frame.CHUNK, 1, {"type": "integer"}, b"1"), "CHUNK without a credit"),
        (CHUNK * 5, "CHUNK without a credit"),
        (CHUNK + frame(Frame.RESULT, 2, {"type": "integer"}, b"1"), "RESULT after CHUNK"),
        (frame(Frame.END, 1, {"chunks": 0}), "END for a call that does not stream"),
        (CHUNK + frame(Frame.END, 2, {"chunks": 2}), "END counts other chunks than have come"),
        (frame(Frame.END, 2), "the header of END does not have the right form"),
        (frame(Frame.END, 2, {"chunks": "1"}), "the header of END does not have the right form"),
        (frame(Frame.RESULT, 1, {"type": "integer"}, b'"1"'), "a value is not of the type that its header says"),
        (frame(Frame.RESULT, 1, {"type": "integer"}, b"1.0"), "a value is not of the type that its header says"),
        (frame(Frame.RESULT, 1, {"type": "integer"}, b""), "a value is not of the type that its header says"),
        (frame(Frame.RESULT, 1, {"type": "integer"}, b" 1"), "a value is not of the type that its header says"),
        (frame(Frame.RESULT, 1, {"type": "thing"}, b"1"), "the header of RESULT does not have the right form"),
        (frame(Frame.RESULT, 1, ["type"], b"1"), "the header of RESULT does not have the right form"),
        (frame(Frame.RESULT, 1, {"type": "array"}, b"[1,\n2]"), "a value has a raw line break"),
        (frame(Frame.RESULT, 1, {"type": "array"}, b"[1]\r"), "a value has a raw line break"),
        (frame(Frame.RESULT, 1, {"type": "array"}, b"[1] [2]"), "a value is not JSON"),
        (frame(Frame.RESULT, 1, {"type": "array"}, b"[" * 4000), "a value is not JSON"),
        (frame(Frame.RESULT, 1, {"type": "string"}, b'"\xff"'), "a value is not JSON"),
        (frame(Frame.RESULT, 1, {"type": "string"}, b'"\\ud800"'), "a value is not JSON"),
        (frame(Frame.RESULT, 1, {"type": "string"}, b'"%b"' % (b"x" * 5000)), "RESULT has 5002 bytes"),
        (frame(Frame.ERROR, 1, {"kind": "other", "message": ""}), "the header of ERROR does not have the right form"),
        (frame(Frame.ERROR, 1, {"kind": "exception"}), "the header of ERROR does not have the right form"),
        (frame(Frame.ERROR, 1, {"kind": "exception", "message": ""}, b"x" * 65537), "a traceback of 65537 bytes"),
        (wire.pack(Frame.CALL, 1), "a frame of type 1 may not come from here"),
        (b"\xff" * 11, "a frame claims 4294967295 bytes with a header of 65535"),
    ],
)
def test_each_breach_of_the_protocol_is_noticed(data: bytes, reason: str) -> None:
    """And ends the channel at once."""
    owner, transport, _, _ = on_channel(lambda channel, *_: channel.data_received(data))
    assert owner.notes[-1] == f"violated: {reason}"
    assert transport.aborted


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (frame(Frame.DESCRIBE, 0, None, b"{}"), "the first frame is not HELLO"),
        (frame(Frame.HELLO, 0, {"version": 2}), "HELLO has another version"),
        (frame(Frame.HELLO, 0), "the header of HELLO does not have the right form"),
        (frame(Frame.HELLO, 0, {"version": 1}) + RESULT, "RESULT for a call that is not open"),
        (
            frame(Frame.HELLO, 0, {"version": 1}) + frame(Frame.DESCRIBE, 0, None, b"x" * 65537),
            "DESCRIBE has 65537 bytes",
        ),
        (
            frame(Frame.HELLO, 0, {"version": 1}) + frame(Frame.DESCRIBE, 0, None, b"refuse"),
            "DESCRIBE does not have the right form",
        ),
    ],
)
def test_the_beginning_of_a_channel_has_an_order(data: bytes, reason: str) -> None:
    """HELLO, then DESCRIBE or FAILED."""

    async def run() -> Owner:
        owner = Owner()
        channel = Channel(owner, result_bytes=RESULT_BYTES, traceback=False)
        channel.connection_made(cast(asyncio.Transport, Transport()))
        channel.data_received(data)
        return owner

    assert asyncio.run(run()).notes == [f"violated: {reason}"]


def test_unknown_header_keys_are_ignored() -> None:
    """A newer runner may say more."""
    data = frame(Frame.RESULT, 1, {"type": "integer", "cost": {"a": [1]}}, b"1")
    owner, _, single, _ = on_channel(lambda channel, *_: channel.data_received(data))
    assert owner.notes == ["described", "closed 1"]
    assert single.state is State.CLOSED


def test_a_stream_gets_credits_back_as_its_chunks_leave() -> None:
    """Half a window at a time; large chunks make the window small."""

    def steps(channel: Channel, owner: Owner, transport: Transport, single: Call, stream: Call) -> None:
        channel.data_received(CHUNK * 4)
        assert stream.unread == 4
        assert stream.outstanding == 0

    async def take(size: int, chunks: int) -> list[int]:
        owner, transport = Owner(), Transport()
        channel = Channel(owner, result_bytes=8 * 1024 * 1024, traceback=False)
        channel.connection_made(cast(asyncio.Transport, transport))
        channel.data_received(wire.pack(Frame.HELLO, 0, b'{"version":1}') + wire.pack(Frame.DESCRIBE, 0, b"", b"{}"))
        call = Call(asked(Mode.STREAM))
        channel.start(call, now=0.0)
        outstanding = []
        for _ in range(chunks):
            channel.data_received(frame(Frame.CHUNK, 1, {"type": "string"}, b'"%b"' % (b"x" * size)))
            await call.next()
            outstanding.append(call.outstanding)
        waiting = asyncio.get_running_loop().create_task(call.next())
        await asyncio.sleep(0)
        outstanding.append(call.outstanding)
        waiting.cancel()
        return outstanding

    on_channel(steps)
    assert asyncio.run(take(10, 8)) == [3, 15, 14, 13, 12, 11, 10, 9, 9]
    assert asyncio.run(take(600 * 1024, 4)) == [3, 2, 1, 0, 1]


def test_chunks_that_came_together_are_taken_together_as_far_as_their_bytes_allow() -> None:
    """They leave our hands with the one before them, and until then none of their credits goes back."""

    async def run() -> list[tuple[list[bytes], int, int]]:
        channel = Channel(Owner(), result_bytes=4096, traceback=False)
        channel.connection_made(cast(asyncio.Transport, Transport()))
        channel.data_received(wire.pack(Frame.HELLO, 0, b'{"version":1}') + wire.pack(Frame.DESCRIBE, 0, b"", b"{}"))
        call = Call(asked(Mode.STREAM))
        channel.start(call, now=0.0)
        channel.data_received(b"".join(frame(Frame.CHUNK, 1, {"type": "integer"}, b"%d" % n) for n in (1, 22, 333, 4)))
        seen = []
        for bytes_max in (5, 5):
            first = await call.next()
            rest = call.at_hand(bytes_max)
            seen.append(([value.body for value in (first, *rest) if value is not None], call.unread, call.outstanding))
        return seen

    assert asyncio.run(run()) == [([b"1", b"22", b"333"], 4, 0), ([b"4"], 1, 15)]


def test_a_runner_that_does_not_read_gets_no_credit_frames() -> None:
    """Otherwise one that only sends would make us keep a frame for each of its chunks."""

    def steps(channel: Channel, owner: Owner, transport: Transport, single: Call, stream: Call) -> None:
        channel.pause_writing()
        before = channel._unwritten.copy()
        channel.data_received(CHUNK * 4)
        for _ in range(4):
            try:
                stream.next().send(None)
            except StopIteration:
                pass
        stream._in_hand = 0
        stream.unread = 0
        channel._give_credit(stream)
        assert channel._unwritten == before
        channel.resume_writing()
        assert channel._unwritten[-1] == wire.pack(Frame.CREDIT, 2, b'{"credits":16}')
        assert owner.notes[-1] == "writable"

    on_channel(steps)


def test_the_last_bytes_of_a_lost_channel_are_not_an_event() -> None:
    """Half a frame is nothing."""

    def steps(channel: Channel, *_: object) -> None:
        channel.data_received(RESULT[:-1])
        channel.connection_lost(None)

    owner, _, single, _ = on_channel(steps)
    assert owner.notes == ["described", "lost"]
    assert single.state is State.OPEN


def test_a_channel_that_was_given_up_before_it_was_made_is_closed() -> None:
    """Left open, the runner would wait on it and never take the next one."""

    async def run() -> bool:
        transport = Transport()
        channel = Channel(Owner(), result_bytes=RESULT_BYTES, traceback=False)
        channel.close()
        channel.connection_made(cast(asyncio.Transport, transport))
        return transport.aborted

    assert asyncio.run(run())


pieces = st.one_of(
    st.binary(max_size=40),
    st.builds(
        lambda type, call, header, body: wire.pack(type, call, header, body),
        st.sampled_from(sorted(Frame)),
        st.integers(0, 3),
        st.one_of(
            st.sampled_from(
                [
                    b"",
                    b'{"type":"integer"}',
                    b'{"type":"string"}',
                    b'{"chunks":0}',
                    b'{"chunks":1}',
                    b'{"kind":"exception","message":"m"}',
                    b'{"kind":"argument","message":"m","pointer":"/x"}',
                    b'{"version":1}',
                ]
            ),
            st.binary(max_size=30),
        ),
        st.one_of(st.sampled_from([b"", b"1", b'"a"', b"[]", b"{}", b"null"]), st.binary(max_size=30)),
    ),
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(pieces, max_size=12), st.randoms(use_true_random=False))
def test_any_bytes_from_a_runner_are_events_or_one_violation(parts: list[bytes], random: object) -> None:
    """In any pieces; after a violation nothing more is told, and no call is both open and ended."""
    stream_of_bytes = b"".join(parts)

    def steps(channel: Channel, owner: Owner, transport: Transport, single: Call, stream: Call) -> None:
        position = 0
        while position < len(stream_of_bytes):
            step = random.randint(1, 30)  # type: ignore[attr-defined]  # hypothesis has no name for the type it gives
            channel.data_received(stream_of_bytes[position : position + step])
            position += step

    owner, _, single, stream = on_channel(steps)
    violations = [note for note in owner.notes if note.startswith("violated")]
    assert len(violations) <= 1
    if violations:
        assert owner.notes[-1] == violations[0]
    for call in (single, stream):
        assert call.state is (State.CLOSED if call.ended else State.OPEN)
        assert call.unread <= 4
    assert owner.notes.count("closed 1") <= 1
    assert owner.notes.count("closed 2") <= 1


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=300))
def test_any_first_bytes_are_waited_for_or_a_violation(data: bytes) -> None:
    """Before HELLO, too."""

    async def run() -> Owner:
        owner = Owner()
        channel = Channel(owner, result_bytes=RESULT_BYTES, traceback=True)
        channel.connection_made(cast(asyncio.Transport, Transport()))
        channel.data_received(data)
        return owner

    notes = asyncio.run(run()).notes
    assert not notes or notes[-1].startswith("violated: ") or notes == ["described"] or notes == ["failed"]


def test_an_error_names_what_the_runner_named() -> None:
    """Type, pointer, hint; the traceback only where the policy allows it."""
    header = {"kind": "argument", "message": "no", "type": "T", "pointer": "/input_args/0", "hint": "do this"}

    async def error_of(call: Call) -> Refusal:
        with pytest.raises(Refusal) as raised:
            await call.next()
        return raised.value

    _, _, single, _ = on_channel(lambda channel, *_: channel.data_received(frame(Frame.ERROR, 1, header, b"Traceback")))
    refusal = asyncio.run(error_of(single))
    assert (refusal.message, refusal.exception_type, refusal.pointer, refusal.hint) == (
        "no",
        "T",
        "/input_args/0",
        "do this",
    )
    assert refusal.traceback is None
