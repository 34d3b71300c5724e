"""The gateway's process: take the descriptors, give up every privilege, look that they are gone, and only then serve.

Runs as: its own uid, with no capability; root until `confine`, which reads nothing but its own files.
Reads from strangers: the network and instances, once confined.
Started as `python -m runagentd.gateway`, with LISTEN_FDS for `http` (listening) or, where others read HTTP for it,
`workers` (SOCK_SEQPACKET: links to workers come over it, see `gateway.workers`), `lifeline` (its end is ours),
`control` (listening, for the supervisor), `egress` (SOCK_SEQPACKET, see `wire.issuers`), `data` (a directory of our
uid, for logs), `settings` (SOCK_SEQPACKET, see `wire.settings`).
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import os
import signal
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import uvloop

from runagentd import inherited, kernel, log
from runagentd.errors import ConfigurationError, Problem
from runagentd.gateway import collector, output, tls
from runagentd.gateway.application import Application
from runagentd.gateway.configuration import Configuration, receive
from runagentd.gateway.confinement import confine, own_folder
from runagentd.gateway.listener import Listener, raise_descriptor_limit
from runagentd.gateway.server import Server
from runagentd.gateway.workers import Workers
from runagentd.wire.record import RecordError

DRAIN_SECONDS = 8.0
"""After SIGTERM; the foreman allows ten in all."""
SHUTDOWN_SECONDS = 1.0
BACKLOG = 1024
FREED_BYTES_MAX = 16 * 1024 * 1024
"""Memory that bodies have left and the next ones get; what is freed beyond it goes back to the system."""
PIECE_BYTES_MAX = 4 * 1024 * 1024


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 after a drain or at the foreman's end, 2 where it was started wrongly."""
    options = _parser().parse_args(arguments)
    journal = log.from_options(options, source="gateway")
    log.forward_standard_logging(journal)
    try:
        passed = _descriptors()
        clients = socket.socket(fileno=passed["http" if "http" in passed else "workers"])
        control = socket.socket(fileno=passed["control"])
        egress = socket.socket(fileno=passed["egress"])
        version = _version()
        settings_link = socket.socket(fileno=passed["settings"])
        configuration = receive(settings_link)
        if configuration is None:
            raise ConfigurationError(Problem("settings", "the foreman sent none"))
        settings_link.setblocking(False)
        tls_context = tls.context(configuration.files, client_certificates=configuration.settings.client_certificates)
        folder = own_folder(passed["data"])
        statm = collector.open_statm()
        confine(options.uid, options.gid)
        logs = output.open_directory(passed["data"])
        os.close(passed["data"])
    except (ConfigurationError, OSError, RecordError) as error:
        journal.error("the gateway cannot start", problem=str(error))
        return 2
    collector.take_over()
    kernel.keep_freed_memory(bytes_max=FREED_BYTES_MAX, piece_bytes_max=PIECE_BYTES_MAX)
    uvloop.run(
        _serve(
            clients,
            lifeline=passed["lifeline"],
            control=control,
            egress=egress,
            folder=folder,
            logs=logs,
            settings_link=settings_link,
            configuration=configuration,
            tls_context=tls_context,
            issuer=options.issuer,
            audience=options.audience,
            journal=journal,
            version=version,
            statm=statm,
        )
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m runagentd.gateway", description="started by 'runagentd serve'")
    parser.add_argument("--uid", type=int, required=True)
    parser.add_argument("--gid", type=int, required=True)
    parser.add_argument("--audience", required=True)
    parser.add_argument("--issuer", required=True)
    parser.add_argument("--state-id", default="")
    log.add_options(parser)
    return parser


def _descriptors() -> dict[str, int]:
    passed = inherited.descriptors(os.environ)
    needed = ("http" if "workers" not in passed else "workers", "lifeline", "control", "egress", "data", "settings")
    missing = [name for name in needed if name not in passed]
    if missing:
        hint = "the gateway is started by 'runagentd serve', or by systemd"
        raise ConfigurationError(
            Problem("LISTEN_FDNAMES", f"no descriptor was passed for {', '.join(missing)}", (hint,))
        )
    return passed


def _version() -> str:
    try:
        return importlib.metadata.version("runagentd")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"  # a checkout that was not installed


async def _serve(
    clients: socket.socket,
    *,
    lifeline: int,
    control: socket.socket,
    egress: socket.socket,
    folder: Path,
    logs: int | None,
    settings_link: socket.socket,
    configuration: Configuration,
    tls_context: ssl.SSLContext | None,
    issuer: str,
    audience: str,
    journal: log.Log,
    version: str,
    statm: int,
) -> None:
    loop = asyncio.get_running_loop()
    application = Application(
        configuration=configuration,
        issuer=issuer,
        audience=audience,
        control=control,
        egress=egress,
        folder=folder,
        secure=configuration.settings.tls,
        logs=logs,
        log=journal,
        version=version,
    )
    application.report_use()
    application.egress.start()
    over = asyncio.Event()

    def settings_changed() -> None:
        try:
            changed = receive(settings_link)
            if changed is not None and configuration.settings.workers == 1:
                tls.renew(tls_context, changed.files, journal)
        except (RecordError, OSError) as error:
            journal.error("new settings cannot be read; those before stay", problem=str(error))
            return
        if changed is None:
            loop.remove_reader(settings_link)  # the foreman is gone, and the lifeline says so, too
        else:
            application.configure(changed)

    inherited.watch(lifeline, over.set)
    loop.add_reader(settings_link, settings_changed)
    loop.add_signal_handler(signal.SIGTERM, application.announcements.drain, DRAIN_SECONDS)
    # Ctrl+C goes to every process of a terminal's group; the foreman decides what it means.
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    serving = _listening if configuration.settings.workers == 1 else _relaying
    shutdown = serving(clients, application, tls_context, journal)
    link = loop.create_task(application.link.run())
    drained = loop.create_task(application.announcements.drained.wait())
    ended = loop.create_task(over.wait())
    collecting = loop.create_task(collector.pace(statm))
    try:
        await asyncio.wait({drained, ended, link}, return_when=asyncio.FIRST_COMPLETED)
        if drained.done() and not ended.done():
            await shutdown()
    finally:
        for task in (drained, ended, link, collecting):
            task.cancel()
        application.close()
    if link.done() and not link.cancelled() and link.exception() is not None:
        journal.error("the link to the supervisor failed", problem=type(link.exception()).__name__)
        os._exit(1)  # nothing works without it; whoever started us starts another


def _listening(
    http: socket.socket, application: Application, tls_context: ssl.SSLContext | None, journal: log.Log
) -> Callable[[], Awaitable[None]]:
    """Read HTTP ourselves; gives what ends that."""
    server = Server(application.answer, front=lambda: application.front)
    listener = Listener(
        http,
        protocol=server.protocol,
        place=application.place,
        connections_max=raise_descriptor_limit(),
        tls=tls_context,
    )
    listener.start(BACKLOG)
    application.connections = lambda: (listener.connections, listener.connections_max)
    journal.info("serving", address=_address(http))

    async def shutdown() -> None:
        listener.close()
        await server.shutdown(SHUTDOWN_SECONDS)

    return shutdown


def _relaying(
    introductions: socket.socket, application: Application, _: ssl.SSLContext | None, journal: log.Log
) -> Callable[[], Awaitable[None]]:
    """Have workers read HTTP; gives what ends that."""
    workers = Workers(
        introductions,
        answer=application.answer,
        front=lambda: application.front,
        place=application.place,
        connections_max=raise_descriptor_limit(),
        log=journal,
    )
    workers.start()
    application.connections = lambda: (workers.connections, workers.connections_max)
    application.workers = workers.figures
    journal.info("serving through workers")

    async def shutdown() -> None:
        await workers.shutdown(SHUTDOWN_SECONDS)

    return shutdown


def _address(http: socket.socket) -> str:
    host, port = http.getsockname()[:2]
    return f"[{host}]:{port}" if http.family is socket.AF_INET6 else f"{host}:{port}"


if __name__ == "__main__":
    sys.exit(main())
