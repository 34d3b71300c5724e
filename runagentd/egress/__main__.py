"""The egress process: the only one that connects anywhere. It fetches the keys of the issuers that are configured, and
leads builders of environments to the package index.

Runs as: its own uid, with no capability; root until `confine`, which reads nothing but its own files.
Reads from strangers: servers of issuers, once confined; a gateway that may be captured. Bytes of builders and of
package hosts pass through it unread.
Holds no secret: what it fetches is public. Started as `python -m runagentd.egress`, with LISTEN_FDS for `lifeline` (its
end is ours), `settings` (SOCK_SEQPACKET, see `wire.settings`), `gateway` (SOCK_SEQPACKET, see `wire.issuers`) and
`supervisor` (SOCK_SEQPACKET, see `wire.packages`).
"""

from __future__ import annotations

import argparse
import asyncio
import encodings.idna
import os
import platform
import signal
import socket
import sys
from collections.abc import Sequence

import uvloop

from runagentd import confinement, datagrams, inherited, log, received
from runagentd.egress.relay import Relays
from runagentd.egress.sources import Sources
from runagentd.wire import issuers
from runagentd.wire.record import RecordError
from runagentd.wire.settings import EgressSettings

_IMPORTED_BEFORE = (encodings.idna,)
"""Looked up by name when a host is resolved, and then the interpreter's folder may be out of reach."""
TASKS_MAX = 16
"""getaddrinfo(3) blocks, so it is called in threads."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 at the foreman's end or SIGTERM, 2 where it was started wrongly."""
    options = _parser().parse_args(arguments)
    journal = log.from_options(options, source="egress")
    try:
        passed = inherited.descriptors(os.environ)
        os.environ.clear()
        link, gateway = socket.socket(fileno=passed["settings"]), socket.socket(fileno=passed["gateway"])
        supervisor = socket.socket(fileno=passed["supervisor"])
        found = received.receive(link, EgressSettings)
        if found is None:
            raise RecordError("the foreman sent no settings")
        confine(options.uid, options.gid)
    except KeyError as error:
        journal.error("the egress process cannot start", problem=f"no descriptor was passed for {error}")
        return 2
    except (OSError, RecordError) as error:
        journal.error("the egress process cannot start", problem=str(error))
        return 2
    log.forward_standard_logging(journal)
    uvloop.run(_serve(found, link, gateway, supervisor, passed["lifeline"], journal))
    return 0


def confine(uid: int, gid: int) -> None:
    """What fetching can do without is given up; PermissionError where anything of it is left."""
    # No Unix socket: what listens on a path of this host (D-Bus, containers) was not meant for who reads the network.
    # getaddrinfo(3) asks nscd and the kernel (netlink(7)) there first, and goes on without them.
    program = confinement.program(
        platform.machine(),
        allowed=("socket", "connect"),
        threads=True,
        families=(socket.AF_INET, socket.AF_INET6),
    )
    confinement.confine(uid, gid, program, tasks=TASKS_MAX)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m runagentd.egress", description="started by 'runagentd serve'")
    parser.add_argument("--uid", type=int, required=True)
    parser.add_argument("--gid", type=int, required=True)
    log.add_options(parser)
    return parser


async def _serve(
    first: tuple[EgressSettings, dict[str, int]],
    link: socket.socket,
    gateway: socket.socket,
    supervisor: socket.socket,
    lifeline: int,
    journal: log.Log,
) -> None:
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    to_gateway = GatewayLink(gateway, journal)
    sources = Sources(tell=to_gateway.tell, log=journal)
    to_gateway.start(sources)
    settings = first[0]
    Relays(supervisor, lambda: settings.package_hosts, journal).start()

    def configure(found: tuple[EgressSettings, dict[str, int]]) -> None:
        nonlocal settings
        settings, files = found
        for descriptor in files.values():
            os.close(descriptor)
        sources.configure(settings.issuers)

    def settings_changed() -> None:
        try:
            found = received.receive(link, EgressSettings)
        except (RecordError, OSError) as error:
            journal.error("new settings cannot be read; those before stay", problem=str(error))
            return
        if found is None:
            loop.remove_reader(link)  # the foreman is gone, and the lifeline says so, too
        else:
            configure(found)

    link.setblocking(False)
    loop.add_reader(link, settings_changed)
    loop.add_reader(lifeline, over.set)
    loop.add_signal_handler(signal.SIGTERM, over.set)
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    configure(first)
    if first[0].issuers:
        journal.info("fetching the keys of issuers", issuers=" ".join(each.name for each in first[0].issuers))
    await over.wait()


class GatewayLink:
    """Tells the gateway key sets, and hears what it asks for. Only the newest set of an issuer ever waits."""

    def __init__(self, connection: socket.socket, journal: log.Log) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._journal = journal
        self._unsent: dict[str, issuers.KeySet] = {}

    def start(self, sources: Sources) -> None:
        """Read from now on."""

        def received(message: issuers.FromGateway) -> None:
            match message:
                case issuers.Greeting():
                    sources.tell_all()
                case issuers.Refresh():
                    sources.ask(message.issuer)

        datagrams.listen(
            self._socket,
            parse=issuers.parse_from_gateway,
            received=received,
            bytes_max=issuers.MESSAGE_BYTES_MAX,
            log=self._journal,
            wrong="the gateway sent what is no message",
        )

    def tell(self, keys: issuers.KeySet) -> None:
        """Send, or keep until there is room: a gateway that does not read is one that is being started again."""
        waiting = bool(self._unsent)
        self._unsent[keys.issuer] = keys
        if not waiting:
            self._flush()

    def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        while self._unsent:
            name, keys = next(iter(self._unsent.items()))
            try:
                self._socket.send(issuers.pack(keys))
            except (BlockingIOError, InterruptedError):
                loop.add_writer(self._socket, self._flush)
                return
            except OSError as error:
                self._journal.error("the gateway cannot be told of keys", problem=error.strerror)
                self._unsent.clear()
                break
            del self._unsent[name]
        loop.remove_writer(self._socket)


if __name__ == "__main__":
    sys.exit(main())
