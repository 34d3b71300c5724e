"""The Ed25519 key of an installation: made once, and tokens signed with it.

Runs as: runagentctl and the foreman, on an operator's behalf. Never a daemon: the gateway is given the public half.
Reads from strangers: nothing.
Files, in a directory of mode 0700: `signing-key.pem` (0600, PKCS 8) and `public.json` (0644, a JWK Set, RFC 7517).
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import stat
import time
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from runagentd.errors import ConfigurationError, Problem

PRIVATE_NAME = "signing-key.pem"
PUBLIC_NAME = "public.json"
LIFETIME_SECONDS_MAX = 7 * 24 * 3600
"""The gateway refuses tokens that live longer (conventions: a cap on exp - iat)."""


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
    """The key in `keys_dir`; made on first use. ConfigurationError where its file is open to others than its owner."""
    os.makedirs(keys_dir, mode=0o700, exist_ok=True)
    directory = os.open(keys_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        key = _open(directory, keys_dir)
        if key is None:
            key = _create(directory)
        return key
    finally:
        os.close(directory)


def _open(directory: int, keys_dir: str) -> SigningKey | None:
    try:
        file = os.open(PRIVATE_NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return None
    with os.fdopen(file, "rb") as stream:
        status = os.fstat(stream.fileno())
        if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConfigurationError(
                Problem(
                    f"{keys_dir}/{PRIVATE_NAME}",
                    f"mode {stat.S_IMODE(status.st_mode):04o} lets others than its owner read the signing key",
                    ("chmod 0600 it, and think about who has read it; for a new one, move it and public.json away",),
                )
            )
        private = serialization.load_pem_private_key(stream.read(16 * 1024), password=None)
    if not isinstance(private, Ed25519PrivateKey):
        raise ConfigurationError(Problem(f"{keys_dir}/{PRIVATE_NAME}", "this is not an Ed25519 key"))
    key = SigningKey(private=private, key_id=_thumbprint(private))
    if not _exists(directory, PUBLIC_NAME):  # a first start that was killed between the two files
        _write(directory, PUBLIC_NAME, _public_set(key), 0o644)
    return key


def _create(directory: int) -> SigningKey:
    private = Ed25519PrivateKey.generate()
    key = SigningKey(private=private, key_id=_thumbprint(private))
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write(directory, PRIVATE_NAME, pem, 0o600)
    _write(directory, PUBLIC_NAME, _public_set(key), 0o644)
    return key


def _write(directory: int, name: str, content: bytes, mode: int) -> None:
    """A whole file or none, whatever happens in between: written aside, synced, then renamed."""
    aside = f".{name}.{secrets.token_hex(4)}"
    file = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=directory)
    with os.fdopen(file, "wb") as stream:
        os.fchmod(stream.fileno(), mode)  # whatever the umask is
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    os.rename(aside, name, src_dir_fd=directory, dst_dir_fd=directory)
    os.fsync(directory)


def _exists(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _public_bytes(private: Ed25519PrivateKey) -> bytes:
    return private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def _thumbprint(private: Ed25519PrivateKey) -> str:
    """RFC 7638, over the required members of an OKP key (RFC 8037, section 2) in lexicographic order."""
    members = f'{{"crv":"Ed25519","kty":"OKP","x":"{_base64url(_public_bytes(private))}"}}'
    return _base64url(hashlib.sha256(members.encode("ascii")).digest())


def _public_set(key: SigningKey) -> bytes:
    jwk = {
        "kty": "OKP",
        "crv": "Ed25519",
        "x": _base64url(_public_bytes(key.private)),
        "kid": key.key_id,
        "alg": "EdDSA",
        "use": "sig",
    }
    return json.dumps({"keys": [jwk]}, indent=1).encode("ascii") + b"\n"


def scope(agents: Sequence[str] | None) -> str:
    """The `scope` claim: every entrypoint of each agent named, or of all agents for None.

    A name may hold spaces and slashes, which mean something in a scope (RFC 6749, section 3.3): it is percent-encoded.
    """
    if agents is None:
        return "agents:invoke:*/*"
    return " ".join(f"agents:invoke:{urllib.parse.quote(agent, safe='')}/*" for agent in agents)


def mint(
    key: SigningKey,
    *,
    issuer: str,
    audience: str,
    subject: str,
    agents: Sequence[str] | None,
    ttl_seconds: int,
    scopes: Sequence[str] = (),
    now: float | None = None,
) -> str:
    """An access token (RFC 9068) that lets `subject` call `agents` for `ttl_seconds`; None is all of them.

    `scopes` are granted, too, such as `role:NAME`; with them, `agents` may be empty.
    """
    if not 1 <= ttl_seconds <= LIFETIME_SECONDS_MAX:
        raise ConfigurationError(Problem("--ttl", "a token lives for at least 1 second and at most 7 days"))
    if agents is not None and not agents and not scopes:
        raise ConfigurationError(Problem("--agent", "name at least one agent"))
    if not 1 <= len(subject) <= 255 or not subject.isprintable():
        raise ConfigurationError(Problem("--subject", "a subject has 1 to 255 printable characters"))
    issued = int(time.time() if now is None else now)
    claims = {
        "iss": issuer,
        "aud": audience,
        "sub": subject,
        "client_id": subject,
        "iat": issued,
        "exp": issued + ttl_seconds,
        "jti": secrets.token_urlsafe(16),
        "scope": " ".join([*([scope(agents)] if agents != [] else []), *scopes]),
    }
    return jwt.encode(claims, key.private, algorithm="EdDSA", headers={"typ": "at+jwt", "kid": key.key_id})
