"""What an agent's author wants to share among callers, and whether its policy lets callers share anything.

Runs as: the supervisor. Pure.
Reads from strangers: a manifest that was checked for form.
"""

from __future__ import annotations

from runagentd.errors import ConfigurationError, Problem
from runagentd.policy.model import CallIsolation, Policy
from runagentd.wire.manifest import CacheScope, Manifest


def check_sharing(manifest: Manifest, policy: Policy) -> None:
    """ConfigurationError where answers would be shared that come from calls which are to share nothing."""
    if policy.calls.isolation is CallIsolation.INSTANCE:
        return
    problems = [
        Problem(
            f"{manifest.agent_name}: {entrypoint.tag}: cache.scope",
            f'"{entrypoint.cache.scope}" shares answers among callers, and policy {policy.name} has calls.isolation = '
            f'"{policy.calls.isolation}"',
            ('write "scope": "private", or choose a policy with calls.isolation = "instance"',),
        )
        for entrypoint in manifest.entrypoints
        if entrypoint.cache is not None and entrypoint.cache.scope is not CacheScope.PRIVATE
    ]
    if problems:
        raise ConfigurationError(*problems)
