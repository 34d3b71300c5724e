"""Any bytes on any socket: a value, or the one error of that parser. Never another exception, and never for long.

`RUNAGENTD_FUZZ=20000 python -m pytest tests/fuzz` looks longer.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runagentd.wire import admin, channel, control, issuers, launch, manifest, record
from runagentd.wire.channel import ChannelError
from runagentd.wire.record import RecordError
from tests.fuzz import targets
from tests.wire import messages

EXAMPLES = int(os.environ.get("RUNAGENTD_FUZZ", "300"))
SECONDS_MAX = 1.0

PARSERS: dict[str, tuple[Callable[[bytes], object], tuple[bytes, ...]]] = {
    "from-supervisor": (control.parse_from_supervisor, tuple(map(control.pack, messages.FROM_SUPERVISOR))),
    "from-gateway": (control.parse_from_gateway, tuple(map(control.pack, messages.FROM_GATEWAY))),
    "from-egress": (issuers.parse_from_egress, tuple(map(issuers.pack, messages.FROM_EGRESS))),
    "to-egress": (issuers.parse_from_gateway, tuple(map(issuers.pack, messages.TO_EGRESS))),
    "request": (admin.parse_request, tuple(map(admin.pack, messages.REQUESTS))),
    "reply": (admin.parse_reply, tuple(map(admin.pack, messages.REPLIES))),
    "calls-page": (admin.parse_page, (record.encode(messages.CALLS_PAGE),)),
    "load-report": (
        lambda data: record.decode(manifest.LoadReport, data, bytes_max=manifest.MANIFEST_BYTES),
        (record.encode(messages.LOAD_REPORT),),
    ),
    "launch-report": (
        lambda data: record.decode(launch.LaunchReport, data, bytes_max=launch.REPORT_BYTES_MAX),
        (record.encode(messages.LAUNCH_REPORT),),
    ),
    "job": (
        lambda data: record.decode(launch.Job, data, bytes_max=launch.JOB_BYTES_MAX),
        (record.encode(messages.JOB),),
    ),
    "exit": (launch.parse_exit, (launch.pack_exit(messages.EXIT),)),
}


@st.composite
def damaged(draw: st.DrawFn, samples: tuple[bytes, ...]) -> bytes:
    """A good message with some bytes overwritten, cut out, doubled or put in."""
    data = bytearray(draw(st.sampled_from(samples)))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        stop = draw(st.integers(start, min(len(data), start + 16)))
        # Lengths and counts are where a parser can be led astray: all ones, and the sign bit, come often.
        piece = draw(
            st.binary(max_size=8)
            | st.sampled_from([b"\xff\xff\xff\xff", b"\x80\x00\x00\x00", b"\x7f\xff\xff\xff", b"\x00\x00\x00\x00"])
            | st.just(bytes(data[start:stop]) * 2)
        )
        data[start:stop] = piece
    return bytes(data)


@pytest.mark.slow
@pytest.mark.parametrize("name", PARSERS)
def test_a_datagram_of_any_bytes_is_a_message_or_a_record_error(name: str) -> None:
    """Random bytes, and good messages with damage."""
    parse, samples = PARSERS[name]

    @settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow])
    @given(st.binary(max_size=300) | damaged(samples))
    def check(data: bytes) -> None:
        started = time.perf_counter()
        try:
            parse(data)
        except RecordError:
            pass
        assert time.perf_counter() - started < SECONDS_MAX

    check()


FRAMES = (
    channel.pack(channel.Frame.HELLO, 0, b'{"version":1}'),
    channel.pack(channel.Frame.DESCRIBE, 0, b"", b'{"entrypoints":[]}'),
    channel.pack(channel.Frame.CHUNK, 1, b'{"type":"integer"}', b"1") * 3,
    channel.pack(channel.Frame.RESULT, 1, b'{"type":"null"}', b"null"),
)


@pytest.mark.slow
@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.binary(max_size=100) | damaged(FRAMES), max_size=8))
def test_a_stream_of_any_bytes_is_frames_or_a_channel_error(pieces: list[bytes]) -> None:
    """What is held for an unfinished frame never grows beyond one frame."""
    splitter = channel.Splitter(channel.FROM_RUNNER, frame_bytes_max=4096)
    try:
        for piece in pieces:
            for frame in splitter.feed(piece):
                assert frame.type in channel.FROM_RUNNER
            assert splitter.pending_bytes <= 4096
    except ChannelError:
        pass


@pytest.mark.slow
@pytest.mark.parametrize("name", ["from-worker", "to-worker"])
@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_bytes_on_the_link_to_a_worker_are_messages_or_an_error_of_ours(name: str, data: st.DataObject) -> None:
    """Bodies included, and no more is held than one message."""
    target = targets.TARGETS[name]
    with contextlib.suppress(*target.errors):
        target.parse(data.draw(st.binary(max_size=200) | damaged(tuple(target.seeds))))
