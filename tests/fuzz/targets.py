"""Every parser of ours that strangers' bytes reach, each as a function of bytes: what it may raise, and what must hold.

Both the short fuzzers of `make test` (hypothesis, test_*.py) and the long ones of `make fuzz` (coverage-guided) can use
these. A target returns, or raises one of its `errors`; anything else is a finding, and so is an AssertionError of its
own. Not here: what an HTTP library, OpenSSL or TOML's own module parse before us, and `runner.values`, whose input is
Python objects (tests/runner/test_values.py).
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import datetime
import decimal
import enum
import functools
import io
import json
import re
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, NotRequired, Optional, TypedDict

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from runagentd import apikeys
from runagentd.cli import logs_commands, token_commands
from runagentd.config import agent_file
from runagentd.config import load as config_load
from runagentd.egress import fetch, keys
from runagentd.errors import ConfigurationError, Refusal
from runagentd.foreman import announce
from runagentd.gateway import describe, frames, openapi, paths, plain, requests, values
from runagentd.gateway.doors import history, native, runagent
from runagentd.gateway.guard import grants, proxies
from runagentd.gateway.guard.front import Front
from runagentd.gateway.guard.identity import Credentials, Identity
from runagentd.gateway.guard.issuers import Issuers
from runagentd.gateway.guard.keyring import NOBODY, ApiKeys
from runagentd.gateway.guard.tokens import Verifier
from runagentd.gateway.guard.trust import Trust
from runagentd.gateway.kept import caching, idempotency, invocation
from runagentd.gateway.output import Lines
from runagentd.gateway.trace import Tracer
from runagentd.loader import configuration, dotenv
from runagentd.log import Form, Level, Log
from runagentd.policy import files
from runagentd.policy import load as policy_load
from runagentd.runner.jsonpath import JsonPath, JsonPathError
from runagentd.runner.parameters import Parameters, WrongArgument
from runagentd.supervise.load import parse_report
from runagentd.wire import admin, channel, control, exchanges, issuers, launch, manifest, record
from runagentd.wire.channel import ChannelError, ValueType
from runagentd.wire.exchanges import ExchangeError
from runagentd.wire.issuers import ALGORITHMS, KeySet, VerifyingKey
from runagentd.wire.record import RecordError
from runagentd.wire.settings import Http, Issuer, Settings
from runagentd.wire.trust import PublicKey
from tests.loader.folders import SHORT, FakeFolder
from tests.wire import messages

ROOT = Path(__file__).resolve().parents[2]
HERE = "urn:runagentd:here"
NOW = 1_800_000_000.0
TRACER = Tracer(recording=True, share=0.5)


@dataclass(frozen=True)
class Target:
    """One parser. `seeds` are good or nearly good inputs, from which a fuzzer starts."""

    parse: Callable[[bytes], object]
    seeds: Sequence[bytes]
    errors: tuple[type[Exception], ...] = ()


def text(data: bytes) -> str:
    """Header fields as aiohttp hands them over: UTF-8, and anything else as halves of surrogate pairs."""
    return data.decode("utf-8", "surrogateescape")


# ---- the gateway: HTTP and WebSocket


def read_plain(data: bytes) -> None:
    found = plain.parse(data)
    if found is not None:
        assert found.size <= len(data)
        assert data[: found.size].endswith(found.body)
        assert plain.parse(data[: found.size]) == plain.parse(data[: found.size], found.head) == found


def read_frames(data: bytes) -> None:
    """Cut anywhere, the same frames are good."""
    whole = frames.Frames().take(data)
    for cut in (1, len(data) // 2, len(data) - 1):
        reader = frames.Frames()
        first, good = reader.take(data[:cut])
        if good:
            second, good = reader.take(data[cut:])
            first += second
        assert (first, good) == whole
    assert data.startswith(whole[0])


def read_path(data: bytes) -> None:
    path, _, query = data.decode("latin-1").partition("?")
    paths.segments(path)
    paths.query_value(query, "token")


class _Origin:
    """As much of an `Exchange` as a question about its origin needs. Any: the rest is not there."""

    def __init__(self, origin: str, host: str) -> None:
        self._fields = {"Origin": origin, "Host": host}

    def header(self, name: str) -> str | None:
        return self._fields.get(name)


def read_origin(data: bytes) -> None:
    origin, _, host = text(data).partition("\n")
    front = Front(Http(cors_origins=("https://app.example",)), secure=True)
    exchange: Any = _Origin(origin, host)
    front.foreign(exchange)
    assert set(front.fields(origin)) >= {"Vary"}


def read_forwarded(data: bytes) -> None:
    for field in ("forwarded", "x-forwarded-for"):
        trusting = proxies.Proxies(Http(trusted_proxies=("10.0.0.0/8", "fd00::/8"), forwarded=field))
        found = trusting.client("10.0.0.1", lambda name: text(data))
        assert proxies.parse(found) is not None


def read_fields(data: bytes) -> None:
    """What calls may carry, each field by itself."""
    field = text(data)
    caching.directives(field)
    native.unchanged('"etag"', field)
    traced = TRACER.begin(field, field, "01ARZ3NDEKTSV4RRFFQ69G5FAV")
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]", traced.traceparent)
    assert traced.state is None or (len(traced.state) <= 512 and traced.state.isascii() and traced.state.isprintable())
    assert len(requests.request_id(field)) in (26, 36)
    invocation.client(field)
    native._accepts_events(field)
    for parse in (idempotency.parse, native.timeout_of, history._limit, history._status):
        try:
            parse(field)
        except Refusal:
            pass


def read_native_body(data: bytes) -> None:
    arguments = native.kwargs_of("application/json", None, data)
    assert json.loads(arguments)[0] == []
    values.canonical(arguments)


def read_runagent_body(data: bytes) -> None:
    decoded = runagent.parse_run(data)
    assert len(json.loads(decoded.arguments)) == 2
    values.canonical(decoded.arguments)


# ---- the gateway: who calls


_SIGNING = Ed25519PrivateKey.generate()
_PUBLIC = _SIGNING.public_key()


def _part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _claims(**more: object) -> bytes:
    claims = {
        "iss": HERE, "aud": HERE, "sub": "a", "client_id": "a", "iat": int(NOW), "exp": int(NOW) + 60, "jti": "j",
        "scope": "agents:invoke:*/*",
    }  # fmt: skip
    return json.dumps({**claims, **more}).encode()


_HEADER = b'{"alg":"EdDSA","typ":"at+jwt","kid":"k"}'


async def _identity() -> Identity:
    trust = Trust(lambda: NOW)
    trust.tell(control.TrustedKeys(keys=(PublicKey(key_id="k", public=_PUBLIC.public_bytes_raw(), until=0),)))
    trust.apply()
    settings = Issuer(
        name="login", source="s", issuer="https://login.example", audience=("api",), algorithms=ALGORITHMS,
        types=("jwt",), subject="sub", tenant="org", lifetime_max=3600, grants=(),
    )  # fmt: skip
    foreign = Issuers(
        [settings], send=lambda message: None, changed=lambda: None, clock=lambda: NOW, log=Log(None, source="x")
    )
    der = _PUBLIC.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    key = VerifyingKey(kid="k", algorithms=("EdDSA",), public=der)
    foreign.take(KeySet(issuer="login", source="s", keys=(key,), fetched=int(NOW), until=int(NOW) + 1))
    own = Verifier(trust.key, issuer=HERE, audience=HERE)
    kinds = (ApiKeys(lambda identity: NOBODY, issuer=HERE), foreign, own)
    return Identity(kinds, trust=trust, roles={}, clock=lambda: NOW)


def _show(token: str) -> None:
    async def ask() -> None:
        identity = await _identity()
        await identity.principal(Credentials(token, None, "127.0.0.1"))

    asyncio.run(ask())


def read_token(data: bytes) -> None:
    _show(text(data))


def read_signed_token(data: bytes) -> None:
    """Header and claims are the fuzzer's, and the signature is good."""
    header, _, claims = data.partition(b"\n")
    signed = f"{_part(header)}.{_part(claims)}"
    _show(f"{signed}.{_part(_SIGNING.sign(signed.encode()))}")


