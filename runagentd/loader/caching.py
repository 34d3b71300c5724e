"""An entrypoint's `cache`: that its answers may be kept, how long, and for whom.

Runs as: the loader.
Reads from strangers: yes, an agent's files.

    "cache": {"ttl": 60, "swr": 300, "scope": "private", "streams": true, "max_bytes": 65536}
"""

from __future__ import annotations

from runagentd.loader import schema
from runagentd.loader.findings import Findings, key_path, shown, similar
from runagentd.loader.tree import Number, Tree
from runagentd.wire.manifest import CACHE_SECONDS_MAX, CacheScope, Caching

EXAMPLE = 'write for example "cache": {"ttl": 60}'
_KEYS = schema.CACHE.keys()


def read(where: str, value: Tree, findings: Findings) -> Caching | None:
    """None where there is none, or it is wrong."""
    if value is None:
        return None
    place = f"{where}.cache"
    if not isinstance(value, dict):
        findings.problem(place, f"{shown(value)} is not an object", EXAMPLE)
        return None
    before = findings.found
    for key in value.keys() - _KEYS:
        # Unlike elsewhere in this file, no other version of RunAgent knows these: an unknown one is a mistake.
        meant = similar(key, _KEYS)
        hint = f'did you mean "{meant}"?' if meant else f"known are {', '.join(sorted(_KEYS))}"
        findings.problem(f"{place}.{key_path(key)}", "there is no such key", hint)
    if value.get("ttl") is None:
        findings.problem(f"{place}.ttl", "is missing: how many seconds an answer is good", EXAMPLE)
    ttl = _number(place, value, "ttl", 1, CACHE_SECONDS_MAX, 1, findings)
    swr = _number(place, value, "swr", 0, CACHE_SECONDS_MAX, 0, findings)
    size = _number(place, value, "max_bytes", 1, schema.CACHE_BYTES_MAX, 1024 * 1024, findings)
    scope = value.get("scope", "private")
    if not isinstance(scope, str) or scope not in set(CacheScope):
        findings.problem(f"{place}.scope", f'{shown(scope)} is none of "private", "tenant" and "public"')
        scope = "private"
    streams = value.get("streams", False)
    if not isinstance(streams, bool):
        findings.problem(f"{place}.streams", f"{shown(streams)} is neither true nor false")
        streams = False
    if findings.found > before:
        return None
    return Caching(ttl=ttl, swr=swr, scope=CacheScope(scope), streams=streams, max_bytes=size)


def _number(
    place: str, value: dict[str, Tree], key: str, least: int, most: int, default: int, findings: Findings
) -> int:
    found = value.get(key)
    if found is None:
        return default
    text = str(found) if isinstance(found, Number) else ""
    if not text.isascii() or not text.isdigit() or len(text) > 12 or not least <= int(text) <= most:
        findings.problem(f"{place}.{key}", f"{shown(found)} is not a whole number from {least} to {most}")
        return default
    return int(text)
