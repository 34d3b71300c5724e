"""The operator's door to the supervisor: one request per connection, answered once, perhaps after words of progress.

Runs as: the supervisor.
Reads from strangers: no. Who is at the other end is asked of the kernel (SO_PEERCRED); only root is answered.
"""

from __future__ import annotations

import asyncio
import os
import socket
import traceback
from collections.abc import Awaitable, Callable

from runagentd import kernel
from runagentd.log import Log
from runagentd.supervise.gateway_link import peer_uid
from runagentd.supervise.waiting import readable
from runagentd.wire import admin
from runagentd.wire.record import RecordError

_CONNECTIONS_MAX = 64
_REQUEST_SECONDS = 5.0
_DESCRIPTORS_MAX = 4

Tell = Callable[[str], None]
Answer = Callable[[admin.Request, list[int], Tell], Awaitable[admin.Reply]]


class AdminServer:
    """Listens on a SOCK_SEQPACKET socket that somebody else bound."""

    def __init__(self, listener: socket.socket, answer: Answer, log: Log) -> None:
        self._log = log
        self._listener = listener
        self._answer = answer
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        self._listener.setblocking(False)
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    async def close(self) -> None:
        """Give up what is being answered; nothing of it goes on when this returns."""
        asyncio.get_running_loop().remove_reader(self._listener)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return
        if peer_uid(connection) != 0 or len(self._tasks) >= _CONNECTIONS_MAX:
            connection.close()
            return
        task = asyncio.create_task(self._serve(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: socket.socket) -> None:
        descriptors: list[int] = []
        with connection:
            connection.setblocking(False)
            connection.setsockopt(socket.SOL_SOCKET, kernel.SO_SNDBUFFORCE, 2 * admin.MESSAGE_BYTES_MAX)
            try:
                async with asyncio.timeout(_REQUEST_SECONDS):
                    data = await _receive(connection, descriptors)
                try:
                    reply = await self._answer(admin.parse_request(data), descriptors, _teller(connection))
                except RecordError as error:
                    reply = admin.Failed(message=f"not a request of this version: {error}")
                except Exception as error:  # noqa: BLE001  (one request that fails must not end the supervisor)
                    self._log.error("a request of the operator failed", traceback=traceback.format_exc(), error=error)
                    reply = admin.Failed(message="the request failed; the daemon's log says why")
                async with asyncio.timeout(_REQUEST_SECONDS):
                    await asyncio.get_running_loop().sock_sendall(connection, admin.pack(reply))
            except (TimeoutError, OSError) as error:
                self._log.warning("an operator's connection ended early", reason=str(error) or "timed out")
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)


def _teller(connection: socket.socket) -> Tell:
    """Sends progress as long as there is room for it; who has gone away without the answer gives the request up."""
    task = asyncio.current_task()

    def tell(text: str) -> None:
        try:
            connection.send(admin.pack(admin.Progress(text=text)), socket.MSG_DONTWAIT)
        except BlockingIOError:
            pass
        except OSError:
            if task is not None:
                task.cancel()

    return tell


async def _receive(connection: socket.socket, descriptors: list[int]) -> bytes:
    while True:
        try:
            data, ancillary, _, _ = connection.recvmsg(
                admin.MESSAGE_BYTES_MAX, socket.CMSG_SPACE(_DESCRIPTORS_MAX * 4), socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            await readable(connection.fileno())
            continue
        descriptors += kernel.received_descriptors(ancillary)
        return data