def read_scopes(data: bytes) -> None:
    found = grants.grants(text(data).split(" "), {"r": grants.Role(("agents:invoke:*/*",), ("agents:invoke:x/y",))})
    found.sees(("x", "y"))
    assert not found.may_invoke(("x", "x"), "y") or "role:r" not in text(data).split(" ")


def read_shown_token(data: bytes) -> None:
    """What `runagentctl token inspect` shows of a token is one printable line for each claim."""
    for name, value in token_commands._claims(text(data)).items():
        shown = token_commands._shown(name, value)
        assert "\n" not in shown
        assert "\x1b" not in shown


def read_key_set(data: bytes) -> None:
    found, problems = keys.keys_of(data, ALGORITHMS)
    record.encode(KeySet(issuer="x", source="s", keys=found, fetched=0, until=0))
    assert all(isinstance(problem, str) for problem in problems)


def read_discovery(data: bytes) -> None:
    assert fetch._jwks_uri(data, "https://login.example").startswith("https://")


# ---- what an agent says


def read_values(data: bytes) -> None:
    """A result is JSON on one line; what is canonical is so once and for all."""
    for kind in ValueType:
        if values.result_fault(kind, data) is None:
            assert b"\n" not in data
            json.loads(data)
    if values.is_json(data):
        canonical = values.canonical(data)
        assert values.canonical(canonical) == canonical


