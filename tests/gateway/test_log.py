"""Events as lines that no stranger can forge, and that hold no secret."""

from __future__ import annotations

import io
import json
import logging
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from runagentd.log import Form, Level, Log, escape, forward_standard_logging

ROOT = Path(__file__).resolve().parents[2]


def written(form: Form, event: str, **fields: object) -> str:
    stream = io.StringIO()
    log = Log(stream, source="gateway", form=form, level=Level.DEBUG, clock=lambda: 1_800_000_000.5)
    log.info(event, **fields)
    return stream.getvalue()


def test_json_is_one_object_a_line() -> None:
    """With time, level, source and event first."""
    line = written(Form.JSON, "call", agent="é\n", seconds=0.25, cause=None)
    assert line == (
        '{"time":"2027-01-15T08:00:00.500Z","level":"info","source":"gateway","event":"call",'
        '"agent":"\\u00e9\\n","seconds":0.25}\n'
    )


@pytest.mark.parametrize(("form", "begin"), [(Form.TEXT, "\x1b[K08:00:00 "), (Form.JSON, "{")])
def test_on_a_terminal_a_line_leaves_nothing_of_what_stood_there(form: Form, begin: str) -> None:
    """`serve` shows there how far a build is, while the daemons write their lines."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    Log(stream, source="gateway", form=form, clock=lambda: 1_800_000_000.5).info("serving")
    assert stream.getvalue().startswith(begin)
    assert stream.getvalue().count("\x1b") == (form is Form.TEXT)


def test_text_is_readable_and_has_no_control_characters() -> None:
    """A line break that an agent chose does not begin a line."""
    line = written(Form.TEXT, "stdout", agent="a b", text="x\n\x1b[2Jy", empty="")
    assert line.endswith(' gateway: stdout agent="a b" text=x\\n\\x1b[2Jy empty=""\n')
    assert line.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('done" agent=another text="x', r'"done\" agent=another text=\"x"'),
        ('done\\" agent=another', r'"done\\\" agent=another"'),
        ('"', r'"\""'),
        ("a b\\", r'"a b\\"'),
        ("a\\b", r"a\b"),
    ],
)
def test_what_a_stranger_wrote_is_one_field(text: str, shown: str) -> None:
    """Else it could say after a quotation mark which agent, caller or outcome a line is about."""
    assert written(Form.TEXT, "stderr", text=text).endswith(f" gateway: stderr text={shown}\n")


def test_a_value_cannot_go_on_as_another_field() -> None:
    """Not by a quote of its own, nor by a backslash before the one that ends it."""
    line = written(Form.TEXT, "stdout", text='x" cause=oom agent="y', word='a"b', pair="a=b", last="c \\", plain="a\\b")
    fields = line.partition(": stdout ")[2].rstrip("\n")
    assert fields == r"""text="x\" cause=oom agent=\"y" word="a\"b" pair="a=b" last="c \\" plain=a\b"""
    assert [field.partition("=")[0] for field in shlex.split(fields)] == ["text", "word", "pair", "last", "plain"]


@pytest.mark.parametrize("key", ["token", "authorization", "cookie", "secret", "password", "api_key", "query"])
def test_some_keys_are_never_printed(key: str) -> None:
    """Whatever calls them, whatever they hold."""
    for form in Form:
        line = written(form, "call", **{key: "eyJhbGciOi"})
        assert "eyJ" not in line
        assert "[not printed]" in line


def test_levels_below_the_chosen_one_are_not_written() -> None:
    """Debug is for -v."""
    stream = io.StringIO()
    log = Log(stream, source="x", level=Level.WARNING)
    log.debug("a")
    log.info("b")
    log.warning("c")
    log.error("d")
    assert [line.split(" ", 1)[1] for line in stream.getvalue().splitlines()] == ["x WARNING: c", "x ERROR: d"]


def test_a_reader_that_is_gone_does_not_end_service() -> None:
    """A closed pipe behind our log."""
    stream = io.StringIO()
    log = Log(stream, source="x")
    stream.close()
    log.info("a")
    log.info("b")


def test_what_libraries_log_has_the_place_of_a_fault_and_not_its_words() -> None:
    """An exception's text may quote what a stranger sent."""
    stream = io.StringIO()
    before = logging.getLogger().handlers[:]
    level = logging.getLogger().level
    try:
        forward_standard_logging(Log(stream, source="x", form=Form.JSON))
        try:
            raise ValueError("Bearer eyJ")
        except ValueError:
            logging.getLogger("aiohttp.server").exception("Unhandled")
    finally:
        logging.getLogger().handlers[:] = before
        logging.getLogger().setLevel(level)
    row = json.loads(stream.getvalue())
    assert (row["name"], row["message"]) == ("aiohttp.server", "Unhandled")
    assert row["problem"].startswith("ValueError at test_log.py:")
    assert "eyJ" not in stream.getvalue()


def test_escape_leaves_what_people_write() -> None:
    """Letters of any script stay."""
    assert escape("größe 大 ok") == "größe 大 ok"
    assert escape("\u202eabc\x00\ud800") == "\\u202eabc\\x00\\ud800"


def test_a_long_field_does_not_break_the_line() -> None:
    """The line stays one JSON object."""
    line = written(Form.JSON, "stdout", text="\u0001" * 150_000)
    assert json.loads(line)["event"] == "stdout"
    assert len(line) < 100_000  # 150,000 would be 900,000 as escapes: one caller must not fill the log by a long tag


def test_a_complaint_of_several_lines_is_one_write() -> None:
    """Between two writes a line of another process would come: in a pipe of packets each write is one."""
    reader, writer = os.pipe2(os.O_DIRECT)
    try:
        subprocess.run(
            [sys.executable, "-c", "from runagentd.log import complain; complain('what\\nhint: what now')"],
            cwd=ROOT, stderr=writer, check=True, timeout=60,
        )  # fmt: skip
        assert os.read(reader, 4096) == b"what\nhint: what now\n"
    finally:
        os.close(reader)
        os.close(writer)
