"""`[issuers.NAME]`: whose tokens are believed beside our own, where their keys are, and what their claims mean here.

Runs as: the foreman and runagentctl.
Reads from strangers: nothing; the file is the operator's.

    [issuers.corp]
    issuer = "https://login.example.com/realms/corp"
    audience = ["runagentd"]

    [[issuers.corp.grants]]
    claim = "realm_access.roles"
    value = "support"
    roles = ["support"]
"""

from __future__ import annotations

import hashlib
import re
import urllib.parse
from pathlib import Path

from runagentd import schema
from runagentd.config import files, roles
from runagentd.config.table import Table
from runagentd.config.units import DURATION, seconds_of
from runagentd.wire.issuers import ALGORITHMS
from runagentd.wire.settings import Issuer, IssuerGrant, IssuerSource

NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
DEFAULT_ALGORITHMS = ("RS256", "ES256", "EdDSA")
DEFAULT_TYPES = ("at+jwt",)
ISSUERS_MAX = 32
GRANTS_MAX = 256
_DAY = 24 * 3600
_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+/-]{1,64}")

_HTTPS = "[hH][tT][tT][pP][sS]://"
_CLAIM_MAX = 255

_GRANT = schema.table(
    "What tokens get in whose claim there is this value; every token of the issuer's without `claim`.",
    {
        "claim": schema.text("A claim, or one within another, as realm_access.roles."),
        "value": schema.text("The text, or one of the texts, or for scope one of the words."),
        **roles.GRANTED,
    },
    anyOf=[schema.present("roles"), schema.present("scopes")],
)

SCHEMA = schema.named(
    "Whose tokens are believed beside our own.",
    schema.table(
        "An OpenID Connect issuer.",
        {
            "issuer": schema.text("Its address, exactly as in its tokens' iss.", pattern=f"^{_HTTPS}", maxLength=2048),
            "audience": schema.array(
                "Who we are to it: one of these must be in aud.",
                {"type": "string"},
                minItems=1,
                examples=[["runagentd"]],
            ),
            "jwks": schema.text(
                "Where its keys are. Default: its discovery document says.", pattern=f"^(?:$|{_HTTPS})", maxLength=2048
            ),
            "algorithms": schema.array(
                "How its tokens may be signed.",
                {"enum": list(ALGORITHMS)},
                minItems=1,
                default=list(DEFAULT_ALGORITHMS),
            ),
            "types": schema.array(
                'The typ of its tokens; add "JWT" for an issuer that says nothing better.',
                {"type": "string", "pattern": schema.whole(_TYPE)},
                minItems=1,
                default=list(DEFAULT_TYPES),
            ),
            "subject": schema.text("The claim that says who it is.", maxLength=_CLAIM_MAX, default="sub"),
            "tenant": schema.text("The claim that names the tenant, if any.", maxLength=_CLAIM_MAX, default=""),
            "lifetime_max": schema.text(
                "Tokens that live longer are refused.", pattern=schema.whole(DURATION), default="24h"
            ),
            "ca": schema.text("A file in PEM: who signs its server's certificate. Default: whom the system trusts."),
            "refresh": schema.text(
                "How often its keys are fetched; a minute at least.", pattern=schema.whole(DURATION), default="1h"
            ),
            "stale": schema.text(
                "How long they are believed while they cannot be fetched.",
                pattern=schema.whole(DURATION),
                default="24h",
            ),
            "grants": schema.array("What its tokens mean here.", _GRANT, maxItems=GRANTS_MAX, default=[]),
        },
        required=["issuer", "audience"],
    ),
    propertyNames={"pattern": schema.whole(NAME)},
    maxProperties=ISSUERS_MAX,
)


def read(table: Table, folder: Path) -> tuple[tuple[Issuer, ...], tuple[IssuerSource, ...]]:
    """What the gateway has to know of each issuer, and what the egress process has to."""
    found = [_issuer(part, name, folder) for name, part in table.named_tables().items()]
    if len(found) > ISSUERS_MAX:
        table.problem("", f"there are {len(found)} issuers, and {ISSUERS_MAX} at most may be")
    seen: dict[str, str] = {}
    for issuer, _ in found:
        if issuer.issuer and issuer.issuer in seen:
            table.problem(issuer.name, f"is the same issuer as {seen[issuer.issuer]}: {issuer.issuer}")
        seen[issuer.issuer] = issuer.name
    return tuple(issuer for issuer, _ in found), tuple(source for _, source in found)