def read_description(data: bytes) -> None:
    for parse in (describe.parse, describe.first_problem):
        try:
            found = parse(data)
        except ChannelError:
            continue
        if isinstance(found, describe.Description):
            for entry in found.entrypoints:
                openapi._success(entry)
                json.dumps(openapi._arguments(entry))


def read_type(data: bytes) -> None:
    json.dumps(openapi.schema_of(data.decode("utf-8", "replace")))


def read_announced(data: bytes) -> None:
    """What the foreman prints of what an agent says of itself: printable, whatever that is."""
    row = admin.Deployed(
        ok=True,
        agent="a",
        agent_name="a",
        tags=("t",),
        policy="base",
        hints=(),
        problems=(),
        describe=data,
        report=data,
    )
    announcement = announce.Announcement(
        url="http://127.0.0.1:1", token="x", certificate_file="", deployed=(row,), as_json=False, check_only=False
    )
    lines = [*announce.serving_lines(announcement), *announce.check_lines(announcement)]
    lines += announce.problem_lines(dataclasses.replace(row, ok=False))
    assert not any(set(line) & set("\x1b\r\x9b") for line in lines)
    json.dumps(announce._as_json(row))


def read_output(data: bytes) -> None:
    """However it is cut, and never more than was printed."""
    lines = Lines(line_bytes=16, minute_bytes=1 << 30)
    kept = [line for piece in data.split(b"|") for line, _ in lines.feed(piece, 0.0)]
    kept += [line for line, _ in lines.close(0.0)]
    whole = Lines(line_bytes=16, minute_bytes=1 << 30)
    joined = data.replace(b"|", b"")
    assert kept == [line for line, _ in [*whole.feed(joined, 0.0), *whole.close(0.0)]]


def read_log(data: bytes) -> None:
    """An event is one line, in both forms, and no terminal obeys it."""
    for form in Form:
        stream = io.StringIO()
        Log(stream, source="x", form=form, level=Level.DEBUG).info("event", text=text(data), data=data)
        assert stream.getvalue().count("\n") == 1
        assert not set(stream.getvalue()) & set("\x1b\r\x9b\x7f")
    logs_commands._row(data)


# ---- between our processes


def read_channel(kinds: frozenset[channel.Frame], data: bytes) -> None:
    splitter = channel.Splitter(kinds, frame_bytes_max=4096)
    for piece in (data[:7], data[7:]):
        for frame in splitter.feed(piece):
            assert frame.type in kinds
        assert splitter.pending_bytes <= 4096


