"""The Ed25519 keys of an installation: made, rotated, and tokens signed with the active one.

Runs as: runagentctl and the foreman, on an operator's behalf. Never a daemon: the gateway is told the public halves.
Reads from strangers: nothing.
Files, in a directory of mode 0700: `ID.pem` (0600, PKCS 8) for each private key; the rest is in `trust.db`.

A key is `next` when it is made, so that whoever keeps a copy of the public set has it before it is used; then it is
`active`; then `retired`, without its private half, and believed until the last token that it signed has expired.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import fcntl
import hashlib
import itertools
import os
import secrets
import stat
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from runagentd import trust
from runagentd.errors import ConfigurationError, HostError, Problem
from runagentd.trust import SigningKeyRow, TrustStore
from runagentd.wire.trust import TOKEN_BYTES_MAX

LIFETIME_SECONDS_MAX = trust.TOKEN_SECONDS_MAX
_SCOPES_BYTES = TOKEN_BYTES_MAX * 3 // 4 - 600
"""Of a token three quarters are left of its base64, and 600 bytes are for its other claims, header and signature."""
PUBLISHED_SECONDS_MIN = 300
"""How long a key is `next` at least: the public set may be kept for that long (`max-age` of /.well-known/jwks.json)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """The private half, and the name under which the gateway knows the public one (RFC 7638)."""

    private: Ed25519PrivateKey
    key_id: str


def audience(state_id: str) -> str:
    """What `aud` must be for a token to be meant for this installation and no other."""
    return f"urn:runagentd:{state_id}"


def issuer(state_id: str) -> str:
    """What `iss` is for tokens that an installation signs itself."""
    return f"urn:runagentd:{state_id}"


def create_or_open(keys_dir: str) -> SigningKey:
    """The active key; made on first use. ConfigurationError where its file is open to others than its owner."""
    os.makedirs(keys_dir, mode=0o700, exist_ok=True)
    with _directory(keys_dir) as directory, TrustStore(Path(keys_dir)) as store:
        active = next((row for row in store.signing_keys() if row.state == trust.ACTIVE), None)
        if active is None:
            now = int(time.time())
            active = dataclasses.replace(_create(directory, now), state=trust.ACTIVE, activated=now)
            store.set_signing_keys([_create(directory, now), active])
        return SigningKey(private=_open(directory, keys_dir, active.id), key_id=active.id)


def rotate(keys_dir: str, *, now: int, force: bool = False, drop: bool = False) -> list[SigningKeyRow]:
    """Make the next key the active one and another the next; all keys as they are then.

    The key that was active is believed until its last token has expired; with `drop`, no longer from now on.
    ConfigurationError where the next key was published too short a time ago, unless `force` or `drop`.
    """
    create_or_open(keys_dir)
    with _directory(keys_dir) as directory, TrustStore(Path(keys_dir)) as store:
        rows = {row.state: row for row in store.signing_keys() if row.state != trust.RETIRED}
        coming, active = rows[trust.NEXT], rows[trust.ACTIVE]
        if now < coming.made + PUBLISHED_SECONDS_MIN and not force and not drop:
            wait = coming.made + PUBLISHED_SECONDS_MIN - now
            raise ConfigurationError(
                Problem(
                    "signing-key rotate",
                    f"the next key was published less than {PUBLISHED_SECONDS_MIN} s ago",
                    (f"wait {wait} s, so that all who keep the public set know it; or give --force",),
                )
            )
        _open(directory, keys_dir, coming.id)
        until = now + LIFETIME_SECONDS_MAX + trust.SKEW_SECONDS
        retired = [row for row in store.signing_keys() if row.state == trust.RETIRED]
        if not drop:
            retired.insert(0, dataclasses.replace(active, state=trust.RETIRED, retired=now, until=until))
        store.set_signing_keys(
            [
                _create(directory, now),
                dataclasses.replace(coming, state=trust.ACTIVE, activated=now),
                *retired,
            ]
        )
        # Last: until the change is on the disk, the old key signs.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{active.id}.pem", dir_fd=directory)
        return store.signing_keys()


