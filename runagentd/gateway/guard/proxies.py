"""Who the client is, where a proxy that the operator trusts stands before us.

Runs as: the gateway. Pure.
Reads from strangers: yes, the fields Forwarded (RFC 7239) and X-Forwarded-For. Anybody may send them; they count on
connections from a trusted network only, and then from the right: each hop appends, so what is left of the first address
that is no proxy of ours is whatever the client wrote.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Callable

from runagentd.wire.settings import Http

FIELD_CHARACTERS_MAX = 4096

_FOR = re.compile(r'(?:^|;)\s*for=(?:"([^"\\]*)"|([^\s;",]*))\s*(?=;|$)', re.IGNORECASE)
_BRACKETED = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?")
_WITH_PORT = re.compile(r"([0-9.]+):[0-9]{1,5}")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Proxies:
    """The networks that may say who the client is, and the field in which they say it."""

    def __init__(self, settings: Http) -> None:
        self._networks = tuple(ipaddress.ip_network(text) for text in settings.trusted_proxies)
        self._field = settings.forwarded

    @property
    def none(self) -> bool:
        """Whether nobody is trusted, and the peer is the client."""
        return not self._networks

    def client(self, peer: str, header: Callable[[str], str | None]) -> str:
        """The address of the client; the proxy's own where it says nothing that can be understood."""
        if not self.trusts(peer):
            return peer
        field = header(self._field)
        if field is None or len(field) > FIELD_CHARACTERS_MAX:
            return peer
        found = peer
        for hop in reversed(field.split(",")):
            address = _address(hop if self._field == "x-forwarded-for" else _for(hop))
            if address is None:
                return found
            found = address
            if not self.trusts(found):
                return found
        return found

    def trusts(self, address: str) -> bool:
        """Whether this is one of them."""
        parsed = parse(address)
        return parsed is not None and any(parsed in network for network in self._networks)


@functools.lru_cache(maxsize=4096)
def parse(text: str) -> Address | None:
    """An address, an IPv4 one also where it is written as an IPv6 one (RFC 4291, section 2.5.5.2)."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address if mapped is None else mapped


def _for(element: str) -> str:
    """The `for` of one element of Forwarded; empty where there is none."""
    match = _FOR.search(element)
    return "" if match is None else match[1] or match[2] or ""


def _address(text: str) -> str | None:
    text = text.strip()
    for form in (_BRACKETED, _WITH_PORT):
        match = form.fullmatch(text)
        if match is not None:
            text = match[1]
    parsed = parse(text)
    return None if parsed is None else str(parsed)
