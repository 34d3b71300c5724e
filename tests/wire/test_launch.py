"""What passes between supervisor, zygote, spare and reaper."""

from __future__ import annotations

import pytest

from runagentd.wire import launch, record
from tests.wire.messages import EXIT, JOB, LAUNCH_REPORT


def test_a_launch_report_and_a_job_survive_the_way() -> None:
    """Both are records; their bytes are in tests/wire/messages.txt."""
    encoded = record.encode(LAUNCH_REPORT)
    assert record.decode(launch.LaunchReport, encoded, bytes_max=launch.REPORT_BYTES_MAX) == LAUNCH_REPORT
    assert record.decode(launch.Job, record.encode(JOB), bytes_max=launch.JOB_BYTES_MAX) == JOB


def test_an_exit_record_has_64_bytes_and_survives_the_way() -> None:
    """The supervisor reads exactly that much of what an instance could have written."""
    data = launch.pack_exit(EXIT)
    assert len(data) == 64
    assert launch.parse_exit(data) == EXIT


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(64),
        launch.pack_exit(EXIT)[:63],
        launch.pack_exit(EXIT) + b"\x00",
        b"RAX2" + launch.pack_exit(EXIT)[4:],
        b"RAX1\x63" + launch.pack_exit(EXIT)[5:],
    ],
    ids=["empty", "zeros", "short", "long", "magic", "kind"],
)
def test_bytes_that_are_no_exit_record_count_for_nothing(data: bytes) -> None:
    """None, so that only what the kernel says about the end is told."""
    assert launch.parse_exit(data) is None


def test_the_fixed_datagrams_have_the_size_that_their_reader_asks_for() -> None:
    """A zygote that reads 32 bytes must be sent 32."""
    assert (launch.REQUEST.size, launch.REPLY.size, len(launch.ASSIGN), launch.EXIT.size) == (32, 32, 32, 64)
