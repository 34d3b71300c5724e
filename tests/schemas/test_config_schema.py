"""docs/schemas/runagentd.schema.json: each reader's own part, and true to what it reads."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from runagentd.config import load
from runagentd.config.schema import schema
from runagentd.config.table import Table
from runagentd.errors import ConfigurationError
from tests import certificates
from tests.schemas.validation import ODD, leaves, toml_document, validator, with_value, without

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
TEXT = schema()
VALIDATOR = validator(TEXT)
PATHS = list(leaves(json.loads(TEXT)))

LIMIT = {"rate": "100/s", "burst": 200, "concurrency": 16, "daily": 100_000}
FULL: dict[str, Any] = {
    "roles": {"NAME": {"allow": ["agents:read"], "deny": ["agents:invoke:bank/*"]}},
    "issuers": {
        "NAME": {
            "issuer": "https://login.example.com/realms/corp",
            "audience": ["runagentd"],
            "jwks": "https://login.example.com/keys",
            "algorithms": ["ES256"],
            "types": ["JWT"],
            "subject": "sub",
            "tenant": "org_id",
            "lifetime_max": "24h",
            "ca": "certificate.pem",
            "refresh": "1h",
            "stale": "24h",
            "grants": [{"claim": "groups", "value": "support", "roles": ["support"], "scopes": ["agents:read"]}],
        }
    },
    "limits": {
        "loopback": False,
        "address": {"rate": "100/s", "burst": 200, "connections": 64},
        "failed_login": {"rate": "5/s", "burst": 20},
        **{kind: LIMIT | {"for": {"NAME": LIMIT}} for kind in ("principal", "tenant", "agent", "tag")},
    },
    "cache": {"size": "64MiB"},
    "history": {"keep": "7d", "size": "64MiB"},
    "packages": {
        "index": "https://packages.example.com/simple",
        "hosts": ["files.example.com"],
        "ca": "certificate.pem",
        "http": False,
        "wheels": ".",
        "source": False,
        "size": "2GiB",
        "timeout": "10m",
        "keep": "7d",
    },
    "runtimes": {"3.13": "/opt/python3.13/bin/python3"},
    "telemetry": {"spans": "file", "size": "64MiB", "share": 0.5},
    "gateway": {"workers": 2},
    "http": {"trusted_proxies": ["10.0.0.0/8"], "forwarded": "forwarded", "cors_origins": ["https://app.example"]},
    "tls": {
        "certificate": "certificate.pem",
        "key": "key.pem",
        "client_ca": "certificate.pem",
        "client_certificates": "optional",
        "clients": [
            {"san": "DNS:shop.example", "subject": "shop", "tenant": "acme", "roles": ["support"], "scopes": []},
            {"sha256": "0a" * 32, "subject": "till"},
        ],
    },
}
"""Every key that there is."""
FREE = ("NAME", "3.13")
"""What stands for any name."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the files are that FULL names."""
    made = tmp_path_factory.mktemp("config")
    certificates.write(made)
    return made


def parse(content: dict[str, Any], folder: Path) -> load.Document:
    return load.parse(toml_document(content).encode(), "runagentd.toml", folder)


def test_the_published_schema_is_what_the_code_makes() -> None:
    """Run `runagentctl schema config > docs/schemas/runagentd.schema.json` after a change."""
    assert (ROOT / "docs" / "schemas" / "runagentd.schema.json").read_text() == TEXT


