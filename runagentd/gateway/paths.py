"""The path of a request into its parts.

Runs as: the gateway. Pure.
Reads from strangers: yes. Works on the path as it was sent: a percent-encoded slash is part of a name, not a border.
"""

from __future__ import annotations

import urllib.parse


def segments(path: str) -> tuple[str, ...] | None:
    """The decoded segments of an origin-form or absolute-form target; None where it is neither, or not UTF-8.

    Clients build URLs from bases with and without a final slash, so more than one slash at the start is one.
    """
    if not path.startswith("/"):
        scheme, separator, rest = path.partition("://")
        if not separator or scheme.lower() not in ("http", "https"):
            return None
        path = "/" + rest.partition("/")[2]
    if "%" not in path:
        return tuple(path.lstrip("/").split("/"))
    try:
        return tuple(urllib.parse.unquote(part, errors="strict") for part in path.lstrip("/").split("/"))
    except UnicodeDecodeError:
        return None


def query_value(query: str, name: str) -> str | None:
    """The value of the one parameter `name` in a query; None where it is missing or is there twice."""
    try:
        pairs = urllib.parse.parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=32)
    except (ValueError, UnicodeDecodeError):
        return None
    values = [value for key, value in pairs if key == name]
    return values[0] if len(values) == 1 else None
