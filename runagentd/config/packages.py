"""`[packages]`: where environments of agents are installed from.

Runs as: the foreman and runagentctl.
Reads from strangers: nothing; the file and the variables are the operator's.

    [packages]
    index = "https://packages.example.com/simple"
    hosts = ["files.example.com"]
"""

from __future__ import annotations

import ipaddress
import re
import urllib.parse
from collections.abc import Mapping
from pathlib import Path

from runagentd import schema
from runagentd.config import files
from runagentd.config.table import Table
from runagentd.config.units import DURATION, SIZE, seconds_of, size_between
from runagentd.wire.build import HOSTS_MAX
from runagentd.wire.packages import Target
from runagentd.wire.settings import PackageSettings

VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")
"""Of uv and pip, in the order in which they count for `serve` where the file has no `[packages]`."""

_DEFAULTS = PackageSettings()
_HOST = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
_PORTS = {"https": 443, "http": 80}
_ADDRESS_MAX = 2048
_CANNOT_BE_LEFT_OUT = "has a space or a control character in its user or password"

SCHEMA = schema.table(
    "Where environments of agents are installed from.",
    {
        "index": schema.text(
            "A package index, as pip and uv have it.",
            pattern=r"^(https?://[!-~]+)?$",
            examples=["https://packages.example.com/simple"],
        ),
        "hosts": schema.array(
            "From where else files of the index come: HOST or HOST:PORT.",
            schema.text("HOST or HOST:PORT", examples=["files.example.com"]),
            maxItems=HOSTS_MAX,
            default=[],
        ),
        "ca": schema.text("A file in PEM: the authorities that the hosts' certificates are from.", examples=["ca.pem"]),
        "http": schema.flag("Whether an index may be unencrypted: the network on the way is your own.", default=False),
        "wheels": schema.text("A folder of wheels.", examples=["/srv/wheels"]),
        "source": schema.flag("Whether packages may be built from source, which runs their code.", default=False),
        "size": schema.text(
            "How large an environment may be, from 16MiB to 64GiB.", pattern=schema.whole(SIZE), default="2GiB"
        ),
        "timeout": schema.text(
            "How long a build may take, up to a day.", pattern=schema.whole(DURATION), default="10m"
        ),
        "keep": schema.text(
            'How long an environment is kept that nothing uses, up to ten years; "0" for no time.',
            pattern=f"{schema.whole(DURATION)}|^0$",
            default="7d",
        ),
    },
)


def read(table: Table, folder: Path) -> PackageSettings:
    """What the table says; relative paths in it start at `folder`."""
    plain = table.flag("http", False)
    index = table.text("index")
    problem, found = _index(index, plain=plain) if index else ("", PackageSettings())
    if problem:
        table.problem("index", problem, *_index_hints(problem, index, plain=plain))
    hosts = [*found.hosts]
    for text in table.texts("hosts"):
        target = _target(text)
        if target is None:
            table.problem("hosts", f"{text!r} is no host, nor HOST:PORT", 'write for example ["files.example.com"]')
        elif target not in hosts:
            hosts.append(target)
    if len(hosts) > HOSTS_MAX:
        table.problem("hosts", f"with the index there are {len(hosts)}, and {HOSTS_MAX} at most may be")
    if hosts and not index:
        table.problem("hosts", "says from where else files may come, but there is no index")
    authority = table.text("ca")
    authorities = files.read(table, "ca", folder / authority, secret=False) if authority else b""
    if authorities and not files.is_authority(authorities):
        table.problem("ca", "this is no certificate in PEM", "it begins with -----BEGIN CERTIFICATE-----")
    wheels = table.text("wheels")
    if wheels and not (folder / wheels).is_dir():
        table.problem("wheels", f"{folder / wheels} is no folder")
    source = table.flag("source", False)
    if source and found.secrets:
        table.problem(
            "source", "cannot be true where the index's address holds a password",
            "code that a package runs while it is built could read it: use an index that asks for none",
        )  # fmt: skip
    settings = PackageSettings(
        index=found.index,
        index_shown=found.index_shown,
        secrets=found.secrets,
        hosts=tuple(hosts),
        authorities=authorities or b"",
        wheels=str(folder / wheels) if wheels else "",
        source=source,
        size=table.converted("size", _size, _DEFAULTS.size),
        seconds=table.converted("timeout", _timeout, _DEFAULTS.seconds),
        keep=table.converted("keep", _keep, _DEFAULTS.keep),
    )
    table.finish()
    return settings


