"""What stands between a client and us: proxies that say who it is, and browsers that say which page it is of.

Runs as: the gateway. Pure.
Reads from strangers: yes, the fields of a request. A browser's page may call us where the operator lists its origin,
exactly as the browser writes it (RFC 6454); a client that sends no Origin is no browser, and its token says enough.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable

from runagentd.gateway.exchange import Exchange, Reply
from runagentd.gateway.guard.proxies import Proxies
from runagentd.wire.settings import Http

METHODS = "GET, HEAD, POST"
FIELDS = (
    "Authorization, Content-Type, Accept, Idempotency-Key, Runagent-Timeout, X-Request-ID, traceparent, tracestate, "
    "Cache-Control"
)
EXPOSED = (
    "X-Request-ID, Retry-After, RateLimit, RateLimit-Policy, X-RateLimit-Limit, X-RateLimit-Remaining, "
    "X-RateLimit-Reset, X-RateLimit-Reset-After, Idempotency-Replayed, Cache-Status, Age, ETag, traceresponse"
)
MAX_AGE_SECONDS = 600


class Front:
    """The settings of `[http]` in use. `secure` is whether we speak TLS ourselves."""

    def __init__(self, settings: Http, *, secure: bool) -> None:
        self._origins = frozenset(settings.cors_origins)
        self._secure = secure
        proxies = Proxies(settings)
        self.proxies = None if proxies.none else proxies

    def fields(self, origin: str | None) -> dict[str, str]:
        """What tells a browser that the page of this origin may read the answer; nothing without such origins."""
        if not self._origins:
            return {}
        if origin not in self._origins:
            return {"Vary": "Origin"}
        return {"Vary": "Origin", "Access-Control-Allow-Origin": origin or "", "Access-Control-Expose-Headers": EXPOSED}

    def preflight(self, exchange: Exchange) -> Reply | None:
        """The answer to OPTIONS of a browser that asks first (Fetch, section 3.2.2) and shows no token; else None."""
        if exchange.header("access-control-request-method") is None:
            return None
        if exchange.header("origin") not in self._origins:
            return None
        headers = {
            "Access-Control-Allow-Methods": METHODS,
            "Access-Control-Allow-Headers": FIELDS,
            "Access-Control-Max-Age": str(MAX_AGE_SECONDS),
        }
        return Reply(204, b"", headers=headers)

    def client(self, peer: str, header: Callable[[str], str | None]) -> str:
        """The address of the client behind `peer`, which may be a proxy of ours."""
        return peer if self.proxies is None else self.proxies.client(peer, header)

    def foreign(self, exchange: Exchange) -> bool:
        """Whether a page asks for a WebSocket that may not (RFC 6455, section 10.2): CORS does not cover those."""
        origin = exchange.header("origin")
        if origin is None or origin in self._origins:
            return False
        try:
            parts = urllib.parse.urlsplit(origin)
        except ValueError:
            return True
        scheme = "https" if self._secure else "http"
        # Behind a proxy that speaks TLS for us, the page's scheme is https, and ours is not.
        fits = parts.scheme == scheme or (parts.scheme == "https" and self.proxies is not None)
        return not (fits and parts.netloc.lower() == (exchange.header("host") or "").lower())