EXCHANGES: dict[exchanges.Kind, Callable[[bytes], object]] = {
    exchanges.Kind.PLACE: exchanges.address,
    exchanges.Kind.CERTIFICATE: exchanges.certificate,
    exchanges.Kind.HEAD: exchanges.head,
    exchanges.Kind.BEGIN: exchanges.begin,
    exchanges.Kind.BODY: exchanges.piece,
    exchanges.Kind.BODY_FAILED: exchanges.body_fault,
    exchanges.Kind.SENT: exchanges.count,
    exchanges.Kind.MESSAGE: exchanges.said,
    exchanges.Kind.PLACED: exchanges.verdict,
    exchanges.Kind.READ_BODY: exchanges.number_of,
    exchanges.Kind.REPLY: exchanges.answer,
    exchanges.Kind.MORE: exchanges.piece,
    exchanges.Kind.OPEN_STREAM: exchanges.opening,
    exchanges.Kind.OPEN_WEBSOCKET: exchanges.number_of,
    exchanges.Kind.TEXT: exchanges.piece,
    exchanges.Kind.CLOSE: exchanges.close,
    exchanges.Kind.FAULT: exchanges.failed,
}
"""Kinds whose body is parsed; the others' is taken whole, or there is none."""


def read_exchanges(kinds: frozenset[exchanges.Kind], data: bytes) -> None:
    splitter = exchanges.Splitter(kinds)
    for piece in (data[:7], data[7:]):
        for message in splitter.feed(piece):
            assert message.kind in kinds
            EXCHANGES.get(message.kind, len)(message.body)
        assert splitter.pending_bytes <= exchanges.MESSAGE_BYTES_MAX + 4


def read_record(cls: type[Any], bytes_max: int, data: bytes) -> None:
    """What is read is written in the same bytes."""
    assert record.encode(record.decode(cls, data, bytes_max=bytes_max)) == data


def read_manifest(data: bytes) -> None:
    report = parse_report(data)
    assert (report.manifest is None) == bool(report.problems)


# ---- files


def read_configuration(name: str, data: bytes) -> None:
    """Any bytes give a report that root can read."""
    others = {"main.py": b""} if name.startswith("runagent.") else {
        "main.py": b"", "runagent.config.json": json.dumps(SHORT).encode(),
        ".venv/lib/python3.11/site-packages/x": b"",
    }  # fmt: skip
    report = configuration.load(FakeFolder({**others, name: data}), python=(3, 11))
    assert parse_report(record.encode(report)) == report


def read_dotenv(data: bytes) -> None:
    dotenv.parse(data)


def read_daemons_toml(data: bytes) -> None:
    record.encode(config_load.parse(data, "runagentd.toml", Path("/nonexistent")).settings)


def read_agent_file(data: bytes) -> None:
    assert agent_file.parse(data, Path("/nonexistent/chat.toml")).folder.is_absolute()


def read_policy(data: bytes) -> None:
    def read(place: policy_load.Place) -> bytes:
        if place.path.name == "fuzzed.toml":
            return data
        if place.shipped is None:
            raise policy_load.Unreadable("not here")
        return files.read(place)

    policy_load.load("./fuzzed.toml", read, known_groups=("sched",))


# ---- a caller's arguments, in the sandbox


class Colour(enum.Enum):
    RED = "red"
    TWO = 2


class Row(TypedDict):
    price: float
    note: NotRequired[str]


class Point(NamedTuple):
    x: int
    y: int = 0


@dataclass
class Person:
    name: str
    friends: list[Person] = dataclasses.field(default_factory=list)


def function(
    a: int,
    b: float = 0.0,
    *rest: list[int],
    c: dict[str, int | None] | None = None,
    d: tuple[int, str] | Literal["x", 1] = "x",
    e: Optional[Person] = None,  # noqa: UP045  (as agents write it)
    f: set[Colour] = frozenset(),  # type: ignore[assignment] # as agents write it
    g: Row | None = None,
    h: Point | None = None,
    i: datetime.datetime | datetime.date | datetime.time | datetime.timedelta | None = None,
    j: uuid.UUID | bytes | Path | None = None,
    k: decimal.Decimal | bool | None = None,
    **more: str,
) -> None:
    """All kinds of parameters."""