def usual(variables: Mapping[str, str]) -> PackageSettings:
    """The index that the operator's own pip and uv use.

    One that cannot be taken is told to who needs an index, and to nobody else: most agents need none.
    """
    for name in VARIABLES:
        if variables.get(name):
            problem, found = _index(variables[name], plain=False)
            return PackageSettings(not_taken=f"{name} is not taken: it {problem}") if problem else found
    return _DEFAULTS


def _index(address: str, *, plain: bool) -> tuple[str, PackageSettings]:
    """What is wrong with an address, or the settings that follow from it. No text here repeats it: it may be secret."""
    try:
        parts = urllib.parse.urlsplit(address)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        host, port, parts = "", None, urllib.parse.urlsplit("")
    usable = (
        parts.scheme in _PORTS and not parts.query and not parts.fragment and address.isascii()
        and address.isprintable() and " " not in address and len(address) <= _ADDRESS_MAX
    )  # fmt: skip
    target = _target(f"{host}:{_PORTS[parts.scheme] if port is None else port}") if usable else None
    if target is None:
        return "is no address of a package index", _DEFAULTS
    login = urllib.parse.unquote(parts.netloc.rpartition("@")[0])
    if not login.isprintable() or " " in login:
        return _CANNOT_BE_LEFT_OUT, _DEFAULTS
    if parts.scheme == "http" and not (plain or _is_loopback(host)):
        return "is unencrypted: anybody on the way could change what is installed", _DEFAULTS
    shown = urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    secrets = {part for part in (parts.password, parts.username if not parts.password else "") if part}
    secrets |= {urllib.parse.unquote(part) for part in secrets}
    return "", PackageSettings(index=address, index_shown=shown, secrets=tuple(sorted(secrets)), hosts=(target,))


def _index_hints(problem: str, address: str, *, plain: bool) -> tuple[str, ...]:
    if problem == _CANNOT_BE_LEFT_OUT:
        return ("choose others: what an installer says is cut there, and half a password is not known to be one",)
    if address.startswith("http://") and not plain:
        return ("use https://, or write http = true in [packages] where the network on the way is your own",)
    return ('it begins with https://, and has no query, for example "https://packages.example.com/simple"',)


def _target(text: str) -> Target | None:
    host, _, port = text.lower().partition(":")
    if not _HOST.fullmatch(host) or (port and not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536)):
        return None
    if host.replace(".", "").isdigit():
        # "127.1" and "2130706433" are addresses for inet_aton(3), too: one spelling is enough.
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            return None
    return Target(host=host, port=int(port) if port else 443)


def _is_loopback(host: str) -> bool:
    return host == "localhost" or host.startswith("127.")


def _size(text: str) -> int:
    return size_between(text, "16MiB", "64GiB", such_as="2GiB")


def _timeout(text: str) -> int:
    seconds = seconds_of(text, digits_max=5)
    if seconds is None or not 1 <= seconds <= 24 * 3600:
        raise ValueError(f'must be a time up to a day such as "10m", not {text!r}')
    return seconds


def _keep(text: str) -> int:
    seconds = 0 if text == "0" else seconds_of(text, digits_max=6)
    if seconds is None or seconds > 10 * 366 * 86400:
        raise ValueError(f'must be a time up to ten years such as "7d", or "0", not {text!r}')
    return seconds
