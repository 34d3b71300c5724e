"""Whether an agent's shared answers fit its policy."""

from __future__ import annotations

import dataclasses

import pytest

from runagentd.errors import ConfigurationError
from runagentd.policy.model import CallIsolation, Policy
from runagentd.supervise.sharing import check_sharing
from runagentd.wire.manifest import CacheScope, Caching, Entrypoint, Manifest
from tests.some_policy import some_policy


def manifest(*scopes: CacheScope | None) -> Manifest:
    return Manifest(
        agent_id="a", agent_name="quotes", description="", framework="default", version="1",
        entrypoints=tuple(
            Entrypoint(
                tag=f"tag{number}", file="main.py", module="run",
                cache=None if scope is None else Caching(ttl=1, swr=0, scope=scope, streams=False, max_bytes=1),
            )
            for number, scope in enumerate(scopes)
        ),
        environment=(), persistent_folders=(), import_paths=(), requirements=(), hints=(),
    )  # fmt: skip


def apart(isolation: CallIsolation) -> Policy:
    return dataclasses.replace(some_policy(), calls=dataclasses.replace(some_policy().calls, isolation=isolation))


APART = (CallIsolation.CALL, CallIsolation.PRINCIPAL)


@pytest.mark.parametrize("isolation", APART)
def test_private_answers_fit_every_policy(isolation: CallIsolation) -> None:
    check_sharing(manifest(None, CacheScope.PRIVATE), apart(isolation))
    check_sharing(manifest(CacheScope.TENANT, CacheScope.PUBLIC), some_policy())


@pytest.mark.parametrize("isolation", APART)
def test_shared_ones_do_not_fit_calls_that_share_nothing_and_all_of_them_are_named(isolation: CallIsolation) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_sharing(manifest(CacheScope.PRIVATE, CacheScope.TENANT, CacheScope.PUBLIC), apart(isolation))
    what = f'{{}} shares answers among callers, and policy some has calls.isolation = "{isolation}"'
    assert [(problem.where, problem.what) for problem in caught.value.problems] == [
        ("quotes: tag1: cache.scope", what.format('"tenant"')),
        ("quotes: tag2: cache.scope", what.format('"public"')),
    ]
