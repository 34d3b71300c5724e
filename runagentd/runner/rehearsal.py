"""Go through a whole start and a call with an agent of our own, so that the real ones find everything at hand.

Runs as: the zygote, before it forks anything, and a spare that nobody waits for; root, no agent's code in sight.
Reads from strangers: nothing.

A fork shares each page of its parent's memory until it writes there, and CPython writes wherever it counts a reference:
the first start in a fresh fork takes some 1,700 page faults of 1 to 4 µs each. A rehearsal takes them in advance, and
in the zygote it lets the interpreter specialise its code (PEP 659) once for all instances.

Nothing of it may be left for an agent to find: what `surroundings` and `imports` change is put back afterwards.
"""

from __future__ import annotations

import dataclasses
import gc
import io
import os
import signal
import socket
import sys
from typing import Any

from runagentd.runner import entrypoints, report, surroundings
from runagentd.runner.connection import WAKE_SIGNAL, Connection
from runagentd.runner.handover import Limits
from runagentd.runner.inline import InlineServer
from runagentd.runner.parameters import Parameters
from runagentd.wire import record
from runagentd.wire.channel import Frame, pack
from runagentd.wire.launch import JOB_BYTES_MAX, Job
from runagentd.wire.manifest import MANIFEST_BYTES, Entrypoint, Manifest

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "rehearsed")
"""The folder of the agent that plays the part."""

_FILE = "agent.py"
_TIMES = 16
"""CPython 3.11 specialises a function when it has been called eight times."""
_TAGS = ("greet", "count")
_END = "end"
_MANIFEST = Manifest(
    agent_id="rehearsal",
    agent_name="rehearsal",
    description="",
    framework="default",
    version="1",
    entrypoints=tuple(Entrypoint(tag=tag, file=_FILE, module=tag) for tag in _TAGS),
    environment=(),
    persistent_folders=(),
    import_paths=(),
    requirements=(),
    hints=(),
)
_CALLS = b"".join(
    pack(Frame.CALL, number, b'{"tag":"%s","mode":"%s","credits":16}' % (tag.encode(), mode), body)
    for number, (tag, mode, body) in enumerate(
        [
            ("greet", b"single", b'[["you"],{"times":2}]'),
            ("greet", b"single", b'[[],{"name":"you","mood":"glad","times":1}]'),
            ("count", b"stream", b'[[],{"to":2}]'),
            (_END, b"single", b"[[],{}]"),
        ],
        start=1,
    )
)
_LIMITS = Limits(concurrency=1, result_bytes=65536, cancel_grace_ms=1000, traceback=False, isolated=False)
_JOB = Job(
    manifest=record.encode(_MANIFEST),
    concurrency=1,
    result_bytes=65536,
    cancel_grace_ms=1000,
    traceback=False,
    isolated=False,
)


def rehearse(folder: str = FOLDER) -> bytes:
    """One start and some calls; gives the frames that a gateway would have got. Leaves everything as it was."""
    kept = _Kept()
    ours, theirs = socket.socketpair()
    connection = Connection(theirs.detach())
    try:
        job = record.decode(Job, record.encode(_JOB), bytes_max=JOB_BYTES_MAX)
        manifest = record.decode(Manifest, job.manifest, bytes_max=MANIFEST_BYTES)
        connection.send(report.HELLO)
        surroundings.prepare(manifest, folder)
        surroundings.complete(manifest, folder, "")
        loaded = entrypoints.load(manifest, folder)
        connection.send(report.describe(loaded))
        ours.sendall(_CALLS)
        targets = {target.entrypoint.tag: target for target in loaded.targets}

        def end() -> None:
            ours.shutdown(socket.SHUT_WR)

        # The last call is the end of the channel: one that came sooner would cancel those before it.
        targets[_END] = dataclasses.replace(loaded.targets[0], function=end, parameters=Parameters(end))
        InlineServer(targets, _LIMITS).serve(connection)
        connection.close()
        return b"".join(iter(lambda: ours.recv(65536), b""))
    finally:
        kept.put_back()
        connection.close()
        ours.close()
        # Or the first object of the agent's would begin a collection of all that is left of this.
        gc.collect()
        gc.freeze()


class _Kept:
    """What a start changes in the process, as it was before."""

    def __init__(self) -> None:
        self._lists: list[tuple[list[Any], list[Any]]] = [
            (found, list(found)) for found in (sys.path, sys.meta_path, sys.argv, sys.orig_argv)
        ]
        self._names = {
            name: getattr(sys, name)
            for name in ("argv", "orig_argv", "stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__")
        }
        self._ours = surroundings.ours()
        self._main = sys.modules["__main__"]
        self._importers = dict(sys.path_importer_cache)
        self._environment = dict(os.environ)
        self._folder = os.getcwd()
        self._handlers: dict[int, Any] = {
            number: signal.getsignal(number) for number in (signal.SIGPIPE, signal.SIGINT, WAKE_SIGNAL)
        }

    def put_back(self) -> None:
        surroundings.forget_replaced()
        for name in ("stdin", "stdout", "stderr"):
            _let_go(getattr(sys, name), self._names[name])
        for name, value in self._names.items():
            setattr(sys, name, value)
        for found, before in self._lists:
            found[:] = before
        if sys.modules["__main__"] is not self._main:
            for name in surroundings.imported_since():
                del sys.modules[name]
            sys.modules["__main__"] = self._main
        sys.modules.update(self._ours)
        sys.path_importer_cache.clear()
        sys.path_importer_cache.update(self._importers)
        os.environ.clear()
        os.environ.update(self._environment)
        os.chdir(self._folder)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)


def _let_go(stream: object, before: object) -> None:
    """Flush a text layer that was made for the rehearsal; the descriptor below it is not its own and stays open."""
    if stream is not before and isinstance(stream, io.TextIOWrapper):
        stream.detach()


def rehearse_often() -> None:
    """In the zygote: until the interpreter has specialised what will run, and nothing of it is left in memory."""
    for _ in range(_TIMES):
        rehearse()
