"""The frames of a WebSocket's client, in front of aiohttp's reader: what RFC 6455 forbids, and aiohttp lets pass.

Runs as: the gateway, or its workers.
Reads from strangers: yes, the heads of frames; payloads are passed on unread.

aiohttp takes frames without a mask (section 5.1: "MUST close the connection"), lengths that are written longer than
they need to be (section 5.2), and a new message in the midst of one whose first piece was empty (section 5.4).
"""

from __future__ import annotations

from typing import Protocol

_FIN, _OPCODE, _MASK, _LENGTH = 0x80, 0x0F, 0x80, 0x7F
_LONGER = {126: 2, 127: 8}
"""how many more bytes a length takes"""
_LONGER_FROM = {126: 126, 127: 65536}
_KEY_BYTES = 4
_CONTROL = 0x8
_FORBIDDEN = b"\xf0\x80\0\0\0\0"
"""A frame with all reserved bits: what aiohttp's reader refuses as it refuses all that it finds wrong itself (1002)."""


class Reader(Protocol):
    """The part of aiohttp's WebSocketReader that a connection uses."""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """(whether the connection is to be closed, what was not used)."""

    def feed_eof(self) -> None:
        """Nothing more will come."""


class Frames:
    """Where frames begin and end in what a client sends, and whether each may be there."""

    def __init__(self) -> None:
        self._held = b""
        """the beginning of a head that has not come whole"""
        self._payload_bytes = 0
        """of the frame at hand, still to come"""
        self._continues = False
        """whether a message has begun and has not ended"""

    def take(self, data: bytes) -> tuple[bytes, bool]:
        """What may be passed on, in whole heads, and whether all was good; once it was not, it is over."""
        if self._held:
            data, self._held = self._held + data, b""
        position = 0
        while position < len(data):
            if self._payload_bytes:
                taken = min(self._payload_bytes, len(data) - position)
                self._payload_bytes -= taken
                position += taken
                continue
            size = _head_bytes(data, position)
            if size is None:
                self._held = data[position:]
                return data[:position], True
            if not self._begin(data[position : position + size]):
                return data[:position], False
            position += size
        return data, True

    def _begin(self, head: bytes) -> bool:
        """Whether a frame with this head may be here; if so, its payload is next."""
        opcode, short = head[0] & _OPCODE, head[1] & _LENGTH
        bytes_more = _LONGER.get(short, 0)
        length = int.from_bytes(head[2 : 2 + bytes_more]) if bytes_more else short
        if not head[1] & _MASK or length < _LONGER_FROM.get(short, 0):
            return False
        if opcode < _CONTROL:
            if opcode and self._continues:
                return False
            self._continues = not head[0] & _FIN
        self._payload_bytes = length
        return True


def _head_bytes(data: bytes, position: int) -> int | None:
    """How long the head is that begins here; None where not all of it has come."""
    if len(data) - position < 2:
        return None
    second = data[position + 1]
    size = 2 + _LONGER.get(second & _LENGTH, 0) + (_KEY_BYTES if second & _MASK else 0)
    return size if len(data) - position >= size else None


class StrictReader:
    """Stands for aiohttp's reader, which gets what is good, and in place of a forbidden frame one that it refuses."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._frames = Frames()
        self._over = False

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        if self._over:
            return self._reader.feed_data(data)  # which has failed, and says so
        passed, good = self._frames.take(data)
        if good:
            return self._reader.feed_data(passed)
        self._over = True
        return self._reader.feed_data(passed + _FORBIDDEN)

    def feed_eof(self) -> None:
        self._reader.feed_eof()
