"""`runagentctl key create|list|rotate|revoke`: API keys, each shown once.

Runs as: root.
Reads from strangers: nothing.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import time
from collections.abc import Sequence

from runagentd import apikeys, log, signing
from runagentd.cli import arguments, spread, table
from runagentd.errors import ConfigurationError, HostError, Problem
from runagentd.state import StateDirectory
from runagentd.trust import ApiKeyRow, TrustStore
from runagentd.wire.trust import ApiKey, ApiKeySecret

ADDRESSES_MAX = 16
_COLUMNS = ("ID", "NAME", "SUBJECT", "SCOPES", "CREATED", "EXPIRES", "LAST USED", "STATE")


def create(
    directory: StateDirectory,
    *,
    subject: str,
    name: str,
    agents: Sequence[str] | None,
    grants: Sequence[str],
    tenant: str | None,
    expires: str | None,
    addresses: Sequence[str],
    as_json: bool,
) -> int:
    """Make one and print it, alone, on standard output; it is nowhere else from then on."""
    scopes = (*(signing.scope(agents).split() if agents is not None or not grants else ()), *grants)
    arguments.check_scopes(grants)
    if len(" ".join(scopes)) > arguments.SCOPES_CHARACTERS_MAX:
        raise ConfigurationError(Problem("--agent", "too many agents for one key", ("make a role",)))
    identity = apikeys.new_id()
    text = apikeys.create(identity)
    with TrustStore(directory.keys) as store:
        # In the very second of a revocation the next one has to do, as for tokens.
        now = max(int(time.time()), store.issue_after(subject) + 1)
        key = ApiKey(
            id=identity,
            subject=arguments.text(subject, "--subject"),
            tenant=None if tenant is None else arguments.text(tenant, "--tenant"),
            scopes=scopes,
            created=now,
            expires=0 if expires is None else now + arguments.duration(expires, "--expires"),
            addresses=_networks(addresses),
            secrets=(ApiKeySecret(digest=apikeys.digest(text), until=0),),
        )
        store.add_api_key(key, arguments.text(name, "--name"))
    return _show(directory, text, identity, as_json=as_json)


def _show(directory: StateDirectory, text: str, identity: str, *, as_json: bool) -> int:
    taken = spread.spread(directory)
    if as_json:
        print(json.dumps({"key": text, "id": identity, "taken": taken}))
    else:
        print(text)
        log.complain(f"id {identity}; keep the key now, it is not shown again")
    if taken is False:
        log.complain("the gateway has NOT said that it knows the key: look at its log")
        return 1
    return 0


def _networks(texts: Sequence[str]) -> tuple[str, ...]:
    if len(texts) > ADDRESSES_MAX:
        raise ConfigurationError(Problem("--address", f"a key has at most {ADDRESSES_MAX} networks"))
    networks = []
    for text in texts:
        try:
            networks.append(str(ipaddress.ip_network(text)))
        except ValueError as error:
            shown = log.escape(text[:60])
            raise ConfigurationError(
                Problem("--address", f'"{shown}" is no network: {error}', ("such as 192.0.2.0/24 or 2001:db8::/32",))
            ) from None
    return tuple(networks)


def list_keys(directory: StateDirectory, *, as_json: bool) -> int:
    """Print all of them, without their secrets."""
    with TrustStore(directory.keys) as store:
        rows = store.api_keys()
    now = int(time.time())
    if as_json:
        print(json.dumps([_facts(row, now) for row in rows], indent=2))
        return 0
    table.show(_COLUMNS, [_cells(row, now) for row in rows])
    return 0


def _state(row: ApiKeyRow, now: int) -> str:
    if row.revoked:
        return "revoked"
    if row.key.expires and row.key.expires <= now:
        return "expired"
    return "rotating" if len(row.key.secrets) > 1 else "good"


def _facts(row: ApiKeyRow, now: int) -> dict[str, object]:
    facts = dataclasses.asdict(row.key)
    del facts["secrets"]
    return {**facts, "name": row.name, "state": _state(row, now), "revoked": row.revoked, "used": row.used}


def _cells(row: ApiKeyRow, now: int) -> tuple[str, ...]:
    key = row.key
    return (
        key.id,
        log.escape(row.name),
        log.escape(key.subject),
        " ".join(key.scopes),
        log.utc(key.created)[:10],
        log.utc(key.expires)[:10] if key.expires else "never",
        log.utc(row.used)[:16].replace("T", " ") if row.used else "never",
        _state(row, now),
    )


def rotate(directory: StateDirectory, identity: str, *, overlap: str, as_json: bool) -> int:
    """Another secret for the same key, printed alone; the one before is good for the overlap."""
    seconds = 0 if overlap in ("0", "0s") else arguments.duration(overlap, "--overlap")
    with TrustStore(directory.keys) as store:
        _find(store, identity)
        text = apikeys.create(identity)
        store.rotate_api_key(identity, apikeys.digest(text), overlap_seconds=seconds)
    return _show(directory, text, identity, as_json=as_json)


def revoke(directory: StateDirectory, identity: str, *, as_json: bool) -> int:
    """No secret of this key is good any more; its open calls end."""
    with TrustStore(directory.keys) as store:
        _find(store, identity)
        store.revoke_api_key(identity)
    return spread.report(directory, f"revoked: API key {identity}", {"revoked": identity}, as_json=as_json)


def _find(store: TrustStore, identity: str) -> ApiKeyRow:
    found = store.api_key(identity)
    if found is None:
        raise HostError(f"no API key has the id {log.escape(identity[:40])!r}", "'runagentctl key list' shows them")
    if found.revoked:
        raise HostError(f"API key {identity} was revoked before", "make another with 'runagentctl key create'")
    return found