@contextlib.contextmanager
def _directory(keys_dir: str) -> Iterator[int]:
    """Its descriptor; while it is held, no other process makes or rotates keys."""
    directory = os.open(keys_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield directory
    finally:
        os.close(directory)


def _open(directory: int, keys_dir: str, key_id: str) -> Ed25519PrivateKey:
    path = f"{keys_dir}/{key_id}.pem"
    try:
        file = os.open(f"{key_id}.pem", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except OSError as error:
        raise HostError(
            f"{path}: the private half of a signing key cannot be read: {error.strerror}",
            "put it back from a backup; or remove all of this folder, which ends all tokens and API keys",
        ) from error
    with os.fdopen(file, "rb") as stream:
        status = os.fstat(stream.fileno())
        if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConfigurationError(
                Problem(
                    path,
                    f"mode {stat.S_IMODE(status.st_mode):04o} lets others than its owner read the signing key",
                    ("chmod 0600 it; where somebody may have read it, 'runagentctl signing-key rotate --drop'",),
                )
            )
        private = serialization.load_pem_private_key(stream.read(16 * 1024), password=None)
    if not isinstance(private, Ed25519PrivateKey) or _thumbprint(private) != key_id:
        raise ConfigurationError(Problem(path, "this is not the Ed25519 key that its name says"))
    return private


def _create(directory: int, now: int) -> SigningKeyRow:
    """A key that is `next`; its private half is on the disk."""
    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    key_id = _thumbprint(private)
    _write(directory, f"{key_id}.pem", pem)
    return SigningKeyRow(
        id=key_id, public=_public_bytes(private), state=trust.NEXT, made=now, activated=0, retired=0, until=0
    )


def _write(directory: int, name: str, content: bytes) -> None:
    """A whole file or none, whatever happens in between: written aside, synced, then renamed."""
    aside = f".{secrets.token_hex(8)}"
    file = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
    with os.fdopen(file, "wb") as stream:
        os.fchmod(stream.fileno(), 0o600)  # whatever the umask is
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    os.rename(aside, name, src_dir_fd=directory, dst_dir_fd=directory)
    os.fsync(directory)


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _public_bytes(private: Ed25519PrivateKey) -> bytes:
    return private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def _thumbprint(private: Ed25519PrivateKey) -> str:
    """RFC 7638, over the required members of an OKP key (RFC 8037, section 2) in lexicographic order."""
    members = f'{{"crv":"Ed25519","kty":"OKP","x":"{_base64url(_public_bytes(private))}"}}'
    return _base64url(hashlib.sha256(members.encode("ascii")).digest())


def scope(agents: Sequence[str] | None) -> str:
    """The `scope` claim: every entrypoint of each agent named, or of all agents for None.

    A name may hold spaces and slashes, which mean something in a scope (RFC 6749, section 3.3): it is percent-encoded.
    """
    if agents is None:
        return "agents:invoke:*/*"
    return " ".join(f"agents:invoke:{urllib.parse.quote(agent, safe='')}/*" for agent in agents)


def that_fit(agents: Sequence[str]) -> Sequence[str]:
    """The first of the agents, as many as a token with a short subject can name."""
    sizes = itertools.accumulate(len(scope([agent])) + 1 for agent in agents)
    return agents[: sum(size <= _SCOPES_BYTES for size in sizes)]


def mint(
    key: SigningKey,
    *,
    issuer: str,
    audience: str,
    subject: str,
    agents: Sequence[str] | None,
    ttl_seconds: int,
    scopes: Sequence[str] = (),
    tenant: str | None = None,
    issue_after: int = 0,
    now: float | None = None,
) -> str:
    """An access token (RFC 9068) that lets `subject` call `agents` for `ttl_seconds`; None is all of them.

    `scopes` are granted, too, such as `role:NAME`; with them, `agents` may be empty. `issue_after` is the time up to
    which what was issued to this subject is revoked (`TrustStore.issue_after`).
    """
    if not 1 <= ttl_seconds <= LIFETIME_SECONDS_MAX:
        raise ConfigurationError(Problem("--ttl", "a token lives for at least 1 second and at most 7 days"))
    if agents is not None and not agents and not scopes:
        raise ConfigurationError(Problem("--agent", "name at least one agent"))
    if not 1 <= len(subject) <= 255 or not subject.isprintable():
        raise ConfigurationError(Problem("--subject", "a subject has 1 to 255 printable characters"))
    if tenant is not None and (not 1 <= len(tenant) <= 255 or not tenant.isprintable()):
        raise ConfigurationError(Problem("--tenant", "a tenant has 1 to 255 printable characters"))
    issued = int(time.time() if now is None else now)
    if issued <= issue_after:
        # In the very second of a revocation the next one has to do: it is not in the future for long.
        if issue_after - issued >= trust.SKEW_SECONDS:
            raise ConfigurationError(Problem("--subject", "all that is issued to this subject is revoked for now"))
        issued = issue_after + 1
    claims: dict[str, object] = {
        "iss": issuer,
        "aud": audience,
        "sub": subject,
        "client_id": subject,
        "iat": issued,
        "exp": issued + ttl_seconds,
        "jti": secrets.token_urlsafe(16),
        "scope": " ".join([*([scope(agents)] if agents != [] else []), *scopes]),
    }
    if tenant is not None:
        claims["tenant"] = tenant
    token = jwt.encode(claims, key.private, algorithm="EdDSA", headers={"typ": "at+jwt", "kid": key.key_id})
    if len(token) > TOKEN_BYTES_MAX:
        what = f"the token would have {len(token)} characters, and no more than {TOKEN_BYTES_MAX} are read"
        hint = "name fewer agents and scopes, or give a role (--role NAME)"
        raise ConfigurationError(Problem("--agent", what, (hint,)))
    return token
