"""What agents print: bounded lines, files that rotate, and `runagentctl logs`."""

from __future__ import annotations

import contextlib
import io
import json
import os
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runagentd import names, state
from runagentd.cli import logs_commands
from runagentd.errors import HostError
from runagentd.gateway import output
from runagentd.gateway.output import Lines
from tests.fakes_gateway import Gateway


def test_lines_come_out_whole_whatever_pieces_they_come_in() -> None:
    """A line is complete at its newline."""
    lines = Lines(line_bytes=100, minute_bytes=1000)
    assert lines.feed(b"on", 0.0) == []
    assert lines.feed(b"e\ntwo\n\nthr", 0.0) == [("one", 0), ("two", 0), ("", 0)]
    assert lines.close(0.0) == [("thr", 0)]
    assert lines.close(0.0) == []


def test_a_long_line_is_cut_and_the_rest_is_told_as_a_number() -> None:
    """However long it is, no more than its limit is held."""
    lines = Lines(line_bytes=4, minute_bytes=1000)
    assert lines.feed(b"abcdefgh", 0.0) == []
    assert len(lines._buffer) == 4
    assert lines.feed(b"ij\nnext\n", 0.0) == [("abcd", 6), ("next", 0)]


def test_a_minute_has_a_number_of_bytes() -> None:
    """What is over is dropped, and told with the first line of the next minute."""
    lines = Lines(line_bytes=100, minute_bytes=2 * 64 + 10)
    assert lines.feed(b"12345\n678\nx\ny\n", 0.0) == [("12345", 0), ("678", 0)]
    assert lines.feed(b"z\nhal", 59.8) == []
    assert lines.feed(b"f\n", 59.9) == []
    assert lines.feed(b"now\n", 60.0) == [("now", 11)]
    assert lines.take_dropped() == 0


def test_bytes_that_are_no_text_are_shown_as_escapes() -> None:
    """Nothing is lost."""
    assert Lines(line_bytes=100, minute_bytes=1000).feed(b"a\xffb\n", 0.0) == [("a\\xffb", 0)]


@given(st.lists(st.binary(max_size=50), max_size=20), st.integers(1, 20), st.integers(0, 400))
def test_every_byte_is_kept_or_counted(pieces: list[bytes], line_bytes: int, minute_bytes: int) -> None:
    """Newlines of kept lines aside, of which each costs one."""
    lines = Lines(line_bytes=line_bytes, minute_bytes=minute_bytes)
    found = [line for piece in pieces for line in lines.feed(piece, 0.0)] + lines.close(0.0)
    dropped = sum(count for _, count in found) + lines.take_dropped()
    data = b"".join(pieces)
    kept = sum(len(text.encode()) for text, _ in found if text.isascii() and "\\x" not in text)
    assert all(len(text) <= line_bytes * 4 for text, _ in found)
    if data.isascii() and b"\\" not in data:
        newlines = data.count(b"\n") + (1 if data and not data.endswith(b"\n") else 0)
        assert kept + dropped + newlines - len(data) >= 0
        assert kept + dropped <= len(data) + newlines


def rows(gateway: Gateway) -> list[dict[str, str]]:
    path = gateway.folder / "data" / "logs" / f"{names.storage_name('echo-1')}.log"
    return [json.loads(line) for line in path.read_text().splitlines()]


def wait_for_rows(gateway: Gateway, count: int) -> list[dict[str, str]]:
    end = time.monotonic() + 5
    while time.monotonic() < end:
        try:
            if len(found := rows(gateway)) >= count:
                return found
        except FileNotFoundError:
            pass
        time.sleep(0.005)
    raise TimeoutError("the lines did not come")


