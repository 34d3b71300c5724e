"""`runagentctl deploy DIR`: have a running daemon serve a folder as an agent, or as another version of one.

Runs as: root.
Reads from strangers: nothing; what the agent says of itself is printed by a process without privileges.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from runagentd.errors import HostError, Problem
from runagentd.foreman import admin_client, announce
from runagentd.foreman.progress import ProgressLine
from runagentd.log import escape
from runagentd.state import StateDirectory
from runagentd.wire import admin
from runagentd.wire.manifest import LoadProblem

DEPLOY_SECONDS = 600.0
"""Without a word: a large folder is copied, and the first start may take as long as its policy lets it. An environment
that is made says so every few seconds."""
NOBODY = 65534


def deploy(
    directory: StateDirectory,
    folder: Path,
    *,
    name: str,
    policy: str,
    instances: tuple[int, int] | None,
    alias: str,
    allow_widening: bool,
    take_over: bool,
    as_json: bool,
) -> int:
    """0 where this folder serves now, and also where it did before; 1 where not, with every problem."""
    bounds = admin.InstanceBounds(minimum=instances[0], maximum=instances[1]) if instances is not None else None
    request = admin.Deploy(
        folder=str(folder),
        policies=(admin.PolicyChoice(agent="", policy=policy),) if policy else (),
        keep=True,
        name=name,
        instances=bounds,
        aliases=(alias,) if alias else (),
        allow_widening=allow_widening,
        progress=True,
        take_over=take_over,
    )
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise HostError(f"{folder}: {(error.strerror or '').lower()}", "give the folder of an agent") from error
    try:
        reply = ask(directory.admin_socket, request, descriptor)
    finally:
        os.close(descriptor)
    announcement = announce.Announcement(
        deployed=(admin_client.told(reply, admin.Deployed),), as_json=as_json, deploy=True
    )
    return announce.show_as_nobody(announcement, uid=NOBODY)


def refused(problem: Problem) -> admin.Deployed:
    """As the supervisor says it, for what has not come so far."""
    told = LoadProblem(where=problem.where, what=problem.what, hints=problem.hints)
    return admin.Deployed(
        ok=False, agent="", agent_name="", tags=(), policy="", hints=(), problems=(told,), describe=b"", report=b""
    )


def ask(path: Path, request: admin.Deploy, folder: int) -> admin.Reply:
    """The answer; what comes before it is told to who waits, on stderr."""
    line = ProgressLine(sys.stderr, lambda text: print(escape(text), file=sys.stderr, flush=True))
    with admin_client.connect(path) as connection:
        connection.settimeout(DEPLOY_SECONDS)
        admin_client.send(connection, request, [folder])
        try:
            while isinstance(reply := admin_client.receive(connection), admin.Progress):
                line.show(reply.text)
        finally:
            line.over()
    return reply