def _issuer(table: Table, name: str, folder: Path) -> tuple[Issuer, IssuerSource]:
    if not NAME.fullmatch(name):
        table.problem("", f"{name!r} is no name: it has 1 to 64 letters, digits, '.', '_' or '-'")
    address = _https(table, "issuer", required=True, query=False)
    jwks = _https(table, "jwks", required=False, query=True)
    audience = table.texts("audience")
    if not audience:
        table.problem("audience", "must name who we are to this issuer, such as [\"runagentd\"]",
                      "without it every token of the issuer's, for whatever service, would be good here")  # fmt: skip
    algorithms = table.texts("algorithms") if table.has("algorithms") else DEFAULT_ALGORITHMS
    for algorithm in algorithms:
        if algorithm not in ALGORITHMS:
            table.problem("algorithms", f"{algorithm!r} is none of {', '.join(ALGORITHMS)}")
    if not algorithms:
        table.problem("algorithms", "must name at least one", f"known here: {', '.join(ALGORITHMS)}")
    types = table.texts("types") if table.has("types") else DEFAULT_TYPES
    if not types or not all(_TYPE.fullmatch(each) for each in types):
        table.problem("types", 'must name the `typ` of tokens, such as ["at+jwt"] (RFC 9068), or ["JWT"] where the '
                      "issuer says nothing better")  # fmt: skip
    lifetime = table.converted("lifetime_max", _duration, _DAY)
    refresh = table.converted("refresh", _duration, 3600)
    stale = table.converted("stale", _duration, _DAY)
    if refresh < 60:
        table.problem("refresh", "must be a minute at least")
    if stale < refresh:
        table.problem("stale", "must not be shorter than refresh: keys would be given up before they are fetched anew")
    authority_name = table.text("ca")
    authority = files.read(table, "ca", folder / authority_name, secret=False) if authority_name else b""
    if authority and not files.is_authority(authority):
        table.problem("ca", "this is no certificate in PEM", "it begins with -----BEGIN CERTIFICATE-----")
    grants = tuple(_grant(each) for each in table.tables("grants"))
    if len(grants) > GRANTS_MAX:
        table.problem("grants", f"there are {len(grants)}, and {GRANTS_MAX} at most may be")
    origin = _digest(address.encode(), jwks.encode(), authority or b"", *(each.encode() for each in algorithms))
    issuer = Issuer(
        name=name,
        source=origin,
        issuer=address,
        audience=audience,
        algorithms=algorithms,
        types=tuple(each.lower().removeprefix("application/") for each in types),
        subject=_claim(table, "subject", "sub"),
        tenant=_claim(table, "tenant", ""),
        lifetime_max=lifetime,
        grants=grants,
    )
    table.finish()
    source = IssuerSource(
        name=name,
        source=origin,
        issuer=address,
        jwks=jwks,
        algorithms=algorithms,
        ca=authority or b"",
        refresh=refresh,
        stale=stale,
    )
    return issuer, source


def _digest(*parts: bytes) -> str:
    """16 hexadecimal digits for these parts in this order."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(hashlib.sha256(part).digest())
    return whole.hexdigest()[:16]


def _grant(table: Table) -> IssuerGrant:
    claim, value = table.text("claim"), table.text("value")
    if claim and not value:
        table.problem("value", "must say which value of the claim it is about")
    if value and not claim:
        table.problem("claim", "must name the claim that has this value")
    scopes = roles.granted(table)
    if not scopes:
        table.problem("roles", "must name roles, or scopes must name scopes: what a token gets")
    table.finish()
    return IssuerGrant(claim=claim, value=value, scopes=scopes)


def _https(table: Table, key: str, *, required: bool, query: bool) -> str:
    address = table.text(key)
    if not address:
        if required:
            table.problem(key, "must be the issuer's address, exactly as it writes it in its tokens")
        return ""
    try:
        parts = urllib.parse.urlsplit(address)
        fine = (
            parts.scheme == "https" and bool(parts.hostname) and parts.port != 0 and "@" not in parts.netloc
            and not parts.fragment and (query or not parts.query) and address.isprintable() and len(address) <= 2048
            and " " not in address
        )  # fmt: skip
    except ValueError:
        fine = False
    if not fine:
        what = "without user, query and fragment" if not query else "without user and fragment"
        table.problem(key, f"{address!r} is no address with https://, {what}",
                      "keys that come unencrypted are anybody's who is on the way")  # fmt: skip
    return address


def _claim(table: Table, key: str, default: str) -> str:
    name = table.text(key, default)
    if name and (len(name) > _CLAIM_MAX or not name.isprintable()):
        table.problem(key, "must be the name of a claim")
    return name


def _duration(text: str) -> int:
    seconds = seconds_of(text, digits_max=7)
    if seconds is None or seconds > 366 * _DAY:
        raise ValueError(f'must be a time up to a year, such as "10m", "1h" or "7d", not {text!r}')
    return seconds
