"""Frames: the same whichever way the bytes arrive, and an error of ours for bytes that are none."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runagentd.wire import channel
from runagentd.wire.channel import ChannelError, Frame, RawFrame, Splitter

EVERY_TYPE = frozenset(Frame)
FRAMES = st.builds(
    RawFrame,
    st.sampled_from(Frame),
    st.integers(0, 2**32 - 1),
    st.binary(max_size=40),
    st.binary(max_size=200),
)


def pack(frame: RawFrame) -> bytes:
    return channel.pack(frame.type, frame.call, frame.header, frame.body)


@pytest.mark.parametrize(
    ("frame", "literal"),
    [
        (
            RawFrame(Frame.CALL, 7, b'{"tag":"t"}', b"[[],{}]"),
            b'\x00\x00\x00\x19\x01\x00\x00\x00\x07\x00\x0b{"tag":"t"}[[],{}]',
        ),
        (
            RawFrame(Frame.CREDIT, 7, b'{"credits":1}', b""),
            b'\x00\x00\x00\x14\x02\x00\x00\x00\x07\x00\x0d{"credits":1}',
        ),
        (
            RawFrame(Frame.CANCEL, 2**32 - 1, b'{"reason":"client"}', b""),
            b'\x00\x00\x00\x1a\x03\xff\xff\xff\xff\x00\x13{"reason":"client"}',
        ),
        (
            RawFrame(Frame.HELLO, 0, b'{"version":1}', b""),
            b'\x00\x00\x00\x14\x10\x00\x00\x00\x00\x00\x0d{"version":1}',
        ),
        (
            RawFrame(Frame.DESCRIBE, 0, b"", b'{"entrypoints":[]}'),
            b'\x00\x00\x00\x19\x11\x00\x00\x00\x00\x00\x00{"entrypoints":[]}',
        ),
        (
            RawFrame(Frame.FAILED, 0, b"", b'{"problems":[]}'),
            b'\x00\x00\x00\x16\x12\x00\x00\x00\x00\x00\x00{"problems":[]}',
        ),
        (
            RawFrame(Frame.RESULT, 1, b'{"type":"null"}', b"null"),
            b'\x00\x00\x00\x1a\x20\x00\x00\x00\x01\x00\x0f{"type":"null"}null',
        ),
        (
            RawFrame(Frame.CHUNK, 256, b'{"type":"integer"}', b"5"),
            b'\x00\x00\x00\x1a\x21\x00\x00\x01\x00\x00\x12{"type":"integer"}5',
        ),
        (
            RawFrame(Frame.END, 1, b'{"chunks":0}', b""),
            b'\x00\x00\x00\x13\x22\x00\x00\x00\x01\x00\x0c{"chunks":0}',
        ),
        (
            RawFrame(Frame.ERROR, 1, b'{"kind":"exception"}', b"Traceback"),
            b'\x00\x00\x00\x24\x23\x00\x00\x00\x01\x00\x14{"kind":"exception"}Traceback',
        ),
    ],
    ids=lambda value: value.type.name if isinstance(value, RawFrame) else "",
)
def test_the_form_of_each_frame(frame: RawFrame, literal: bytes) -> None:
    """Literal bytes, both ways: a change of form is a change of this table, and of PROTOCOL_VERSION."""
    assert pack(frame) == literal
    assert Splitter(EVERY_TYPE).feed(literal) == [frame]


def test_the_version_is_one() -> None:
    """The table above belongs to this version."""
    assert channel.PROTOCOL_VERSION == 1


@given(st.lists(FRAMES, max_size=6), st.data())
def test_frames_are_the_same_in_whatever_pieces_they_arrive(frames: list[RawFrame], data: st.DataObject) -> None:
    """A stream socket cuts where it likes."""
    stream = b"".join(map(pack, frames))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    splitter = Splitter(EVERY_TYPE)
    seen = [
        frame
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)
        for frame in splitter.feed(stream[start:end])
    ]
    assert seen == frames
    assert all(type(part) is bytes for frame in seen for part in (frame.header, frame.body))
    assert splitter.pending_bytes == 0


def test_an_unfinished_frame_waits_for_its_rest() -> None:
    """Byte by byte: nothing before the last byte, and the held bytes are counted."""
    stream = channel.pack(Frame.RESULT, 3, b"{}", b"1")
    splitter = Splitter(EVERY_TYPE)
    for count, byte in enumerate(stream[:-1], 1):
        assert splitter.feed(bytes([byte])) == []
        assert splitter.pending_bytes == count
    assert splitter.feed(stream[-1:]) == [RawFrame(Frame.RESULT, 3, b"{}", b"1")]


@pytest.mark.parametrize(
    ("stream", "sentence"),
    [
        (bytes(11), "a frame claims 0 bytes with a header of 0"),
        (b"\x00\x00\x00\x06" + bytes(7), "a frame claims 6 bytes with a header of 0"),
        (b"\x00\x00\x00\x07\x10\x00\x00\x00\x00\x00\x01", "a frame claims 7 bytes with a header of 1"),
        (b"\xff\xff\xff\xff\x10" + bytes(6), "a frame claims 4294967295 bytes with a header of 0"),
        (b"\x00\x81\x00\x00\x10" + bytes(6), "a frame claims 8454144 bytes with a header of 0"),
        (b"\x00\x00\x00\x07\x63" + bytes(6), "a frame of type 99 may not come from here"),
        (b"\x00\x00\x00\x07\x01" + bytes(6), "a frame of type 1 may not come from here"),
        (b"\x00\x01\x00\x00\x10\x00\x00\x00\x00\x40\x01", "a header of 16385 bytes is larger than 16384"),
    ],
    ids=["zero", "too-short", "header-beyond-frame", "4-gib", "over-8-mib", "unknown", "from-the-gateway", "header"],
)
def test_bytes_that_are_no_frame_end_the_channel_at_their_prefix(stream: bytes, sentence: str) -> None:
    """Eleven bytes are enough to refuse: nothing is buffered for a frame that cannot be."""
    with pytest.raises(ChannelError) as caught:
        Splitter(channel.FROM_RUNNER).feed(stream)
    assert str(caught.value) == sentence


def test_a_frame_of_the_largest_size_passes_and_one_byte_more_does_not() -> None:
    """The bound counts the whole frame, its length field included."""
    body = bytes(channel.FRAME_BYTES_MAX - channel.PREFIX_BYTES)
    [frame] = Splitter(EVERY_TYPE).feed(channel.pack(Frame.RESULT, 1, b"", body))
    assert len(frame.body) == 8454133
    with pytest.raises(ValueError, match=r"^a frame of 8454141 bytes with a header of 0 is too large$"):
        channel.pack(Frame.RESULT, 1, b"", body + b"x")


def test_a_smaller_bound_holds_too() -> None:
    """The gateway gives what the agent's policy allows."""
    splitter = Splitter(EVERY_TYPE, frame_bytes_max=100)
    assert splitter.feed(channel.pack(Frame.RESULT, 1, b"", bytes(89))) != []
    with pytest.raises(ChannelError, match=r"^a frame claims 97 bytes with a header of 0$"):
        splitter.feed(channel.pack(Frame.RESULT, 1, b"", bytes(90)))


