"""What somebody who waits sees: a line that is rewritten on a terminal, and a line for each change in a file."""

from __future__ import annotations

import io

from runagentd.foreman.progress import ProgressLine


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_one_line_is_rewritten_and_makes_room() -> None:
    stream, now = Terminal(), [0.0]
    line = ProgressLine(stream, clock=lambda: now[0])
    line.show("chat: resolving")
    now[0] = 5.2
    line.show("chat: resolving")
    line.show("chat: installing 14 packages")
    line.over()
    assert stream.getvalue() == (
        "\r\x1b[Kchat: resolving…\r\x1b[Kchat: resolving… 5 s\r\x1b[Kchat: installing 14 packages…\r\x1b[K"
    )


def test_elsewhere_each_change_is_a_line() -> None:
    stream = io.StringIO()
    line = ProgressLine(stream)
    for text in ("chat: resolving", "chat: resolving", "chat: installing 14 packages"):
        line.show(text)
    line.over()
    assert stream.getvalue() == "chat: resolving\nchat: installing 14 packages\n"


def test_nothing_of_a_text_moves_the_cursor() -> None:
    """It holds the name of a folder."""
    stream = Terminal()
    ProgressLine(stream).show("a\x1b[2Jb")
    assert "\x1b[2J" not in stream.getvalue()


def test_where_nothing_was_shown_nothing_is_wiped() -> None:
    stream = Terminal()
    ProgressLine(stream).over()
    assert stream.getvalue() == ""
