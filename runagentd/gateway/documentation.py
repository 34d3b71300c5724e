"""`/docs`: a page that shows what can be called, and tries it. It holds nothing secret and needs no token itself.

Runs as: the gateway. The files are read when this module is imported: once confined, the gateway may not reach them.
Reads from strangers: nothing; what agents wrote is fetched by the page, with the reader's token, and shown as text.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from runagentd.gateway.exchange import Exchange, Reply

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy, level 3: nothing inline, nothing from elsewhere, in nobody's frame."""

_TYPES = {
    "docs": ("docs.html", "text/html; charset=utf-8"),
    "docs.css": ("docs.css", "text/css; charset=utf-8"),
    "docs.js": ("docs.js", "text/javascript; charset=utf-8"),
}
_FILES = {
    path: ((Path(__file__).parent / "pages" / name).read_bytes(), content_type)
    for path, (name, content_type) in _TYPES.items()
}
_TAGS = {path: f'"{hashlib.sha256(body).hexdigest()[:32]}"' for path, (body, _) in _FILES.items()}


def find(path: str, exchange: Exchange) -> Reply | None:
    """The file at this path, if there is one."""
    if path not in _FILES:
        return None
    body, content_type = _FILES[path]
    headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache", "ETag": _TAGS[path]}
    if exchange.header("if-none-match") == _TAGS[path]:
        return Reply(304, b"", headers=headers)
    return Reply(200, body, content_type, headers)