def test_a_header_too_large_to_be_read_is_not_sent() -> None:
    """The two ends agree on 16 KiB."""
    assert len(channel.pack(Frame.CALL, 1, bytes(16384))) == 16395
    with pytest.raises(ValueError, match=r"^a frame of 16392 bytes with a header of 16385 is too large$"):
        channel.pack(Frame.CALL, 1, bytes(16385))


def test_who_may_send_what() -> None:
    """Each type goes one way."""
    assert {int(frame) for frame in channel.FROM_GATEWAY} == {1, 2, 3}
    assert {int(frame) for frame in channel.FROM_RUNNER} == {16, 17, 18, 32, 33, 34, 35}
    assert {int(frame) for frame in channel.CLOSES_CALL} == {32, 34, 35}


@given(st.binary(max_size=300), st.integers(1, 20))
def test_any_bytes_are_frames_or_a_channel_error(stream: bytes, piece: int) -> None:
    """No other exception, and never more held than one frame may have."""
    splitter = Splitter(channel.FROM_RUNNER, frame_bytes_max=128)
    try:
        for start in range(0, len(stream), piece):
            splitter.feed(stream[start : start + piece])
            assert splitter.pending_bytes <= 128
    except ChannelError:
        pass


def test_many_small_frames_at_once_take_linear_time() -> None:
    """A flood of 23,000 empty frames in one read of 256 KiB."""
    stream = channel.pack(Frame.END, 1) * 23000
    started = time.perf_counter()
    assert len(Splitter(EVERY_TYPE).feed(stream)) == 23000
    assert time.perf_counter() - started < 2


def test_a_large_frame_in_small_pieces_takes_linear_time() -> None:
    """8 MiB in pieces of 4 KiB."""
    stream = channel.pack(Frame.RESULT, 1, b"{}", bytes(8 * 1024 * 1024))
    splitter = Splitter(EVERY_TYPE)
    started = time.perf_counter()
    frames = [f for start in range(0, len(stream), 4096) for f in splitter.feed(stream[start : start + 4096])]
    assert len(frames) == 1
    assert time.perf_counter() - started < 2
