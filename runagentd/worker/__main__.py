"""A worker's process: read HTTP and speak TLS for the gateway, which decides everything.

Runs as: its own uid, with no capability and no file; root until `confine`, which reads nothing but its own files.
Reads from strangers: the network, once confined.
Started as `python -m runagentd.worker`, with LISTEN_FDS for `http` (listening, and other workers listen on it, too),
`lifeline` (its end is ours), `gateway` (SOCK_SEQPACKET: links to the gateway come over it, see `worker.link`) and
`settings` (SOCK_SEQPACKET, see `wire.settings`).
"""

from __future__ import annotations

import argparse
import asyncio
import encodings.ascii
import encodings.idna
import encodings.latin_1
import os
import signal
import socket
import ssl
import sys
from collections.abc import Sequence

import uvloop

from runagentd import inherited, log, received
from runagentd.errors import ConfigurationError, Problem
from runagentd.gateway import collector, tls
from runagentd.gateway.guard.front import Front
from runagentd.gateway.listener import raise_descriptor_limit
from runagentd.gateway.server import Server
from runagentd.wire.record import RecordError
from runagentd.wire.settings import WorkerSettings
from runagentd.worker.confinement import confine
from runagentd.worker.link import Gateway
from runagentd.worker.listener import SharedListener

_IMPORTED_BEFORE = (encodings.ascii, encodings.idna, encodings.latin_1)
"""Looked up by name when they are needed, and then there is no file any more."""
SHUTDOWN_SECONDS = 1.0
BACKLOG = 1024

Settings = tuple[WorkerSettings, dict[str, int]]


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 where the end was asked for, 1 where there is no gateway, 2 where it was started wrongly."""
    options = _parser().parse_args(arguments)
    journal = log.from_options(options, source=f"worker {options.number}")
    log.forward_standard_logging(journal)
    try:
        passed = inherited.descriptors(os.environ)
        missing = [name for name in ("http", "lifeline", "gateway", "settings") if name not in passed]
        if missing:
            hint = "workers are started by 'runagentd serve'"
            raise ConfigurationError(
                Problem("LISTEN_FDNAMES", f"no descriptor was passed for {', '.join(missing)}", (hint,))
            )
        os.environ.clear()
        http, introductions = socket.socket(fileno=passed["http"]), socket.socket(fileno=passed["gateway"])
        settings_link = socket.socket(fileno=passed["settings"])
        found = received.receive(settings_link, WorkerSettings)
        if found is None:
            raise ConfigurationError(Problem("settings", "the foreman sent none"))
        settings_link.setblocking(False)
        context = tls.context(found[1], client_certificates=found[0].client_certificates)
        statm = collector.open_statm()
        confine(options.uid, options.gid)
    except (ConfigurationError, OSError, RecordError) as error:
        journal.error("the worker cannot start", problem=str(error))
        return 2
    collector.take_over()
    worker = _Worker(found, context, journal)
    return uvloop.run(worker.serve(http, introductions, settings_link, lifeline=passed["lifeline"], statm=statm))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m runagentd.worker", description="started by 'runagentd serve'")
    parser.add_argument("--number", type=int, required=True)
    parser.add_argument("--uid", type=int, required=True)
    parser.add_argument("--gid", type=int, required=True)
    log.add_options(parser)
    return parser


class _Worker:
    """All there is in the process."""

    def __init__(self, settings: Settings, context: ssl.SSLContext | None, journal: log.Log) -> None:
        self._files = settings[1]
        self._context = context
        self._journal = journal
        self._front = Front(settings[0].http, secure=context is not None)

    async def serve(
        self,
        http: socket.socket,
        introductions: socket.socket,
        settings_link: socket.socket,
        *,
        lifeline: int,
        statm: int,
    ) -> int:
        """Until the end; the exit status."""
        loop = asyncio.get_running_loop()
        over: asyncio.Future[int | None] = loop.create_future()
        """the exit status; None for one that lets answers out first"""

        def end(status: int | None) -> None:
            if not over.done():
                over.set_result(status)

        def drain() -> None:
            end(None)

        def alone() -> None:
            self._journal.error("no gateway has come; the worker ends, and another one is started")
            end(1)

        def settings_changed() -> None:
            try:
                changed = received.receive(settings_link, WorkerSettings)
                if changed is not None:
                    self._configure(changed)
            except (RecordError, OSError) as error:
                self._journal.error("new settings cannot be read; those before stay", problem=str(error))
                return
            if changed is None:
                loop.remove_reader(settings_link)  # the foreman is gone, and the lifeline says so, too

        gateway = Gateway(introductions, drain=drain, alone=alone, log=self._journal)
        server = Server(gateway.forward, front=lambda: self._front)
        listener = SharedListener(
            http, server=server, gateway=gateway, connections_max=raise_descriptor_limit(), tls=self._context
        )
        listener.start(BACKLOG)
        gateway.start()
        inherited.watch(lifeline, lambda: end(0))
        loop.add_reader(settings_link, settings_changed)
        loop.add_signal_handler(signal.SIGTERM, drain)
        # Ctrl+C goes to every process of a terminal's group; the foreman decides what it means.
        loop.add_signal_handler(signal.SIGINT, lambda: None)
        collecting = loop.create_task(collector.pace(statm))
        try:
            status = await over
            listener.close()
            if status is None:
                await server.shutdown(SHUTDOWN_SECONDS)
        finally:
            collecting.cancel()
            gateway.close()
        return status or 0

    def _configure(self, changed: Settings) -> None:
        settings, files = changed
        tls.renew(self._context, files, self._journal)
        self._front = Front(settings.http, secure=self._context is not None)
        before, self._files = self._files, files
        for descriptor in before.values():
            os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main())