def test_every_key_that_is_read_is_in_the_schema_and_no_other(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads another key says in the reader's SCHEMA what it is."""
    asked: set[tuple[str, ...]] = set()
    take: Callable[..., Any] = Table._take

    def noting(self: Table, key: str, kind: type[T], called: str, default: T) -> Any:  # Any: as take gives it
        where = self._where.partition(": ")[2].replace("[", ".").replace("]", "")
        asked.add(tuple("*" if part in FREE else part for part in (*filter(None, where.split(".")), key)))
        return take(self, key, kind, called, default)

    monkeypatch.setattr(Table, "_take", noting)
    parse(FULL, folder)
    # The second client's keys are the first one's.
    read = {path for path in asked if path[-1] != "*" and path[:3] != ("tls", "clients", "1")}
    assert read == set(PATHS)


def test_all_keys_together_are_valid_and_read(folder: Path) -> None:
    """As an editor and as the daemon read them."""
    VALIDATOR.validate(FULL)
    assert parse(FULL, folder).settings.cache_bytes == 67108864


def test_nothing_is_valid(folder: Path) -> None:
    """An empty file is the defaults, and so are empty tables; that of packages says that the operator's usual index is
    not wanted."""
    VALIDATOR.validate({})
    for name in FULL:
        VALIDATOR.validate({name: {}})
        defaults = load.Document(packages_named=name == "packages")
        assert parse({name: {}}, folder) == defaults or name == "limits"


def test_every_configuration_in_the_documentation_is_valid() -> None:
    """Each block of TOML that is no policy; those that only add to another block are put together with it."""
    texts = [path.read_text() for path in (ROOT / "docs").glob("*.md")]
    found = [block for text in texts for block in re.findall(r"```toml\n(.*?)```", text, re.DOTALL)]
    blocks = [tomllib.loads(block) for block in found if "version = 1" not in block and "folder = " not in block]
    assert len(blocks) >= 9
    for block in blocks:
        if set(block) <= set(FULL):
            VALIDATOR.validate(block)
        else:
            # docs of policies show tables of theirs without a version
            assert set(block) <= {"files", "process", "resources", "syscalls", "calls", "network", "scaling"}


@pytest.mark.parametrize("path", PATHS, ids=".".join)
def test_the_schema_never_refuses_what_the_reader_takes(path: tuple[str, ...], folder: Path) -> None:
    """And takes what the reader refuses only where texts or lists are concerned, never another type."""
    for value in ODD:
        content = with_value(FULL, path, value)
        valid = VALIDATOR.is_valid(content)
        try:
            parse(content, folder)
        except ConfigurationError as error:
            if valid:
                assert isinstance(value, str | list | dict), f"an editor would take {path} = {value!r}: {error}"
        else:
            assert valid, f"an editor would mark {path} = {value!r}, which is right"


@pytest.mark.parametrize("path", PATHS, ids=".".join)
def test_writing_a_default_changes_nothing(path: tuple[str, ...], folder: Path) -> None:
    """Where the schema has one."""
    part = json.loads(TEXT)
    for name in path:
        part = (
            part["items"] if name == "0" else part["additionalProperties"] if name == "*" else part["properties"][name]
        )
    if "default" not in part:
        return
    outcomes = []
    for content in (with_value(FULL, path, part["default"]), without(FULL, path)):
        try:
            outcomes.append(str(parse(content, folder)))
        except ConfigurationError as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize(
    "text",
    [
        "rolls = 1",
        "[roles.support]\nallowed = []",
        '[roles.support]\nallow = ["agents:invoke:b*nk/x"]',
        '[roles."a b"]\n',
        '[limits.principal]\nrate = "10/day"',
        "[limits.principal]\nburst = 5",
        "[limits.address]\nconcurrency = 5",
        '[limits.address.for.x]\nrate = "1/s"',
        "[limits.failed_login]\ndaily = 1",
        '[issuers.corp]\nissuer = "https://a.example"',
        '[issuers.corp]\nissuer = "http://a.example"\naudience = ["x"]',
        '[issuers.corp]\nissuer = "https://a.example"\naudience = ["x"]\nalgorithms = ["HS256"]',
        '[issuers.corp]\nissuer = "https://a.example"\naudience = ["x"]\n[[issuers.corp.grants]]\nclaim = "x"',
        '[tls]\nkey = "key.pem"',
        '[tls]\nclient_ca = "certificate.pem"',
        '[tls]\ncertificate = "certificate.pem"\nkey = "key.pem"\nclient_certificates = "required"',
        '[[tls.clients]]\nsubject = "shop"',
        '[[tls.clients]]\nsubject = "shop"\nsan = "DNS:x"\nsha256 = "' + "0" * 64 + '"',
        '[http]\ncors_origins = ["https://app.example/"]',
        '[http]\nforwarded = "x-real-ip"',
        '[cache]\nsize = "64MB"',
        '[history]\nkeep = "7 days"',
        '[telemetry]\nspans = "otlp"',
        "[telemetry]\nshare = 2",
        "[gateway]\nworkers = 0",
        "[gateway]\nworkers = 65",
        '[gateway]\nworkers = "2"',
        '[runtimes]\n"3.10" = "/usr/bin/python3.10"',
        '[runtimes]\n3.13 = "/usr/bin/python3.13"',
        '[runtimes]\n"3.13" = ""',
    ],
)
def test_what_is_wrong_in_form_is_marked(text: str) -> None:
    """By the schema as by the reader."""
    assert not VALIDATOR.is_valid(tomllib.loads(text))
    with pytest.raises(ConfigurationError):
        load.parse(text.encode(), "runagentd.toml", Path("/nowhere"))
