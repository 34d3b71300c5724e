"""The plain request, which nearly all calls are: a POST whose head and body have come in one piece.

Runs as: the gateway, or its workers. Pure.
Reads from strangers: yes. Says yes to requests of one narrow form, about which no two readings of RFC 9112 differ, and
None to all others, good or bad: those are the HTTP library's business, from their first byte on.
"""

from __future__ import annotations

import re

import msgspec

from runagentd.gateway.strict import HOST

HEAD_BYTES_MAX = 16 * 1024
FIELDS_MAX = 32

# RFC 9112, sections 3 and 5, RFC 3986, section 3.3: the target in origin form and of the characters that a path and a
# query are made of, no folded lines, nothing but visible ASCII, spaces and tabs in a value.
# Possessive quantifiers: a head that does not match is refused in linear time.
_HEAD = re.compile(
    rb"POST (/[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*+) HTTP/1\.1\r\n"
    rb"((?:[A-Za-z0-9!#$%&'*+.^_`|~-]++:[ -~\t]*+\r\n)++)\r\n"
)
_LENGTH = re.compile(r"[0-9]{1,9}")
_NOT_PLAIN = frozenset({"transfer-encoding", "upgrade", "expect", "te", "trailer", "http2-settings"})
_CONNECTION = frozenset({"", "keep-alive"})
_EVENT_STREAM = "text/event-stream"


class Head(msgspec.Struct, frozen=True):
    """All before a body, as it came, and what it means. The names of `fields` are in lower case, each was sent once."""

    text: bytes
    target: str
    fields: dict[str, str]
    body_bytes: int


class Plain(msgspec.Struct, frozen=True):
    """One such request."""

    head: Head
    body: bytes
    size: int
    """how many bytes of the input it took"""


def parse(data: bytes, known: Head | None = None) -> Plain | None:
    """The request at the start of `data`, if it is plain and complete; `known` may be the head of another one.

    Most clients send the same head again and again on a connection: what it means need not be found out twice.
    """
    head = known if known is not None and data.startswith(known.text) else _head(data)
    if head is None:
        return None
    start = len(head.text)
    end = start + head.body_bytes
    return Plain(head, data[start:end], end) if len(data) >= end else None


def _head(data: bytes) -> Head | None:
    match = _HEAD.match(data, 0, HEAD_BYTES_MAX)
    if match is None:
        return None
    lines = match[2].decode("ascii").split("\r\n")
    fields: dict[str, str] = {}
    for line in lines[:-1]:
        name, _, value = line.partition(":")
        fields[name.lower()] = value.strip(" \t")
    # A field that was sent twice can be read in two ways.
    if len(fields) != len(lines) - 1 or len(fields) > FIELDS_MAX or not _NOT_PLAIN.isdisjoint(fields):
        return None
    host = fields.get("host")
    if fields.get("connection", "").lower() not in _CONNECTION or not host or HOST.fullmatch(host) is None:
        return None
    if _EVENT_STREAM in fields.get("accept", "").lower():
        return None  # its answer is a stream
    length = fields.get("content-length", "")
    if not _LENGTH.fullmatch(length):
        return None
    return Head(match[0], match[1].decode("ascii"), fields, int(length))
