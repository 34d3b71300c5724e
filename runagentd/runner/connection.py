"""The runner's end of the channel, and the supply of new ones.

Runs as: the runner, in the sandbox.
Reads from strangers: the gateway, which is trusted with calls and checked for form by `wire.channel.Splitter`.
"""

from __future__ import annotations

import _socket
import array
import fcntl
import os
import signal
import struct
import threading

from runagentd.wire.channel import FROM_GATEWAY, ChannelError, RawFrame, Splitter

_RECEIVE_BYTES = 64 * 1024
_SUPPLY_CHANNEL = b"C"

# fcntl(2); Python's module has no name for it. The owner is {int type; pid_t pid}, F_OWNER_TID is 0.
_F_SETOWN_EX = 15
_F_SETSIG = getattr(fcntl, "F_SETSIG", 10)
WAKE_SIGNAL = signal.SIGURG
"""Ignored by default, so that a child or a reset handler makes it harmless; nobody uses it for urgent data."""


class Connection:
    """One channel; `receive` and `send` may be used from different threads, each from one at a time."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, descriptor)
        self._socket.settimeout(None)  # an agent may have called socket.setdefaulttimeout()
        self._splitter = Splitter(FROM_GATEWAY)
        self.descriptor = descriptor
        self.ended = False

    def receive(self, *, wait: bool) -> list[RawFrame] | None:
        """Frames that have come (perhaps none yet); None at the end, or without `wait` where nothing is there."""
        try:
            data = self._socket.recv(_RECEIVE_BYTES, 0 if wait else _socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError:
            if not self._is_over():
                raise
            data = b""
        if data:
            try:
                return self._splitter.feed(data)
            except ChannelError:
                pass  # a gateway that breaks the protocol is as good as gone; the supervisor gives us another
        self.ended = True
        return None

    def send(self, data: bytes | memoryview) -> None:
        """All of it, waiting as long as it takes; after the end, nothing."""
        if not self.ended:
            try:
                self._socket.sendall(data)
            except OSError:
                if not self._is_over():
                    raise
                self.ended = True

    def _is_over(self) -> bool:
        """Whether an OSError came from the channel: a signal handler that the agent left behind may raise one too.

        Bytes may be lost by that: better a process that ends and says why than a channel that seems to be closed.
        """
        try:
            return not self._socket.recv(1, _socket.MSG_PEEK | _socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def wake_by_signal(self) -> None:
        """Send WAKE_SIGNAL to the calling thread whenever something arrives or the other end closes."""
        descriptor = self.descriptor
        fcntl.fcntl(descriptor, _F_SETOWN_EX, struct.pack("ii", 0, threading.get_native_id()))
        fcntl.fcntl(descriptor, _F_SETSIG, WAKE_SIGNAL)
        fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_ASYNC)

    def close(self) -> None:
        self.ended = True
        self._socket.close()


class Supply:
    """The socket over which the supervisor sends new channels."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, descriptor)
        self._socket.settimeout(None)

    def next(self) -> Connection | None:
        """Wait for the next channel; None where the supervisor is gone."""
        while True:
            descriptors = array.array("i")
            try:
                message, ancillary, _, _ = self._socket.recvmsg(
                    16, _socket.CMSG_SPACE(descriptors.itemsize), _socket.MSG_CMSG_CLOEXEC
                )
            except OSError:
                return None
            for level, kind, data in ancillary:
                if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                    descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
            if message == _SUPPLY_CHANNEL and len(descriptors) == 1:
                return Connection(descriptors[0])
            for descriptor in descriptors:
                os.close(descriptor)
            if not message:
                return None

    def close(self) -> None:
        self._socket.close()
