"""`runagentctl top`: what is busy, looked at each second until Ctrl+C or q.

Runs as: root.
Reads from strangers: see `top_screen`; control characters never reach the terminal.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import shutil
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator
from types import FrameType

from runagentd.cli import top_screen
from runagentd.cli.top_screen import Look
from runagentd.errors import HostError
from runagentd.foreman import admin_client
from runagentd.state import StateDirectory
from runagentd.wire import admin, traffic
from runagentd.wire.figures import AgentFigures
from runagentd.wire.record import RecordError

SECONDS = 1.0
# xterm's control sequences, which every terminal of today knows: the other screen, the cursor, to the corner and clear.
_ENTER = b"\x1b[?1049h\x1b[?25l"
_LEAVE = b"\x1b[?25h\x1b[?1049l"
_CLEAR = "\x1b[H\x1b[J"


def top(directory: StateDirectory, *, once: bool, as_json: bool) -> int:
    """Show it, as a table or a JSON line each second; the exit status."""
    before: Look | None = None
    try:
        with contextlib.ExitStack() as stack:
            before = _look(directory)  # before the terminal is touched: what is wrong is said on the usual screen
            live = sys.stdout.isatty() and sys.stdin.isatty() and not once and not as_json
            if live:
                stack.enter_context(_terminal())
            while _pause(live):
                try:
                    now = _look(directory)
                except HostError as error:
                    if once or not live:
                        raise
                    _write(str(error), live=live)  # a supervisor that is started again is back soon
                    continue
                _write(_shown(before, now, live=live, as_json=as_json), live=live)
                if once:
                    break
                before = now
    except KeyboardInterrupt:
        pass  # it is how one leaves
    return 0


def _look(directory: StateDirectory) -> Look:
    figures: dict[str, AgentFigures] = {}
    names: dict[str, str] = {}
    counted: dict[str, traffic.AgentTraffic] = {}
    page = 0
    while True:
        reply = admin_client.told(
            admin_client.ask(directory.admin_socket, admin.OverviewAsk(page=page)), admin.Overview
        )
        try:
            told = traffic.parse(reply.traffic) if reply.traffic else None
        except RecordError as error:
            raise HostError(f"the gateway's answer cannot be read: {error}") from error
        figures |= {row.agent: row for row in reply.figures.agents}
        names |= {row.agent: name for row, name in zip(reply.figures.agents, reply.names, strict=False)}
        counted |= {row.agent: row for row in told.agents} if told is not None else {}
        page += 1
        if page >= reply.pages:
            break
    return Look(
        figures=figures,
        names=names,
        figures_ns=reply.made_ns,
        spares=reply.figures.spares,
        pressed=reply.figures.pressed,
        traffic=counted,
        traffic_ns=told.made_ns if told is not None else 0,
        since_ns=told.since_ns if told is not None else 0,
        bounds_microseconds=told.bounds_microseconds if told is not None else (),
    )


def _shown(before: Look | None, now: Look, *, live: bool, as_json: bool) -> str:
    rows = top_screen.rows(before, now)
    if as_json:
        return json.dumps({"unix": round(time.time(), 3), "agents": [dataclasses.asdict(row) for row in rows]})
    columns, height = shutil.get_terminal_size() if live else (None, None)
    lines = top_screen.screen(rows, now, moment=time.strftime("%H:%M:%S"), width=columns, height=height)
    return "\n".join(lines if live else [*lines, ""])


def _write(text: str, *, live: bool) -> None:
    if live:
        # Past the buffer: what a Ctrl+C leaves there would be drawn once more when the terminal is as it was.
        rest = (_CLEAR + text).encode(sys.stdout.encoding, "replace")
        while rest:
            rest = rest[os.write(sys.stdout.fileno(), rest) :]
        return
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _pause(live: bool) -> bool:
    """Wait for the next look; False where the operator has typed q."""
    if not live:
        time.sleep(SECONDS)
        return True
    end = time.monotonic() + SECONDS
    while (left := end - time.monotonic()) > 0:
        if select.select([sys.stdin], [], [], left)[0]:
            typed = os.read(sys.stdin.fileno(), 64)
            if not typed or b"q" in typed:
                return False
    return True


@contextlib.contextmanager
def _terminal() -> Iterator[None]:
    """The terminal's other screen, without a cursor and without an echo of what is typed; as it was, afterwards.

    Also for who stops us with Ctrl+Z, or ends us with SIGTERM or by closing the window.
    """
    descriptor, screen = sys.stdin.fileno(), sys.stdout.fileno()
    before = termios.tcgetattr(descriptor)

    def enter() -> None:
        tty.setcbreak(descriptor)
        os.write(screen, _ENTER)

    def leave() -> None:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
        # Not by sys.stdout: a signal may come in the middle of a write of its, and there is no second one in that.
        os.write(screen, _LEAVE)

    def stop(number: int, frame: FrameType | None) -> None:
        leave()
        os.kill(os.getpid(), signal.SIGSTOP)
        enter()

    def end(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    wanted = {signal.SIGTSTP: stop, signal.SIGTERM: end, signal.SIGHUP: end}
    handlers = {number: signal.signal(number, handler) for number, handler in wanted.items()}
    enter()
    try:
        yield
    finally:
        leave()
        for number, handler in handlers.items():
            signal.signal(number, handler)