_PARAMETERS = Parameters(function)


def read_arguments(data: bytes) -> None:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return
    if isinstance(found, list) and len(found) == 2 and isinstance(found[0], list) and isinstance(found[1], dict):
        args, kwargs = _PARAMETERS.bind(found[0], found[1])
        function(*args, **kwargs)


_SAMPLE = {"a": [{"b": 1}, {"b": [2, 3]}], "c-d": {"e": None}, "ü": "x"}


def read_jsonpath(data: bytes) -> None:
    JsonPath(data.decode("utf-8", "replace")).first(_SAMPLE)


# ---- all of them

_REFUSED = (Refusal,)
_RECORD = (RecordError,)
_CALL = (
    b"POST /v1/agents/a/entrypoints/t:invoke?x=%20 HTTP/1.1\r\nHost: x:1\r\nAuthorization: Bearer a.b.c\r\n"
    b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
)
_DESCRIBE = json.dumps(
    {
        "import_ms": 1.5,
        "entrypoints": [
            {
                "tag": "say", "file": "main.py", "module": "run", "doc": "Say it.", "streams": False,
                "asynchronous": False, "returns": "dict[str, list[int] | None]",
                "parameters": [
                    {"name": "text", "kind": "positional_or_keyword", "required": True, "type": "str", "default": "1"}
                ],
            }
        ],
    }
).encode()  # fmt: skip
_FAILED = b'{"problems":[{"where":"main.py","what":"no such function","hint":"x","traceback":"y"}]}'
_LONG_YAML = (b"agent_name: demo\nagent_architecture:\n  entrypoints:\n", b"  - {file: main.py, module: run, tag: x}\n")

