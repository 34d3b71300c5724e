"""Get an issuer's key set: over TLS from where the operator says, or where the issuer's discovery document says.

Runs as: the egress process.
Reads from strangers: yes, what servers answer. Bounded in size and time; no redirect is followed, and an address that a
server names, and not the operator, leads to public addresses only (else a hostile issuer could have us ask the host's
own services, or a cloud's metadata address). Any failure is one `FetchError`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import urllib.parse
from typing import Any

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult

from runagentd.egress.keys import BYTES_MAX
from runagentd.egress.members import Doubled, outline
from runagentd.wire.settings import IssuerSource

SECONDS_MAX = 10.0
DISCOVERY = "/.well-known/openid-configuration"
"""OpenID Connect Discovery 1.0, section 4."""


class FetchError(Exception):
    """Nothing was to be had; the text is for the operator's log."""


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""RFC 6052: the last 32 bits are an IPv4 address, which a gateway of the network connects to."""
_UNICAST = ipaddress.IPv6Network("2000::/3")
"""RFC 4291, section 2.4, and IANA: all that was given out of IPv6. `is_global` takes what is not known for public, such
as IPv4-translated (::ffff:0:0:0/96, RFC 2765), site-local (fec0::/10, RFC 3879) and segment (5f00::/16) addresses."""
_DOCUMENTATION = ipaddress.IPv6Network("3fff::/20")
"""RFC 9637, which not every `ipaddress` knows."""


class _Discovery(msgspec.Struct):
    issuer: str
    jwks_uri: str


_DISCOVERY = msgspec.json.Decoder(_Discovery)


async def fetch(source: IssuerSource) -> bytes:
    """The bytes of the key set; `FetchError` for whatever goes wrong."""
    try:
        async with asyncio.timeout(SECONDS_MAX):
            if source.jwks:
                return await _get(source.jwks, source.ca, public_only=False)
            document = await _get(source.issuer.rstrip("/") + DISCOVERY, source.ca, public_only=False)
            address = _jwks_uri(document, source.issuer)
            # On the issuer's own host the operator has chosen where we go; on another one the document has.
            elsewhere = _host(address) != _host(source.issuer)
            return await _get(address, source.ca, public_only=elsewhere)
    except TimeoutError as error:
        raise FetchError(f"there was no whole answer within {SECONDS_MAX:.0f} s") from error


def _jwks_uri(document: bytes, issuer: str) -> str:
    try:
        found = _DISCOVERY.decode(document)
        doubled = isinstance(outline(document), Doubled)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise FetchError("the discovery document is no JSON object with issuer and jwks_uri") from error
    if doubled:
        raise FetchError("a member of the discovery document is there twice")
    if found.issuer != issuer:
        # Section 4.3: else one tenant of a server could hand out another's keys.
        raise FetchError(f"the discovery document is of another issuer: {found.issuer!r:.200}")
    if not found.jwks_uri.startswith("https://") or len(found.jwks_uri) > 2048 or not found.jwks_uri.isprintable():
        raise FetchError(f"the discovery document names keys that are not behind https://: {found.jwks_uri!r:.200}")
    return found.jwks_uri


def _host(address: str) -> tuple[str | None, int | None]:
    try:
        parts = urllib.parse.urlsplit(address)
        return parts.hostname, parts.port
    except ValueError as error:
        raise FetchError(f"{address!r:.200} is no address") from error


async def _get(address: str, ca: bytes, *, public_only: bool) -> bytes:
    host, _ = _host(address)
    if public_only and host is not None and _is_private_literal(host):
        raise FetchError(_not_public(host))
    context = ssl.create_default_context(cadata=ca.decode("ascii", "replace") if ca else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    connector = aiohttp.TCPConnector(resolver=_Resolver(public_only=public_only), ssl=context, use_dns_cache=False)
    try:
        async with aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, trust_env=False
        ) as session:
            headers = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "runagentd"}
            async with session.get(address, allow_redirects=False, headers=headers) as answer:
                return await _content(answer)
    except FetchError:
        raise
    except (aiohttp.ClientError, OSError, ValueError, UnicodeError) as error:
        raise FetchError(f"{type(error).__name__}: {error}"[:300]) from error


async def _content(answer: aiohttp.ClientResponse) -> bytes:
    if 300 <= answer.status < 400:
        raise FetchError(f"the server answered {answer.status}, and redirects are not followed")
    if answer.status != 200:
        raise FetchError(f"the server answered {answer.status}")
    if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise FetchError("the server sent a compressed answer, which was not asked for")
    content = bytearray()
    async for piece in answer.content.iter_any():
        content += piece
        if len(content) > BYTES_MAX:
            raise FetchError(f"the answer is larger than {BYTES_MAX} bytes")
    return bytes(content)


def _is_private_literal(host: str) -> bool:
    try:
        return not _is_public(host)
    except ValueError:
        # A name's addresses are looked at when it is resolved. "127.1" and "2130706433" are none, and for inet_aton(3)
        # addresses; aiohttp resolves neither, so they would come by no look of ours.
        return host.replace(".", "").isdigit()


def _is_public(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        if inner is not None:
            return inner.is_global and not inner.is_multicast
        if address not in _UNICAST or address in _DOCUMENTATION:
            return False
    return address.is_global and not address.is_multicast


def _not_public(host: str) -> str:
    return (
        f"the discovery document sends us to {host!r:.200}, which is no public address; "
        "if it is right, write it as 'jwks' in the configuration"
    )


class _Resolver(AbstractResolver):
    """The system's, with a look at what it says: the addresses that are connected to are those that were looked at."""

    def __init__(self, *, public_only: bool) -> None:
        self._public_only = public_only

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """OSError where there is no address, FetchError where one is not to be asked."""
        loop = asyncio.get_running_loop()
        # Any: getaddrinfo(3)'s tuples differ by family.
        found: list[tuple[Any, ...]] = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family)
        results = []
        for each_family, _, protocol, _, address in found:
            if self._public_only and not _is_public(address[0]):
                raise FetchError(_not_public(host))
            results.append(
                ResolveResult(
                    hostname=host, host=address[0], port=port, family=each_family, proto=protocol,
                    flags=socket.AI_NUMERICHOST,
                )
            )  # fmt: skip
        return results

    async def close(self) -> None:
        """There is nothing to let go of."""
