"""What somebody who waits sees: a line that is rewritten on a terminal, and a line for each change in a file."""

from __future__ import annotations

import io

from runagentd.foreman.progress import ProgressLine


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_one_line_is_rewritten_and_makes_room() -> None:
    stream, now = Terminal(), [0.0]
    line = ProgressLine(stream, print, clock=lambda: now[0])
    line.show("chat: resolving")
    now[0] = 5.2
    line.show("chat: resolving")
    line.show("chat: installing 14 packages")
    line.over()
    assert stream.getvalue() == (
        "\x1b[Kchat: resolving…\r\x1b[Kchat: resolving… 5 s\r\x1b[Kchat: installing 14 packages…\r\x1b[K"
    )


def test_elsewhere_each_change_is_a_line_of_the_log() -> None:
    stream, noted = io.StringIO(), list[str]()
    line = ProgressLine(stream, noted.append)
    for text in ("chat: resolving", "chat: resolving", "chat: installing 14 packages"):
        line.show(text)
    line.over()
    assert (stream.getvalue(), noted) == ("", ["chat: resolving", "chat: installing 14 packages"])


def test_nothing_of_a_text_moves_the_cursor() -> None:
    """It holds the name of a folder."""
    stream = Terminal()
    ProgressLine(stream, print).show("a\x1b[2Jb")
    assert "\x1b[2J" not in stream.getvalue()


def test_where_nothing_was_shown_nothing_is_wiped() -> None:
    stream = Terminal()
    ProgressLine(stream, print).over()
    assert stream.getvalue() == ""
