"""What aiohttp lets pass in a request's head and RFC 9112 does not: where two readers could differ, we read nothing.

Runs as: the gateway, or its workers. Pure.
Reads from strangers: yes, heads that aiohttp has taken apart. tests/hostile holds what was found to need a rule here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

HOST = re.compile(r"(?:\[[0-9A-Za-z:.%_~-]+\]|[0-9A-Za-z._~%-]*)(?::[0-9]{0,5})?")
"""RFC 3986, section 3.2.2, without the characters that no host of the internet has."""

_VERSIONS = ((1, 0), (1, 1))
# Fields with one value, of which we would take the first and somebody before us the last (RFC 9110, section 5.3).
# Host, Content-Length, Content-Type and Transfer-Encoding are aiohttp's business: it refuses the second.
_ONCE = frozenset(
    {
        "access-control-request-method",
        "authorization",
        "idempotency-key",
        "origin",
        "runagent-timeout",
        "sec-websocket-key",
        "sec-websocket-version",
        "traceparent",
        "upgrade",
        "x-request-id",
    }
)


_REPEATED = re.compile(r"Duplicate '(Content-Length|Content-Type|Host|Transfer-Encoding)' header found", re.IGNORECASE)


def repeated(message: str) -> str | None:
    """The field that aiohttp's parser found twice, by its message; of ours nothing but the field's name is said on."""
    found = _REPEATED.search(message)
    return found[1].title() if found is not None else None


def is_in_doubt(version: tuple[int, int], target: str, fields: Mapping[str, str]) -> bool:
    """Whether this head could be read otherwise by a proxy. `fields` is a multi-dictionary, each name in any case."""
    if version not in _VERSIONS:
        return True  # aiohttp takes "HTTP/2.0", "HTTP/0.9" and a line without any version, too
    coding = fields.get("Transfer-Encoding")
    # RFC 9112, section 6.1: no other coding is known here, and a message of HTTP/1.0 that has one is framed wrongly.
    if coding is not None and (version == (1, 0) or coding.lower() != "chunked" or not coding.isascii()):
        return True
    if HOST.fullmatch(fields.get("Host", "")) is None:
        return True
    if "#" in target or "@" in target.partition("://")[2].partition("/")[0]:
        return True  # a fragment, which is the client's own business, or a user's name (RFC 9110, section 4.2.4)
    if len(fields) == len(list(fields)):
        return False  # a multi-dictionary counts lines, and lists each name once
    names = [name.lower() for name, _ in fields.items()]
    return any(names.count(name) > 1 for name in _ONCE)


def is_last(method: str, fields: Mapping[str, str]) -> bool:
    """Whether the connection has to end with the answer to this request.

    After a chunked body aiohttp takes the last field of its trailer section for one of the next request's (seen with
    3.14.5). Where another protocol is asked for, it drops what came with the request; and who asked may take our next
    answers for that protocol.
    """
    return "Transfer-Encoding" in fields or "Upgrade" in fields or method == "CONNECT"


WEBSOCKET_VERSION = "13"
_NONCE = re.compile(r"[A-Za-z0-9+/]{21}[AQgw]==")
"""16 bytes in base 64"""


def opens_websocket(method: str, version: tuple[int, int], field: Callable[[str], str | None]) -> bool:
    """Whether this is a good opening handshake (RFC 6455, section 4.2.1): aiohttp takes versions 7 and 8, too."""
    tokens = {token.strip().lower() for token in (field("Connection") or "").split(",")}
    protocol = field("Upgrade") or ""
    return (
        method == "GET"
        and version == (1, 1)
        and "upgrade" in tokens
        # isascii: "\u212a" is a "k" in lower case; aiohttp's parser knows that, and its WebSocket does not.
        and protocol.isascii()
        and protocol.lower() == "websocket"
        and field("Sec-WebSocket-Version") == WEBSOCKET_VERSION
        and _NONCE.fullmatch(field("Sec-WebSocket-Key") or "") is not None
    )
