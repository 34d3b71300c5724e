"""An entrypoint's `cache`, as its author writes it."""

from __future__ import annotations

import pytest

from runagentd.wire.manifest import CacheScope, Caching
from tests.loader.folders import load, manifest, problems


def config(cache: object) -> dict[str, object]:
    entrypoint = {"file": "main.py", "module": "run", "tag": "main", "cache": cache}
    return {"agent_name": "demo", "agent_architecture": {"entrypoints": [entrypoint]}}


def test_a_ttl_is_enough() -> None:
    """Private, no streams, up to a mebibyte."""
    assert manifest(config({"ttl": 60})).entrypoints[0].cache == Caching(
        ttl=60, swr=0, scope=CacheScope.PRIVATE, streams=False, max_bytes=1024 * 1024
    )
    assert manifest(config(None)).entrypoints[0].cache is None


def test_all_of_it() -> None:
    """As documented."""
    cache = {"ttl": 60, "swr": 300, "scope": "tenant", "streams": True, "max_bytes": 65536}
    assert manifest(config(cache)).entrypoints[0].cache == Caching(
        ttl=60, swr=300, scope=CacheScope.TENANT, streams=True, max_bytes=65536
    )


@pytest.mark.parametrize(
    ("cache", "problem"),
    [
        (60, "cache: 60 is not an object"),
        ({}, "cache.ttl: is missing: how many seconds an answer is good"),
        ({"ttl": None}, "cache.ttl: is missing: how many seconds an answer is good"),
        ({"ttl": 0}, "cache.ttl: 0 is not a whole number from 1 to 604800"),
        ({"ttl": 1.5}, "cache.ttl: 1.5 is not a whole number from 1 to 604800"),
        ({"ttl": "60"}, 'cache.ttl: "60" is not a whole number from 1 to 604800'),
        ({"ttl": True}, "cache.ttl: true is not a whole number from 1 to 604800"),
        ({"ttl": 9, "swr": -1}, "cache.swr: -1 is not a whole number from 0 to 604800"),
        ({"ttl": 9, "scope": "all"}, 'cache.scope: "all" is none of "private", "tenant" and "public"'),
        ({"ttl": 9, "scope": ["public"]}, "is none of"),
        ({"ttl": 9, "streams": "yes"}, 'cache.streams: "yes" is neither true nor false'),
        ({"ttl": 9, "max_byte": 5}, "cache.max_byte: there is no such key"),
        ({"ttl": 9, "max_bytes": 10**20}, "is not a whole number from 1 to 67108864"),
    ],
)
def test_a_wrong_one_is_told_with_its_place(cache: object, problem: str) -> None:
    """Never passed over: an answer that is kept too long, or for too many, is worse than none."""
    assert problem in "\n".join(problems(load(config(cache))))
