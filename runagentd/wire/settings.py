"""What the operator's configuration asks of the daemons: made by the foreman from runagentd.toml, sent as records.

Runs as: the foreman writes them; the gateway and its workers, the egress process and the supervisor read them. Pure.
Reads from strangers: nothing; the file is the operator's. None of them parses TOML.

The foreman sends one over a SOCK_SEQPACKET pair, of which it keeps its end: once for each daemon that it starts, and
again whenever the configuration is read anew (SIGHUP). One datagram holds the names of the descriptors that travel with
it, separated by spaces; `settings` is always the first, a sealed memfd with the record.
"""

from __future__ import annotations

from dataclasses import dataclass

from runagentd.wire.packages import Target
from runagentd.wire.runtime import PythonRuntime

SETTINGS_BYTES_MAX = 8 * 1024 * 1024
DESCRIPTORS_MAX = 8
DATAGRAM_BYTES_MAX = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleSettings:
    """A named set of scopes (`[roles.NAME]`); see `gateway.grants`."""

    name: str
    allow: tuple[str, ...]
    deny: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """How much of something one key may have: a rate, calls at one time, calls on one day (UTC). 0 is no limit.

    `kind` is address, failed_login, principal, tenant, agent or tag; `name` is empty for everybody, else who it is for.
    For an address, `concurrency` is of connections.
    """

    kind: str
    name: str
    count: int
    seconds: int
    burst: int
    concurrency: int
    daily: int


FAILED_LOGIN = Limit(kind="failed_login", name="", count=5, seconds=1, burst=20, concurrency=0, daily=0)
"""Holds where nothing else is configured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """`[limits]`. `loopback` is whether addresses of this machine are limited, too."""

    limits: tuple[Limit, ...] = (FAILED_LOGIN,)
    loopback: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Http:
    """`[http]`. Networks are in CIDR form; origins are as a browser writes them."""

    trusted_proxies: tuple[str, ...] = ()
    forwarded: str = "x-forwarded-for"
    cors_origins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateClient:
    """Whose a certificate is that has this name ("DNS:…", "URI:…", "email:…"), or this SHA-256 in hexadecimal."""

    san: str
    sha256: str
    subject: str
    tenant: str | None
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerGrant:
    """What tokens get in whose `claim` there is `value`; every token of the issuer, where `claim` is empty."""

    claim: str
    value: str
    scopes: tuple[str, ...]
    """roles among them, as `role:NAME`"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """`[issuers.NAME]`: whose tokens are believed beside our own, and what they mean here."""

    name: str
    source: str
    """a digest of where its keys come from: those of another source are not believed"""
    issuer: str
    audience: tuple[str, ...]
    algorithms: tuple[str, ...]
    types: tuple[str, ...]
    """in lower case"""
    subject: str
    """the claim that says who it is"""
    tenant: str
    """the claim that names the tenant; empty for none"""
    lifetime_max: int
    """seconds"""
    grants: tuple[IssuerGrant, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerSource:
    """Where the keys of an issuer are: what the egress process has to know, and nothing else."""

    name: str
    source: str
    """as in `Issuer`"""
    issuer: str
    jwks: str
    """the address of the keys; empty for what the issuer's discovery document says"""
    algorithms: tuple[str, ...]
    ca: bytes
    """PEM of who signs the certificate of the issuer's server; empty for whom the system trusts"""
    refresh: int
    stale: int
    """both in seconds"""


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressSettings:
    """All that the egress process is told."""

    issuers: tuple[IssuerSource, ...] = ()
    package_hosts: tuple[Target, ...] = ()
    """where a builder of environments may be connected to"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageSettings:
    """`[packages]`. The defaults are those of no such table: nothing is installed."""

    index: str = ""
    """with credentials, where it has some"""
    index_shown: str = ""
    """without"""
    secrets: tuple[str, ...] = ()
    """parts of the address that are never to be shown"""
    hosts: tuple[Target, ...] = ()
    """the index's own among them"""
    authorities: bytes = b""
    wheels: str = ""
    """a folder on the host"""
    source: bool = False
    size: int = 2 * 1024**3
    """bytes of one environment while it is built"""
    seconds: int = 600
    """that a build may take"""
    keep: int = 7 * 24 * 3600
    """seconds that an environment is kept which nothing uses"""
    not_taken: str = ""
    """why the index of the operator's own environment is not taken, where it has one"""

    def redacted(self, text: str) -> str:
        """`text` without what is secret in the index's address."""
        for secret in self.secrets:
            text = text.replace(secret, "****")
        return text


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorSettings:
    """All that the supervisor is told. `runtimes` are those beside the daemon's own, as when they were looked at."""

    packages: PackageSettings = PackageSettings()
    runtimes: tuple[PythonRuntime, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry:
    """`[telemetry]`: spans of calls, in so many bytes of the disk, 0 for none; `share` of calls without a trace."""

    spans_bytes: int = 0
    share: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All of it for the gateway; the defaults are those of a daemon without a configuration file."""

    roles: tuple[RoleSettings, ...] = ()
    limits: Limits = Limits()
    http: Http = Http()
    client_certificates: str = ""
    """optional, required, or empty for none"""
    clients: tuple[CertificateClient, ...] = ()
    issuers: tuple[Issuer, ...] = ()
    cache_bytes: int = 64 * 1024 * 1024
    """how much of kept answers fits into memory; 0 keeps none"""
    workers: int = 1
    """how many processes read HTTP; 1 is the gateway itself"""
    tls: bool = False
    """whether it is HTTPS, which with several of them only they speak"""
    history_seconds: int = 7 * 24 * 3600
    history_bytes: int = 64 * 1024 * 1024
    """how long, and in how much of the disk, calls are kept; 0 keeps none"""
    telemetry: Telemetry = Telemetry()


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """All that a worker of the gateway is told; certificates and their key travel beside it."""

    http: Http = Http()
    client_certificates: str = ""
    """as in `Settings`"""