def wait_for_text(folder: Path, text: str) -> None:
    """Wait until a file of `folder` holds `text`. A file may be renamed, or made again, between listing and reading."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        for path in folder.glob("*"):
            with contextlib.suppress(FileNotFoundError):
                if text in path.read_text():
                    return
        time.sleep(0.005)
    raise TimeoutError(f"{text} did not come")


def test_output_is_kept_in_a_file_of_the_agents_and_echoed_to_the_gateways_log(gateway: Gateway) -> None:
    """Labelled with agent, instance, stream and time."""
    runner = gateway.ready()
    os.write(runner.stdout, b"hello\n")
    wait_for_rows(gateway, 1)
    os.write(runner.stderr, b"oh\x1b[31m no\n")
    found = wait_for_rows(gateway, 2)
    assert [(row["agent"], row["instance"], row["stream"], row["text"]) for row in found] == [
        ("echo-1", "00000000000000a1", "stdout", "hello"),
        ("echo-1", "00000000000000a1", "stderr", "oh\x1b[31m no"),
    ]
    assert all(row["time"].endswith("Z") for row in found)
    echoed = [json.loads(line) for line in gateway.log_lines if '"stdout"' in line]
    assert [(row["event"], row["agent"], row["text"]) for row in echoed] == [("stdout", "echo-1", "hello")]
    assert not any("\x1b" in line for line in gateway.log_lines)


def test_a_flood_of_output_is_read_and_bounded(gateway: Gateway) -> None:
    """The pipe never fills, the file gets what a minute allows, and one line says how much is missing."""
    runner = gateway.ready()
    line = b"x" * 99 + b"\n"
    for _ in range(2000):
        os.write(runner.stdout, line)
    runner.close()
    found = wait_for_rows(gateway, 403)
    assert [row["text"] for row in found[:-1]] == ["x" * 99] * 402
    assert found[-1]["text"] == "[159800 bytes dropped]"
    assert found[-1]["dropped"] == "159800"


def test_files_rotate_and_stay_two(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """The older one is replaced."""
    monkeypatch.setattr(output, "FILE_BYTES_MAX", 1000)
    runner = gateway.ready()
    for number in range(40):
        os.write(runner.stdout, b"line %d\n" % number)
    runner.close()
    folder = gateway.folder / "data" / "logs"
    wait_for_text(folder, '"line 39"')
    assert sorted(path.name for path in folder.iterdir()) == [
        f"{names.storage_name('echo-1')}.log",
        f"{names.storage_name('echo-1')}.log.1",
    ]
    assert all(path.stat().st_size <= 1000 for path in folder.iterdir())


# ---- runagentctl logs


def directory_with(tmp_path: Path, *texts: str) -> state.StateDirectory:
    logs = tmp_path / "gateway" / "logs"
    logs.mkdir(parents=True)
    lines = "".join(json.dumps(row(text)) + "\n" for text in texts)
    (logs / f"{names.storage_name('echo-1')}.log").write_text(lines)
    return state.StateDirectory(tmp_path, "0" * 16)


def row(text: str) -> dict[str, str]:
    return {"time": "2026-11-22T22:49:40.123Z", "agent": "echo-1", "instance": "a1", "stream": "stdout", "text": text}


def shown(data: bytes, *, as_json: bool = False) -> str:
    out = io.StringIO()
    logs_commands.show(io.BytesIO(data), out, as_json=as_json)
    return out.getvalue()


def test_lines_are_shown_without_control_characters() -> None:
    """Whatever an agent printed, it cannot move the terminal's cursor."""
    data = json.dumps(row("a\x1b]0;title\x07b\u202ec")).encode() + b"\n"
    assert shown(data) == "2026-11-22T22:49:40.123Z stdout| a\\x1b]0;title\\x07b\\u202ec\n"
    assert json.loads(shown(data, as_json=True))["text"] == "a\x1b]0;title\x07b\u202ec"


@given(st.binary(max_size=200))
def test_whatever_is_in_a_file_is_shown_or_passed_over(data: bytes) -> None:
    """The gateway writes the files, and it may be captured."""
    shown(data)


def test_logs_prints_the_older_file_and_then_the_newer(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """In the order in which the lines were printed."""
    directory = directory_with(tmp_path, "new")
    name = f"{names.storage_name('echo-1')}.log"
    (tmp_path / "gateway" / "logs" / f"{name}.1").write_text(json.dumps(row("old")) + "\n")
    assert logs_commands.logs(directory, "echo-1", follow=False, as_json=False) == 0
    assert [line.partition("| ")[2] for line in capfd.readouterr().out.splitlines()] == ["old", "new"]


def test_logs_of_an_unknown_agent_is_one_sentence(tmp_path: Path) -> None:
    """With what to do."""
    with pytest.raises(HostError) as raised:
        logs_commands.logs(directory_with(tmp_path), "nobody", follow=False, as_json=False)
    assert str(raised.value) == (
        "agent 'nobody' has printed nothing, or is not known\nhint: 'runagentctl ps' lists the agents"
    )


def test_a_link_or_a_pipe_in_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    """A captured gateway must not show an operator's files to its own reader, nor hang the operator."""
    directory = directory_with(tmp_path)
    logs = tmp_path / "gateway" / "logs"
    (tmp_path / "secret").write_text(json.dumps(row("secret")))
    (logs / f"{names.storage_name('linked')}.log").symlink_to(tmp_path / "secret")
    os.mkfifo(logs / f"{names.storage_name('piped')}.log")
    for agent in ("linked", "piped"):
        with pytest.raises(HostError):
            logs_commands.logs(directory, agent, follow=False, as_json=False)


def test_follow_goes_on_over_a_rotation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No line is lost between the two files."""
    monkeypatch.setattr(logs_commands, "POLL_SECONDS", 0.005)
    directory_with(tmp_path, "one")
    logs = tmp_path / "gateway" / "logs"
    name = f"{names.storage_name('echo-1')}.log"
    folder = os.open(logs, os.O_RDONLY)
    reading, writing = os.pipe()

    def copy() -> None:
        try:
            logs_commands._copy(folder, name, writing, follow=True)
        except BrokenPipeError:
            pass

    thread = threading.Thread(target=copy, daemon=True)
    thread.start()
    with os.fdopen(reading, "rb") as stream:
        assert b'"one"' in stream.readline()
        with (logs / name).open("a") as file:
            file.write(json.dumps(row("two")) + "\n")
        os.rename(logs / name, logs / f"{name}.1")
        (logs / name).write_text(json.dumps(row("three")) + "\n")
        assert b'"two"' in stream.readline()
        assert b'"three"' in stream.readline()
    with (logs / name).open("a") as file:
        file.write(json.dumps(row("four")) + "\n")
    thread.join(5)
    assert not thread.is_alive()
    os.close(writing)
    os.close(folder)