TARGETS: dict[str, Target] = {
    "plain": Target(read_plain, [_CALL, _CALL * 2, _CALL.replace(b"\r\n\r\n", b"\r\nExpect: x\r\n\r\n")]),
    "frames": Target(read_frames, [b"\x81\x85\1\2\3\4abcde", b"\x01\x80\0\0\0\0\x80\xfe\0\x7e\0\0\0\0" + b"x" * 126]),
    "paths": Target(read_path, [b"/v1/agents/a%2Fb/x?token=a.b.c&y", b"http://x/%c3%bc?token=%41", b"//a"]),
    "origin": Target(read_origin, [b"https://app.example\nx:1", b"http://[::1]:8450\n[::1]:8450", b"null\n"]),
    "forwarded": Target(read_forwarded, [b'for=192.0.2.1;proto=https, for="[2001:db8::1]:80"', b"192.0.2.1, [::1]:9"]),
    "fields": Target(
        read_fields,
        [
            b"max-age=10, no-store, only-if-cached", b'W/"etag", *', b'"0123456789abcdef"', b"1500ms", b"30s",
            b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", b"01ARZ3NDEKTSV4RRFFQ69G5FAV",
            b"limit=5&status=running", b"text/html, text/event-stream;q=0.5", b"curl/8.0",
        ],
    ),
    "native-body": Target(read_native_body, [b'{"text":"hi","n":1.50}', b"", b" {} ", b'{"a":[{"b":null}]}'], _REFUSED),
    "runagent-body": Target(
        read_runagent_body,
        [b'{"entrypoint_tag":"say","input_args":[1],"input_kwargs":{"a":"b"},"timeout_seconds":1.5}'],
        _REFUSED,
    ),
    "token": Target(
        read_token,
        [
            f"{_part(_HEADER)}.{_part(_claims())}.AAAA".encode(),
            f"{_part(_HEADER)}.{_part(_claims(iss='https://login.example'))}.AAAA".encode(),
            apikeys.create("0" * 26).encode(),
        ],
        _REFUSED,
    ),
    "signed-token": Target(
        read_signed_token,
        [
            _HEADER + b"\n" + _claims(),
            _HEADER + b"\n" + _claims(nbf=int(NOW), tenant="acme"),
            _HEADER.replace(b"at+jwt", b"JWT") + b"\n" + _claims(iss="https://login.example", aud="api", org="acme"),
        ],
        _REFUSED,
    ),
    "scopes": Target(read_scopes, [b"agents:invoke:a%2Fb*/* agents:read role:r openid", b"agents:invoke:x/y"]),
    "shown-token": Target(read_shown_token, [f"{_part(_HEADER)}.{_part(_claims())}.AAAA".encode()]),
    "key-set": Target(
        read_key_set,
        [
            b'{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}',
            b'{"keys":[{"kty":"RSA","kid":"r","alg":"RS256","use":"sig","n":"AQAB","e":"AQAB"}]}',
            b'{"keys":[{"kty":"EC","crv":"P-256","kid":"e","x":"AAAA","y":"AAAA","key_ops":["verify"]}]}',
        ],
        (keys.KeysError,),
    ),
    "discovery": Target(
        read_discovery,
        [b'{"issuer":"https://login.example","jwks_uri":"https://login.example/keys"}'],
        (fetch.FetchError,),
    ),
    "values": Target(read_values, [b'{"b":1.0,"a":[null,true,"\\u00e9"]}', b'"text"', b"-1.5e3", b"[]", b"null"]),
    "description": Target(read_description, [_DESCRIBE, _FAILED]),
    "type": Target(read_type, [b"dict[str, list[int] | None]", b"Literal['a', 1]", b"Optional[tuple[int, ...]]"]),
    "announced": Target(read_announced, [_DESCRIBE, _FAILED]),
    "output": Target(read_output, [b"one\ntwo|\n\nthr|ee", b"x" * 40 + b"\n" + b"y" * 17]),
    "log": Target(read_log, [b"text", b'{"time":"t","agent":"a","instance":"i","stream":"stdout","text":"x"}']),
    "from-supervisor": Target(control.parse_from_supervisor, [*map(control.pack, messages.FROM_SUPERVISOR)], _RECORD),
    "from-gateway": Target(control.parse_from_gateway, list(map(control.pack, messages.FROM_GATEWAY)), _RECORD),
    "from-egress": Target(issuers.parse_from_egress, list(map(issuers.pack, messages.FROM_EGRESS)), _RECORD),
    "to-egress": Target(issuers.parse_from_gateway, list(map(issuers.pack, messages.TO_EGRESS)), _RECORD),
    "request": Target(admin.parse_request, list(map(admin.pack, messages.REQUESTS)), _RECORD),
    "reply": Target(admin.parse_reply, list(map(admin.pack, messages.REPLIES)), _RECORD),
    "settings": Target(functools.partial(read_record, Settings, 1 << 20), [record.encode(Settings())], _RECORD),
    "load-report": Target(read_manifest, [record.encode(messages.LOAD_REPORT)]),
    "launch-report": Target(
        functools.partial(read_record, launch.LaunchReport, launch.REPORT_BYTES_MAX),
        [record.encode(messages.LAUNCH_REPORT)],
        _RECORD,
    ),
    "job": Target(
        functools.partial(read_record, launch.Job, launch.JOB_BYTES_MAX), [record.encode(messages.JOB)], _RECORD
    ),
    "manifest": Target(
        functools.partial(read_record, manifest.LoadReport, manifest.MANIFEST_BYTES),
        [record.encode(messages.LOAD_REPORT)],
        _RECORD,
    ),
    "exit": Target(launch.parse_exit, [launch.pack_exit(messages.EXIT)], _RECORD),
    "from-runner": Target(
        functools.partial(read_channel, channel.FROM_RUNNER),
        [
            channel.pack(channel.Frame.HELLO, 0, b'{"version":1}'),
            channel.pack(channel.Frame.CHUNK, 1, b'{"type":"integer"}', b"1") * 3,
        ],
        (ChannelError,),
    ),
    "to-runner": Target(
        functools.partial(read_channel, channel.FROM_GATEWAY),
        [channel.pack(channel.Frame.CALL, 1, b'{"tag":"say","mode":"single"}', b"[[],{}]")],
        (ChannelError,),
    ),
    "from-worker": Target(
        functools.partial(read_exchanges, exchanges.FROM_WORKER),
        [
            exchanges.pack(exchanges.Kind.PLACE, 1, b"127.0.0.1")
            + exchanges.pack_head(1, "POST", "/v1", {"host": "x"})
            + exchanges.pack_begin(1, exchanges.Begin(1, False, 2, "0af76519-16cd-43dd-8448-eb211c80319c", b"{}")),
            exchanges.pack_piece(exchanges.Kind.BODY, 1, b"{}", last=True) + exchanges.pack_count(1, 1),
        ],
        (ExchangeError,),
    ),
    "to-worker": Target(
        functools.partial(read_exchanges, exchanges.FROM_GATEWAY),
        [
            exchanges.pack_answer(1, exchanges.Answer(200, True, "application/json", {"Age": "1"}, b"1")),
            exchanges.pack_opening(1, 200, {"A": "b"}) + exchanges.pack(exchanges.Kind.PIECE, 1, b"x"),
        ],
        (ExchangeError,),
    ),
    "configuration-json": Target(
        functools.partial(read_configuration, "runagent.config.json"), [json.dumps(SHORT).encode()]
    ),
    "configuration-yaml": Target(
        functools.partial(read_configuration, "runagent.config.yaml"), [b"".join(_LONG_YAML), b"a: &x [1]\nb: *x\n"]
    ),
    "pyvenv-cfg": Target(
        functools.partial(read_configuration, ".venv/pyvenv.cfg"), [b"home = /usr/bin\nversion = 3.11.2\n"]
    ),
    "python-version": Target(
        functools.partial(read_configuration, ".python-version"), [b"# for uv\n\n3.13.1\n", b"pypy3.10\n"]
    ),
    "dotenv": Target(read_dotenv, [b"export A='b'\nC=\"d\\n$E\" # f\nG=h\n", b"A=\"b\nc\"\n"]),
    "runagentd-toml": Target(
        read_daemons_toml,
        [
            b'[roles.a]\nallow = ["agents:invoke:*/*"]\n[cache]\nsize = "1MiB"\n[limits.address]\nconnections = 2\n',
            b'[limits.principal]\nrate = "1/s"\n[limits.principal.for.b]\ndaily = 3\n',
            b'[http]\ntrusted_proxies = ["10.0.0.0/8"]\ncors_origins = ["https://a"]\nforwarded = "forwarded"\n',
            b'[issuers.a]\nissuer = "https://a"\naudience = "x"\n',
        ],
        (ConfigurationError,),
    ),
    "agent-file": Target(
        read_agent_file,
        [
            b'folder = "/srv/chat"\nname = "chat"\npolicy = "../x.toml"\naliases = ["stable"]\n',
            b'folder = "x"\nallow_widening = true\n[scaling]\ninstances_min = 0\ninstances_max = 4\n',
        ],
        (ConfigurationError,),
    ),
    "policy": Target(
        read_policy,
        [path.read_bytes() for path in sorted((ROOT / "policies").glob("*.toml")) if path.stem != "syscalls"],
        (ConfigurationError,),
    ),
    "arguments": Target(
        read_arguments,
        [
            b'[[1, 2.5, [3]], {"c": {"x": null}, "d": [1, "y"], "e": {"name": "n", "friends": [{"name": "m"}]}}]',
            b'[[], {"a": "1", "f": ["red", 2], "g": {"price": 1}, "h": [1, 2], "i": "2026-01-01T00:00:00Z", "z": "w"}]',
            b'[[0], {"j": "00000000-0000-0000-0000-000000000000", "k": "1.50", "i": 3.5}]',
        ],
        (WrongArgument,),
    ),
    "jsonpath": Target(read_jsonpath, [b"$.a[0].b", b"$..b[-1:]", b"a[*]", b"$['c-d'].e"], (JsonPathError,)),
}  # fmt: skip


def run(name: str, data: bytes) -> None:
    """One input; whatever it raises is a finding."""
    target = TARGETS[name]
    try:
        target.parse(data)
    except target.errors:
        pass


def seconds(name: str, data: bytes) -> float:
    """How long it takes."""
    began = time.process_time()
    run(name, data)
    return time.process_time() - began
