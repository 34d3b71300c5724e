"""Requests that are wrong, odd, or two things at once: the bytes of each, and what has to come back.

`REFUSED` are answered with one 400 and the end of the connection. Each `Row` says what else is right, and why, where a
strict reader of RFC 9112 (h11) sees something else in it. A request that must never be taken for one carries "hidden".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runagentd import apikeys

_WITHOUT_CHECKSUM = apikeys.PREFIX + "0" * 69
KEY_ID = "0" * 26
KEY = _WITHOUT_CHECKSUM + apikeys._checksum(_WITHOUT_CHECKSUM)
"""An API key that never changes, so that lengths in the corpus do not."""

INVOKE = b"/v1/agents/echo-1/entrypoints/say:invoke"
AUTH = b"Authorization: Bearer " + KEY.encode()
SEEN = b'{"text":"seen"}'
CALL = '[[],{"text":"seen"}]'
HIDDEN_BODY = b'{"text":"hidden"}'


def post(
    *fields: bytes,
    body: bytes = SEEN,
    length: bool = True,
    target: bytes = INVOKE,
    version: bytes = b"HTTP/1.1",
    host: bytes | None = b"Host: x",
    auth: bytes | None = AUTH,
) -> bytes:
    """A call that is good but for what is asked."""
    lines = [b"POST %b %b" % (target, version), *(line for line in (host, auth) if line is not None), *fields]
    if length:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def get(
    target: bytes = b"/livez",
    *fields: bytes,
    method: bytes = b"GET",
    version: bytes = b"HTTP/1.1",
    host: bytes | None = b"Host: x",
    body: bytes | None = None,
) -> bytes:
    """A question that is good but for what is asked."""
    lines = [b"%b %b %b" % (method, target, version), *([host] if host is not None else []), *fields]
    if body is not None:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")


def length(field: bytes, body: bytes = SEEN) -> bytes:
    """A call whose length is told by this field, or these."""
    return post(field, length=False, body=body)


def chunked(
    coding: bytes = b"Transfer-Encoding: chunked",
    body: bytes = b"f\r\n" + SEEN + b"\r\n0\r\n\r\n",
    *,
    auth: bytes | None = AUTH,
    version: bytes = b"HTTP/1.1",
) -> bytes:
    """A call with a body in chunks."""
    return post(coding, length=False, body=body, auth=auth, version=version)


def chunk(size_line: bytes) -> bytes:
    """A call whose one chunk begins with this."""
    return chunked(body=size_line + SEEN + b"\r\n0\r\n\r\n")


def trailer(*fields: bytes, auth: bytes | None = AUTH) -> bytes:
    """A call with these lines after its last chunk."""
    lines = b"".join(field + b"\r\n" for field in fields)
    return chunked(body=b"f\r\n" + SEEN + b"\r\n0\r\n" + lines + b"\r\n", auth=auth)


HIDDEN = post(body=HIDDEN_BODY)
IN_CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN)

KEPT, CLOSED, WAITS = "kept", "closed", "waits"


@dataclass(frozen=True, kw_only=True)
class Row:
    """What has to come back for some bytes."""

    name: str
    data: bytes
    statuses: Sequence[int]
    end: str
    """whether the connection is kept, closed, or still waits for the rest of the request"""
    calls: int = 0
    """how often the agent has to be called with `SEEN`"""
    later: Sequence[int] | None = None
    """statuses where a request came before on the connection, if they are others"""
    differs: str = ""
    """why h11 may see something else in it"""


_LENGTHS = {
    "a plus": b"+15", "a minus": b"-15", "minus nothing": b"-0", "0x": b"0xf", "hexadecimal": b"f",
    "a space in it": b"1 5", "an underscore": b"1_5", "a fraction": b"15.0", "a semicolon": b"15;",
    "an exponent": b"1e1", "nothing": b"", "a vertical tab before": b"\x0b15", "a form feed after": b"15\x0c",
    "a NUL after": b"15\0", "full-width digits": "１５".encode(), "Arabic digits": "١٥".encode(),
    "one more than 64 bits": b"18446744073709551631", "forty digits": b"9" * 40, "a comma after": b"15,",
    "quotes": b'"15"', "a CR after": b"15\r", "a list of two": b"15, 0", "a list of the same": b"15, 15",
}  # fmt: skip
_CODINGS = {
    "then identity": b"chunked, identity", "identity": b"identity", "after gzip": b"gzip, chunked", "gzip": b"gzip",
    "with a letter before": b"xchunked", "with a letter after": b"chunkedx", "after a vertical tab": b"\x0bchunked",
    "before a vertical tab": b"chunked\x0b", "twice": b"chunked, chunked", "in quotes": b'"chunked"',
    "with a parameter": b"chunked;q=1", "with a comma after": b"chunked,", "with a comma before": b",chunked",
    "that is nothing": b"", "with a NUL": b"chunked\0", "with a Kelvin sign": "chun\u212aed".encode(),
    "with a no-break space": b"chunked\xa0",
}  # fmt: skip
_CHUNKS = {
    "a plus": b"+f\r\n", "a minus": b"-f\r\n", "0x": b"0xf\r\n", "an underscore": b"f_\r\n",
    "a space before": b" f\r\n", "a space after": b"f \r\n", "a tab after": b"f\t\r\n", "nothing": b"\r\n",
    "letters": b"xyz\r\n", "a comma": b"f,\r\n", "a fraction": b"f.0\r\n",
    "more than 64 bits": b"1000000000000000f\r\n", "a bare LF": b"f\n",
    "an extension without a name": b"f;\r\n", "an extension with a bare LF": b"f;a\nb\r\n",
    "an extension with a bare CR": b"f;a\rb\r\n", "an extension with a NUL": b"f;a\0b\r\n",
    "an extension after a space": b"f ;a=b\r\n",
}  # fmt: skip
_FIELDS = {
    "a bare LF in its head": b"X-A: b\nX-B: c", "a bare CR in a value": b"X-A: b\rc", "a NUL in a value": b"X-A: b\0c",
    "a control character in a value": b"X-A: b\x01c", "an escape in a value": b"X-A: \x1b[31m",
    "a DEL in a value": b"X-A: b\x7fc", "a vertical tab in a value": b"X-A: b\x0bc", "a folded line": b"X-A: b\r\n c",
    "a space before the colon": b"X-A : b", "a space in a name": b"X A: b", "a field without a name": b": b",
    "a field without a colon": b"X-A", "a parenthesis in a name": b"X(A): b", "a NUL in a name": b"X\0A: b",
    "a letter of Latin-1 in a name": b"X\xe9: b", "a letter of UTF-8 in a name": "Ü: b".encode(),
    "an empty line in its head": b"", "62 fields more": b"\r\n".join(b"X-%d: 1" % n for n in range(62)),
    "a field of 17 kB": b"X-A: " + b"b" * 17_000, "a name of 17 kB": b"X" * 17_000 + b": b",
    "a second Host": b"Host: y", "the same Host again": b"Host: x", "a second, bad token": b"Authorization: Bearer x",
    "the same token again": AUTH, "two types": b"Content-Type: application/json\r\nContent-Type: text/plain",
    "two idempotency keys": b"Idempotency-Key: 0123456789abcdef1\r\nIdempotency-Key: 0123456789abcdef2",
    "two timeouts": b"Runagent-Timeout: 1s\r\nRunagent-Timeout: 2s",
    "two origins": b"Origin: http://x\r\nOrigin: http://y",
    "two ids": b"X-Request-ID: 01ARZ3NDEKTSV4RRFFQ69G5FAV\r\nX-Request-ID: 01ARZ3NDEKTSV4RRFFQ69G5FAW",
    "two traces": b"traceparent: x\r\nTraceparent: y",
}  # fmt: skip
_HOSTS = {
    "no Host": None, "a folded Host": b"Host:\r\n x", "a space in Host": b"Host: x y", "a user in Host": b"Host: a@x",
    "a path in Host": b"Host: x/y", "a list in Host": b"Host: x,y", "quotes around Host": b'Host: "x"',
    "a letter of Latin-1 in Host": b"Host: \xe9", "a port of letters in Host": b"Host: x:http",
}  # fmt: skip
_VERSIONS = {
    "HTTP/1.2": b"HTTP/1.2", "HTTP/1.10": b"HTTP/1.10", "HTTP/2.0": b"HTTP/2.0", "HTTP/0.9": b"HTTP/0.9",
    "HTTP/3": b"HTTP/3", "HTTP/11": b"HTTP/11", "small letters": b"http/1.1", "ICY": b"ICY/1.1",
    "a space after": b"HTTP/1.1 ", "a tab after": b"HTTP/1.1\t", "nothing": b"", "a plus": b"HTTP/+1.1",
}  # fmt: skip
_TARGETS = {
    "without a slash": b"livez", "that begins with a dot": b"./livez", "that is empty": b"", "of a proxy": b"x:80",
    "that is a star": b"*", "with a space": b"/livez x", "with a NUL": b"/livez\0", "with a control": b"/livez\x01",
    "with a DEL": b"/livez\x7f", "of Latin-1": b"/livez\xe9", "of UTF-8": "/ü".encode(), "with a fragment": b"/livez#x",
    "with a fragment that hides a path": b"/livez#/../v1/agents", "with a fragment in the query": b"/livez?a=b#c",
    "with a user": b"http://a:b@x/livez", "with half an address": b"http://[x/livez", "of no host": b"http:///livez",
    "of a port that is none": b"http://x:99999/livez", "that is a file": b"file:///etc/passwd",
    "of 17 kB": b"/" + b"a" * 17_000, "with a query of 17 kB": b"/livez?" + b"a" * 17_000,
}  # fmt: skip
_NOWHERE = (
    b"/v1%2Fagents", b"/livez%00", b"/livez%0d%0aX-A:%20b", b"/livez%", b"/livez%zz", b"/%256civez",
    b"/v1%c0%afagents", b"/%c0%ae%c0%ae/livez", b"/%ed%a0%80", b"/%ff", b"/v1/../livez", b"/v1/%2e%2e/livez",
    b"/../../etc/passwd", b"/v1\\..\\livez", b"/v1//agents", b"/livez/", b"/livez;x=y", b"//evil/livez",
)  # fmt: skip
_METHODS = {
    "in small letters": b"get", "that nobody knows": b"BREW", "of 20 kB": b"A" * 20_000, "with a NUL": b"GE\0T",
    "with a parenthesis": b"GE(T",
}  # fmt: skip

REFUSED: dict[str, bytes] = {
    **{f"Content-Length with {name}": length(b"Content-Length: " + value) for name, value in _LENGTHS.items()},
    "the same Content-Length twice": length(b"Content-Length: 15\r\nContent-Length: 15"),
    "two lengths": length(b"Content-Length: 15\r\nContent-Length: 0", SEEN + HIDDEN),
    "two lengths, the first is 0": length(b"Content-Length: 0\r\nContent-Length: %d" % len(HIDDEN), HIDDEN),
    "a length after a folded line": length(b"X-A: b\r\n Content-Length: 0\r\nContent-Length: 15"),
    "a length and chunks": post(b"Transfer-Encoding: chunked", body=b"0\r\n\r\n" + HIDDEN),
    "chunks and a length": chunked(b"Transfer-Encoding: chunked\r\nContent-Length: 4", IN_CHUNKS),
    "chunks and no length": chunked(b"Transfer-Encoding: chunked\r\nContent-Length: 0"),
    "chunks of HTTP/1.0": chunked(version=b"HTTP/1.0"),
    "chunks and a length of HTTP/1.0": post(b"Transfer-Encoding: chunked", version=b"HTTP/1.0"),
    **{f"chunked {name}": chunked(b"Transfer-Encoding: " + value) for name, value in _CODINGS.items()},
    "chunked on two lines": chunked(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
    "identity, then chunked": chunked(b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked"),
    "chunked, then identity": chunked(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"),
    "chunked after a space": chunked(b"Transfer-Encoding : chunked"),
    "chunked after a tab": chunked(b"Transfer-Encoding\t: chunked"),
    "chunked in a name with a NUL": chunked(b"Transfer-Encoding\0: chunked"),
    "chunked on a folded line": chunked(b"Transfer-Encoding:\r\n chunked"),
    "chunked after a bare LF": chunked(b"X-A: b\nTransfer-Encoding: chunked"),
    "chunked after a bare CR": chunked(b"X-A: b\rTransfer-Encoding: chunked"),
    **{f"a chunk of {name}": chunk(line) for name, line in _CHUNKS.items()},
    "a chunk that is not ended": chunked(body=b"f\r\n" + SEEN + b"0\r\n\r\n"),
    "a chunk that ends with LF": chunked(body=b"f\r\n" + SEEN + b"\n0\r\n\r\n"),
    "a chunk that ends with CR and more": chunked(body=b"f\r\n" + SEEN + b"\rX0\r\n\r\n"),
    "a chunk that is longer than it says": chunked(body=b"e\r\n" + SEEN + b"\r\n0\r\n\r\n"),
    "a last chunk of LF": chunked(body=b"f\r\n" + SEEN + b"\r\n0\n\n"),
    "a last line of LF": chunked(body=b"f\r\n" + SEEN + b"\r\n0\r\n\n"),
    "a trailer with a length": trailer(b"Content-Length: 9") + HIDDEN,
    "a trailer with chunks": trailer(b"Transfer-Encoding: chunked") + HIDDEN,
    "a trailer with a space in its name": trailer(b"X A: b"),
    "a trailer with a bare LF": trailer(b"X-A: b\nX-B: c"),
    "a trailer of 20 kB": trailer(b"X-A: " + b"b" * 20_000),
    "a trailer of 200 fields": trailer(*[b"X-A: b"] * 200),
    **{f"{name}": post(field) for name, field in _FIELDS.items()},
    "lines that end with LF": post().replace(b"\r\n", b"\n"),
    "lines that end with CR": post().replace(b"\r\n", b"\r"),
    "a head that ends with two LF": post().replace(b"\r\n\r\n", b"\n\n"),
    "a head that ends with LF and CRLF": post().replace(b"\r\n\r\n", b"\n\r\n"),
    "a fold before any field": post().replace(b"Host: x", b" X-A: b\r\nHost: x"),
    **{name: post(host=host) for name, host in _HOSTS.items()},
    "a target with a host, and no Host": get(b"http://x/livez", host=None),
    **{f"a version of {name}": get(version=version) for name, version in _VERSIONS.items()},
    "fields of HTTP/0.9": b"GET /livez\r\nHost: x\r\n\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
    "a hello of TLS": b"\x16\x03\x01\0\xa5\x01\0\0\xa1\x03\x03" + bytes(160),
    "a line of the PROXY protocol": b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + get(),
    "the PROXY protocol in binary": b"\r\n\r\n\0\r\nQUIT\n!\x11\0\x0c" + bytes(12) + get(),
    "a space before the line": b" " + get(),
    "a NUL before the line": b"\0" + get(),
    "a mark of byte order": b"\xef\xbb\xbf" + get(),
    "tabs between the words of the line": b"GET\t/livez\tHTTP/1.1\r\nHost: x\r\n\r\n",
    "a vertical tab between the words": b"GET\x0b/livez HTTP/1.1\r\nHost: x\r\n\r\n",
    **{f"a method {name}": get(method=method) for name, method in _METHODS.items()},
    **{f"a target {name}": get(target) for name, target in _TARGETS.items()},
    # What follows the last request of a connection makes all of it doubtful, and nothing of it runs.
    "a last request and another": post(b"Connection: close") + HIDDEN,
    "a last request that says it both ways": post(b"Connection: keep-alive, close") + HIDDEN,
    "a last request that says it on two lines": post(b"Connection: keep-alive\r\nConnection: close") + HIDDEN,
    "a request of HTTP/1.0 and another": post(version=b"HTTP/1.0") + HIDDEN,
    "a body without a length": post(length=False),
}

_UPGRADE = b"Connection: Upgrade\r\nUpgrade: "
_TOLERATED = "RFC 9112, section 2.2: empty lines before a request may be passed over"
_SPLITS = "h11 leaves to its user what comes after a request for another protocol; here nothing does"

ANSWERED = (
    Row(name="a good call", data=post(), statuses=[200], end=KEPT, calls=1),
    Row(name="two good calls", data=post() * 2, statuses=[200, 200], end=KEPT, calls=2),
    # ---- where a body ends
    Row(name="a length with zeros before", data=length(b"Content-Length: 0015"), statuses=[200], end=KEPT, calls=1),
    Row(name="a length among spaces", data=length(b"Content-Length:   15\t"), statuses=[200], end=KEPT, calls=1),
    Row(name="a body that is missing in part", data=length(b"Content-Length: 20"), statuses=[], end=WAITS),
    Row(
        name="a length with an underscore in its name",
        data=length(b"Content_Length: 0\r\nContent-Length: 15"),
        statuses=[200],
        end=KEPT,
        calls=1,
    ),
    Row(
        name="a body that is longer than it says",
        data=length(b"Content-Length: 5"),
        statuses=[400, 400],
        end=CLOSED,
        later=[400],  # aiohttp drops a request where the same read has bytes behind it that are none
    ),
    Row(
        name="nonsense behind a call", data=post() + b"X\r\n\r\n", statuses=[200, 400], end=CLOSED, calls=1, later=[400]
    ),
    Row(name="a request in a body", data=post(body=HIDDEN), statuses=[422], end=KEPT),
    Row(name="one in a body that nobody reads", data=post(target=b"/none", body=HIDDEN), statuses=[404], end=KEPT),
    Row(name="one in a body without a token", data=post(auth=None, body=HIDDEN), statuses=[401], end=KEPT),
    Row(name="one in the body of a GET", data=get(body=HIDDEN), statuses=[200], end=KEPT),
    Row(name="one in the body of a wrong method", data=get(INVOKE, body=HIDDEN), statuses=[405], end=KEPT),
    Row(name="one in the body of a DELETE", data=get(method=b"DELETE", body=HIDDEN), statuses=[405], end=KEPT),
    Row(
        name="a chunked body",
        data=chunked(body=b"1\r\n{\r\ne\r\n" + SEEN[1:] + b"\r\n0\r\n\r\n"),
        statuses=[200],
        end=CLOSED,
        calls=1,
    ),
    Row(name="CHUNKED", data=chunked(b"Transfer-Encoding:CHUNKED "), statuses=[200], end=CLOSED, calls=1),
    Row(name="a chunk with zeros before", data=chunk(b"000f\r\n"), statuses=[200], end=CLOSED, calls=1),
    Row(name="a chunk with an extension", data=chunk(b'f;a=b;c="d"\r\n'), statuses=[200], end=CLOSED, calls=1),
    Row(
        name="a chunk with thirty zeros before",
        data=chunk(b"0" * 30 + b"f\r\n"),
        statuses=[200],
        end=CLOSED,
        calls=1,
        differs="h11 reads no more than twenty digits",
    ),
    Row(name="a chunk of 64 bits", data=chunk(b"ffffffffffffffff\r\n"), statuses=[], end=WAITS),
    Row(name="no last line", data=chunked(body=b"f\r\n" + SEEN + b"\r\n0\r\n"), statuses=[], end=WAITS),
    Row(
        name="chunked with an underscore in its name",
        data=post(b"Transfer_Encoding: chunked"),
        statuses=[200],
        end=KEPT,
        calls=1,
    ),
    Row(name="a request in chunks", data=chunked(body=IN_CHUNKS), statuses=[422], end=CLOSED),
    Row(
        name="a request behind chunks",
        data=chunked() + HIDDEN,
        statuses=[200],
        end=CLOSED,
        calls=1,
        differs="the connection ends with a chunked request",
    ),
    Row(name="a trailer", data=trailer(b"X-A: b"), statuses=[200], end=CLOSED, calls=1),
    Row(name="a token in a trailer", data=trailer(AUTH, auth=None), statuses=[401], end=CLOSED),
    Row(
        name="a token in a trailer, and a request without one",
        data=trailer(AUTH) + post(auth=None, body=HIDDEN_BODY),
        statuses=[200],
        end=CLOSED,
        calls=1,
        differs="the connection ends with a chunked request",
    ),
    # ---- heads
    Row(
        name="Latin-1 and UTF-8 in values",
        data=post(b"X-A: \xe9", "X-B: ü".encode()),
        statuses=[200],
        end=KEPT,
        calls=1,
    ),
    Row(
        name="a token with an underscore in its name",
        data=post(auth=AUTH.replace(b":", b"_:", 1)),
        statuses=[401],
        end=KEPT,
    ),
    Row(name="60 fields more", data=post(*[b"X-%d: 1" % n for n in range(60)]), statuses=[200], end=KEPT, calls=1),
    Row(name="a field of 16 kB", data=post(b"X-A: " + b"b" * 16_000), statuses=[200], end=KEPT, calls=1),
    Row(name="an empty Host", data=post(host=b"Host:"), statuses=[200], end=KEPT, calls=1),
    Row(name="another Host", data=post(host=b"Host: [2001:db8::1]:1"), statuses=[200], end=KEPT, calls=1),
    Row(name="no Host in HTTP/1.0", data=post(host=None, version=b"HTTP/1.0"), statuses=[200], end=CLOSED, calls=1),
    Row(
        name="HTTP/1.0 that keeps its connection",
        data=post(b"Connection: keep-alive", version=b"HTTP/1.0") * 2,
        statuses=[200, 200],
        end=KEPT,
        calls=2,
        differs="h11 keeps no connection of HTTP/1.0",
    ),
    Row(name="a list on two lines", data=post(b"Accept: text/html\r\nAccept: */*"), statuses=[200], end=KEPT, calls=1),
    Row(
        name="Connection that names a field", data=post(b"Connection: authorization"), statuses=[200], end=KEPT, calls=1
    ),
    Row(name="an unknown expectation", data=post(b"Expect: 200-ok"), statuses=[200], end=KEPT, calls=1),
    Row(
        name="an expectation twice", data=post(b"Expect: 100-continue, 100-continue"), statuses=[200], end=KEPT, calls=1
    ),
    Row(
        name="an expectation of HTTP/1.0",
        data=post(b"Expect: 100-continue", version=b"HTTP/1.0"),
        statuses=[200],
        end=CLOSED,
        calls=1,
    ),
    Row(name="an expectation of a GET", data=get(b"/livez", b"Expect: 100-continue"), statuses=[200], end=KEPT),
    Row(name="a compressed body", data=post(b"Content-Encoding: gzip"), statuses=[415], end=KEPT),
    Row(name="another method in a field", data=get(INVOKE, b"X-HTTP-Method-Override: POST"), statuses=[405], end=KEPT),
    # ---- request lines
    Row(name="HTTP/0.9", data=b"GET /livez\r\n", statuses=[], end=WAITS, differs="h11 has no HTTP/0.9"),
    Row(name="empty lines before", data=b"\r\n\r\n\n\r" + get(), statuses=[200], end=KEPT, differs=_TOLERATED),
    Row(name="two spaces in the line", data=get(b" /livez"), statuses=[200], end=KEPT, differs="RFC 9112, section 3"),
    Row(
        name="RTSP/1.0",
        data=get(version=b"RTSP/1.0"),
        statuses=[200],
        end=CLOSED,
        differs="aiohttp takes it for HTTP/1.0 and does not tell; framing and target are the same",
    ),
    Row(name="a method that is not for this path", data=get(method=b"TRACE"), statuses=[405], end=KEPT),
    Row(name="OPTIONS", data=get(b"*", method=b"OPTIONS"), statuses=[404], end=KEPT),
    Row(name="a target with a host", data=get(b"http://y/livez"), statuses=[200], end=KEPT),
    Row(name="a target of another scheme", data=get(b"ftp://x/livez"), statuses=[404], end=KEPT),
    Row(name="a target without a path", data=get(b"http://x"), statuses=[404], end=KEPT),
    Row(name="a path of 16 kB", data=get(b"/" + b"a" * 16_000), statuses=[404], end=KEPT),
    Row(name="an empty query", data=get(b"/livez?"), statuses=[200], end=KEPT),
    Row(name="a percent-encoded letter", data=get(b"/%6civez"), statuses=[200], end=KEPT),
    Row(name="two slashes", data=get(b"//livez"), statuses=[200], end=KEPT),
    *(Row(name=f"the path {path.decode()}", data=get(path), statuses=[404], end=KEPT) for path in _NOWHERE),
    # ---- other protocols
    Row(name="CONNECT", data=get(b"x:80", method=b"CONNECT") + HIDDEN, statuses=[404], end=CLOSED, differs=_SPLITS),
    Row(
        name="CONNECT to a path",
        data=get(method=b"CONNECT") + HIDDEN,
        statuses=[405],
        end=CLOSED,
        differs=_SPLITS,
    ),
    Row(
        name="HTTP/2 on the same connection",
        data=get(b"/livez", b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk"),
        statuses=[200],
        end=CLOSED,
        differs=_SPLITS,
    ),
    Row(
        name="another protocol, and a request behind it",
        data=post(_UPGRADE + b"h2c") + HIDDEN,
        statuses=[200],
        end=CLOSED,
        calls=1,
        differs=_SPLITS,
    ),
    Row(
        name="a WebSocket where there is none, and a request behind it",
        data=get(b"/livez", _UPGRADE + b"websocket") + HIDDEN,
        statuses=[200],
        end=CLOSED,
        differs=_SPLITS,
    ),
    Row(
        name="a WebSocket with a body",
        data=post(_UPGRADE + b"websocket") + HIDDEN,
        statuses=[200],
        end=CLOSED,
        calls=1,
        differs=_SPLITS,
    ),
    Row(
        name="another protocol with a letter that folds to one",
        data=get(b"/livez", _UPGRADE + "websoc\u212aet".encode()) + HIDDEN,
        statuses=[200],
        end=CLOSED,
        differs=_SPLITS,
    ),
)

ROWS = (
    *(Row(name=name, data=data, statuses=[400], end=CLOSED) for name, data in REFUSED.items()),
    *ANSWERED,
)
