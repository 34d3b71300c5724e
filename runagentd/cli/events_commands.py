"""`runagentctl events [-f] [AGENT]`: what has happened to agents and their instances, and what happens.

Runs as: root.
Reads from strangers: names and sentences that agents have a part in; control characters never reach the terminal.
Nobody is asked again and again: the supervisor answers when there is something, or after ten seconds.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections import deque
from collections.abc import Iterator

from runagentd.errors import ConfigurationError, HostError, Problem
from runagentd.foreman import admin_client
from runagentd.log import complain, escape, utc
from runagentd.state import StateDirectory
from runagentd.wire import admin

LIMIT_MAX = 100_000
_WAIT_SECONDS = 10.0
_ANSWER_SECONDS = 20.0
_AGAIN_SECONDS = 0.5


def events(directory: StateDirectory, *, agent: str, follow: bool, limit: int, as_json: bool) -> int:
    """Print the last ones, and with `follow` what comes, until Ctrl+C; the exit status."""
    if not 0 <= limit <= LIMIT_MAX:
        raise ConfigurationError(Problem("--limit", f"must be from 0 to {LIMIT_MAX}, not {limit}"))
    place = _Place()
    shown = 0
    for event in deque(_past(directory, agent, place), maxlen=limit):
        _show(event, as_json=as_json)
        shown += 1
    sys.stdout.flush()
    if agent and limit and not shown:
        complain(
            f"runagentctl: nothing has happened to an agent with the id or the name '{escape(agent)}'\n"
            f"hint: {admin_client.WHICH_AGENTS}"
        )
    if follow:
        _follow(directory, agent, place, as_json=as_json)
    return 0


@dataclasses.dataclass(slots=True)
class _Place:
    """How far we have read: which life of the supervisor's, and the last event of it."""

    life: str = ""
    after: int = 0


def _past(directory: StateDirectory, agent: str, place: _Place) -> Iterator[admin.Event]:
    """All that is kept."""
    while True:
        told = _ask(directory, agent, place, wait_seconds=0.0)
        place.life, place.after = told.life, told.looked
        yield from told.events
        if not told.more:
            return


def _follow(directory: StateDirectory, agent: str, place: _Place, *, as_json: bool) -> None:
    away = False
    while True:
        try:
            told = _ask(directory, agent, place, wait_seconds=_WAIT_SECONDS)
        except _Away:
            if not away:
                complain("-- the supervisor is away; waiting for it")
            away = True
            time.sleep(_AGAIN_SECONDS)
            continue
        away = False
        if told.life != place.life:
            complain("-- another supervisor is there: what follows is all that it has seen")
        elif told.lost:
            complain(f"-- {told.lost} events are missing: more came than are kept")
        place.life, place.after = told.life, told.looked
        for event in told.events:
            _show(event, as_json=as_json)
        sys.stdout.flush()


class _Away(HostError):
    """Nobody answers."""


def _ask(directory: StateDirectory, agent: str, place: _Place, *, wait_seconds: float) -> admin.EventsTold:
    ask = admin.EventsAsk(life=place.life, after=place.after, agent=agent, wait_ms=int(wait_seconds * 1000))
    try:
        reply = admin_client.ask(directory.admin_socket, ask, seconds=_ANSWER_SECONDS)
    except HostError as error:
        raise _Away(str(error)) from error
    return admin_client.told(reply, admin.EventsTold)


def _show(event: admin.Event, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(dataclasses.asdict(event)))
        return
    about = escape(event.agent_name or event.agent) or "-"
    if event.instance:
        about += f" {escape(event.instance)}"
    said = ": ".join(escape(text) for text in (event.cause, event.detail) if text)
    print(f"{utc(event.unix_ms / 1000)}  {event.kind.value:<18}  {about}  {said}".rstrip())
