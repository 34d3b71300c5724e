"""runagentd.toml → `Document`: what an operator says about the whole daemon. Policies of agents are files of their own.

Runs as: the foreman and runagentctl.
Reads from strangers: nothing; the file is the operator's, and is refused where others can change it (`files`).
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from runagentd.config import (
    cache,
    files,
    gateway,
    history,
    http,
    issuers,
    limits,
    packages,
    roles,
    runtimes,
    telemetry,
    tls,
)
from runagentd.config.runtimes import NamedInterpreter
from runagentd.config.table import Table, toml
from runagentd.config.tls import Tls
from runagentd.errors import ConfigurationError, Problem
from runagentd.wire.settings import EgressSettings, PackageSettings, Settings

DEFAULT = "/etc/runagentd/runagentd.toml"
FILE_BYTES_MAX = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """All of a file: what each daemon is told, and what travels beside it. The defaults are those of no file."""

    settings: Settings = field(default_factory=Settings)
    egress: EgressSettings = field(default_factory=EgressSettings)
    packages: PackageSettings = field(default_factory=PackageSettings)
    packages_named: bool = False
    """whether the file says anything of packages"""
    interpreters: tuple[NamedInterpreter, ...] = ()
    """for agents; nobody has looked at them yet"""
    tls: Tls | None = None


def configured(named: Path | None) -> Path | None:
    """The file that an operator has named, or the usual one where it is there."""
    if named is not None:
        return named.absolute()
    usual = Path(DEFAULT)
    # A link that leads nowhere is a mistake to be told, and not a daemon without its limits.
    return usual if os.path.lexists(usual) else None


def load(path: Path) -> Document:
    """What a file says; ConfigurationError with every problem in it, each with its place."""
    try:
        data = files.contents(path, bytes_max=FILE_BYTES_MAX)
    except files.Unusable as unusable:
        raise ConfigurationError(Problem(str(path), unusable.what, unusable.hints)) from unusable
    return parse(data, path.name, path.absolute().parent)


def with_usual_index(document: Document, variables: Mapping[str, str]) -> Document:
    """For a file that says nothing of packages: the package index of the operator's own environment, if it has one."""
    usual = packages.usual(variables)
    egress = dataclasses.replace(document.egress, package_hosts=usual.hosts)
    return dataclasses.replace(document, packages=usual, egress=egress)


def parse(data: bytes, name: str, folder: Path) -> Document:
    """What the text of a file says; the file is called `name` in problems, relative paths in it start at `folder`."""
    if len(data) > FILE_BYTES_MAX:
        raise ConfigurationError(Problem(name, f"is larger than {FILE_BYTES_MAX} bytes"))
    problems: list[Problem] = []
    document = Table(toml(data, name), name, problems)
    certificates = tls.read(document.table("tls"), folder)
    mutual = certificates is not None and bool(certificates.client_ca)
    believed, sources = issuers.read(document.table("issuers"), folder)
    history_seconds, history_bytes = history.read(document.table("history"))
    settings = Settings(
        client_certificates=("required" if certificates.required else "optional") if certificates and mutual else "",
        clients=certificates.clients if certificates is not None else (),
        roles=roles.read(document.table("roles")),
        limits=limits.read(document.table("limits")),
        http=http.read(document.table("http")),
        issuers=believed,
        cache_bytes=cache.read(document.table("cache")),
        workers=gateway.read(document.table("gateway")),
        tls=certificates is not None,
        history_seconds=history_seconds,
        history_bytes=history_bytes,
        telemetry=telemetry.read(document.table("telemetry")),
    )
    installing = packages.read(document.table("packages"), folder)
    found = Document(
        settings=settings,
        egress=EgressSettings(issuers=sources, package_hosts=installing.hosts),
        packages=installing,
        packages_named=document.has("packages"),
        interpreters=runtimes.read(document.table("runtimes"), folder),
        tls=certificates,
    )
    document.finish()
    if problems:
        raise ConfigurationError(*problems)
    return found
