"""Opening handshakes and frames that RFC 6455 forbids, and clients that stop in the midst of one."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping

import pytest

from runagentd.gateway import exchanges, frames
from runagentd.gateway.doors import runagent
from runagentd.wire.channel import Frame
from tests import fakes_gateway
from tests.fakes_gateway import Gateway
from tests.hostile.raw import MANY, Client, Front, Recorder

NONCE = b"dGhlIHNhbXBsZSBub25jZQ=="
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
RUN = b'{"entrypoint_tag":"say_stream","input_kwargs":{"text":"seen"}}'
CALL = '[[],{"text":"seen"}]'


def opening(
    gateway: Gateway,
    *more: bytes,
    without: str = "",
    line: bytes = b"GET /api/v1/agents/echo-1/run-stream HTTP/1.1",
    changed: Mapping[str, bytes] | None = None,
) -> bytes:
    """A good opening handshake but for what is asked."""
    fields = {
        "Host": b"x",
        "Authorization": f"Bearer {gateway.token()}".encode(),
        "Connection": b"Upgrade",
        "Upgrade": b"websocket",
        "Sec-WebSocket-Key": NONCE,
        "Sec-WebSocket-Version": b"13",
    }
    fields |= changed or {}
    lines = [b"%b: %b" % (name.encode(), value) for name, value in fields.items() if name != without]
    return b"\r\n".join([line, *lines, *more, b"", b""])


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    reserved: int = 0,
    masked: bool = True,
    length: bytes | None = None,
) -> bytes:
    """A frame as a client sends it; `length` stands for the second byte and all of the longer length."""
    first = (0x80 if fin else 0) | reserved << 4 | opcode
    mask = 0x80 if masked else 0
    if length is None:
        size = len(payload)
        if size < 126:
            length = bytes([mask | size])
        elif size < 65536:
            length = bytes([mask | 126]) + struct.pack(">H", size)
        else:
            length = bytes([mask | 127]) + struct.pack(">Q", size)
    key = b"\1\2\3\4"
    shown = bytes(byte ^ key[index % 4] for index, byte in enumerate(payload)) if masked else payload
    return bytes([first]) + length + (key if masked else b"") + shown


def close(code: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, struct.pack(">H", code) + reason)


@pytest.fixture(scope="module", params=[1, 2], ids=["alone", "workers"])
def front(request: pytest.FixtureRequest) -> Iterator[Front]:
    for gateway in fakes_gateway.running(workers=request.param):
        yield Front(gateway, Recorder(gateway.ready("say_stream", limits=MANY)))


# ---- opening


@pytest.mark.parametrize(
    ("status", "changes"),
    [
        (101, {}),
        (101, {"Connection": b"keep-alive, upgrade", "Upgrade": b"WebSocket"}),
        (101, {"Sec-WebSocket-Extensions": b"permessage-deflate", "Sec-WebSocket-Protocol": b"chat"}),
        (400, {"Sec-WebSocket-Version": b"8"}),
        (400, {"Sec-WebSocket-Version": b"7"}),
        (400, {"Sec-WebSocket-Version": b"14"}),
        (400, {"Sec-WebSocket-Version": b"13, 8"}),
        (400, {"Sec-WebSocket-Key": b""}),
        (400, {"Sec-WebSocket-Key": b"AAAA"}),
        (400, {"Sec-WebSocket-Key": b"!" * 24}),
        (400, {"Sec-WebSocket-Key": b"A" * 3000}),
        (400, {"Connection": b"keep-alive"}),
        (400, {"Upgrade": b"websocket, h2c"}),
        (400, {"Upgrade": "websoc\u212aet".encode()}),
        (403, {"Origin": b"http://elsewhere"}),
        (401, {"Authorization": b"Bearer x"}),
    ],
)  # fmt: skip
def test_an_opening_handshake_is_good_or_refused(front: Front, status: int, changes: dict[str, bytes]) -> None:
    """RFC 6455, section 4.2.1. Nothing is agreed that was not asked for, and no compression at all."""
    with Client(front.gateway.port) as client:
        client.send(opening(front.gateway, changed=changes))
        answer = client.answer()
        assert answer is not None
        assert answer.status == status
        if status == 101:
            assert answer.fields["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
            assert not {"sec-websocket-extensions", "sec-websocket-protocol"} & answer.fields.keys()
        else:
            assert client.answer() is None
        if status == 400:
            assert answer.fields["sec-websocket-version"] == "13"
    assert front.recorder.taken() == []


@pytest.mark.parametrize("name", ["Connection", "Upgrade", "Sec-WebSocket-Key", "Sec-WebSocket-Version"])
def test_an_opening_handshake_has_all_its_fields(front: Front, name: str) -> None:
    """Without one of them it is none."""
    with Client(front.gateway.port) as client:
        client.send(opening(front.gateway, without=name))
        answer = client.answer()
    assert answer is not None
    assert answer.status == 400


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET /api/v1/agents/echo-1/run-stream HTTP/1.0", 400),
        (b"POST /api/v1/agents/echo-1/run-stream HTTP/1.1", 405),
        (b"GET /v1/agents HTTP/1.1", 200),
    ],
)
def test_only_a_get_of_http_1_1_where_there_is_a_websocket_opens_one(front: Front, line: bytes, status: int) -> None:
    """Elsewhere the wish is passed over, and the connection ends with the answer."""
    with Client(front.gateway.port) as client:
        client.send(opening(front.gateway, line=line) + GOOD)
        answer = client.answer()
        assert client.answer() is None
    assert answer is not None
    assert (answer.status, answer.fields["connection"]) == (status, "close")
    assert front.recorder.taken() == []


def test_a_second_key_is_refused(front: Front) -> None:
    """There would be two right answers."""
    with Client(front.gateway.port) as client:
        client.send(opening(front.gateway, b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="))
        answer = client.answer()
        assert client.answer() is None
    assert answer is not None
    assert answer.status == 400


# ---- frames

GOOD = frame(TEXT, RUN)
IN_PIECES = frame(TEXT, RUN[:9], fin=False)

ANSWERED: dict[str, bytes] = {
    "one message": GOOD,
    "pieces": IN_PIECES + frame(CONTINUATION, RUN[9:]),
    "pieces around a ping": IN_PIECES + frame(PING, b"x") + frame(CONTINUATION, RUN[9:]),
    "an empty piece first": frame(TEXT, fin=False) + frame(CONTINUATION, RUN),
    "many empty pieces": frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 5000 + frame(CONTINUATION, RUN),
    "a ping of 125 bytes": frame(PING, b"x" * 125) + GOOD,
    "a pong that nobody asked for": frame(PONG, b"x") + GOOD,
    "a message of 70 kB": frame(TEXT, RUN[:-1] + b" " * 70_000 + b"}"),
}  # fmt: skip

CUT: dict[str, tuple[bytes, int]] = {
    "no mask": (frame(TEXT, RUN, masked=False), 1002),
    "a ping without a mask": (frame(PING, b"x", masked=False) + GOOD, 1002),
    "a piece without a mask": (IN_PIECES + frame(CONTINUATION, RUN[9:], masked=False), 1002),
    "compressed though it was not agreed": (frame(TEXT, RUN, reserved=4), 1002),
    "the second reserved bit": (frame(TEXT, RUN, reserved=2), 1002),
    "the third reserved bit": (frame(TEXT, RUN, reserved=1), 1002),
    "a compressed piece": (IN_PIECES + frame(CONTINUATION, RUN[9:], reserved=4), 1002),
    "opcode 3": (frame(3, RUN), 1002),
    "opcode 7": (frame(7, RUN), 1002),
    "opcode 11": (frame(11), 1002),
    "opcode 15": (frame(15), 1002),
    "a ping of 126 bytes": (frame(PING, b"x" * 126), 1002),
    "a ping of 70 kB": (frame(PING, b"x" * 70_000), 1002),
    "a ping in pieces": (frame(PING, b"x", fin=False), 1002),
    "a close in pieces": (frame(CLOSE, fin=False), 1002),
    "a piece of nothing": (frame(CONTINUATION, RUN), 1002),
    "a message in the midst of another": (IN_PIECES + GOOD, 1002),
    "a piece that is a message": (IN_PIECES + frame(TEXT, RUN[9:], fin=False), 1002),
    "a message after an empty piece": (frame(TEXT, fin=False) + GOOD, 1002),
    "a length of 16 bits that fits into 7": (frame(TEXT, RUN, length=b"\xfe" + struct.pack(">H", len(RUN))), 1002),
    "a length of 64 bits that fits into 7": (frame(TEXT, RUN, length=b"\xff" + struct.pack(">Q", len(RUN))), 1002),
    "a length of 64 bits that fits into 16": (frame(TEXT, length=b"\xff" + struct.pack(">Q", 65535)), 1002),
    "a length of 2**63": (frame(TEXT, length=b"\xff\x80" + bytes(7)), 1009),
    "a length of 2**62": (frame(TEXT, length=b"\xff\x40" + bytes(7)), 1009),
    "more than the agent takes": (frame(TEXT, b" " * (1024 * 1024 + 1)), 1009),
    "more than it takes, in pieces": (
        frame(TEXT, b" " * 600_000, fin=False) + frame(CONTINUATION, b" " * 600_000, fin=False), 1009,
    ),
    "no UTF-8": (frame(TEXT, b"\xff\xfe"), 1007),
    "overlong UTF-8": (frame(TEXT, b"\xc0\xaf"), 1007),
    "half a surrogate pair": (frame(TEXT, b"\xed\xa0\x80"), 1007),
    "no UTF-8 across pieces": (frame(TEXT, b"\xc3", fin=False) + frame(CONTINUATION, b"("), 1007),
    "HTTP": (b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n", 1002),
    "a close": (close(1000) + GOOD, 1000),
    "a close without a code": (frame(CLOSE), 1000),
    "a close with half a code": (frame(CLOSE, b"\x03"), 1002),
    "a close with a reason of 124 bytes": (close(1000, b"x" * 124), 1002),
    "a close with a reason that is no text": (close(1000, b"\xff"), 1007),
    **{f"a close with {code}": (close(code), 1002) for code in (0, 999, 1004, 1005, 1015, 1016, 2999)},
    **{f"a close with {code}": (close(code), 1000) for code in (1001, 1012, 3000, 4999)},
}  # fmt: skip

WRONG: dict[str, bytes] = {
    "binary": frame(BINARY, RUN),
    "nothing": frame(TEXT),
    "no JSON": frame(TEXT, b"{"),
    "no tag": frame(TEXT, b"{}"),
    "a list": frame(TEXT, b"[]"),
    "JSON that is nested deep": frame(TEXT, RUN[:-2] + b',"b":' + b"[" * 100_000 + b"]" * 100_000 + b"}}"),
    "a number that is too large": frame(TEXT, RUN[:-1] + b',"timeout_seconds":1e999}'),
}


def received(client: Client) -> tuple[int, bytes] | None:
    """(opcode, payload) of the server's next frame, or None at the end."""
    head = client.exactly(2)
    if len(head) < 2:
        return None
    size = head[1]
    if size >= 126:
        size = int.from_bytes(client.exactly(2 if size == 126 else 8))
    return head[0] & 0x0F, client.exactly(size)


def conversation(front: Front, data: bytes, *, apart: bool) -> tuple[list[str], int]:
    """What the server's messages are, and the code with which it closes.

    With `apart` the frames come when it is a WebSocket already, else in the same bytes as its opening.
    """
    said: list[str] = []
    with Client(front.gateway.port) as client:
        start = opening(front.gateway)
        client.send(start if apart else start + data)
        answer = client.answer()
        assert answer is not None
        assert answer.status == 101
        if apart:
            client.send(data)
        while (got := received(client)) is not None:
            opcode, payload = got
            if opcode == CLOSE:
                client.send(close(1000))
                assert received(client) is None
                return said, int.from_bytes(payload[:2])
            if opcode == TEXT:
                message = json.loads(payload)
                said.append(message.get("status") or message["type"])
                if said[-1] == "stream_completed":
                    client.send(close(1000))
            else:
                assert opcode == PONG
        raise AssertionError("the connection ended without a close")


@pytest.mark.parametrize("apart", [True, False], ids=["apart", "at once"])
@pytest.mark.parametrize("data", ANSWERED.values(), ids=ANSWERED)
def test_what_the_rfc_allows_is_a_call(front: Front, data: bytes, apart: bool) -> None:
    """However it is cut into frames."""
    assert conversation(front, data, apart=apart) == (["stream_started", "data", "stream_completed"], 1000)
    assert front.recorder.taken() == [CALL]


@pytest.mark.parametrize("apart", [True, False], ids=["apart", "at once"])
@pytest.mark.parametrize(("data", "code"), CUT.values(), ids=CUT)
def test_what_the_rfc_forbids_ends_the_connection(front: Front, data: bytes, code: int, apart: bool) -> None:
    """With the code that says so, without a word before it, and without a call."""
    assert conversation(front, data, apart=apart) == ([], code)
    assert front.recorder.taken() == []


@pytest.mark.parametrize("data", WRONG.values(), ids=WRONG)
def test_a_wrong_first_message_is_an_error_and_a_close(front: Front, data: bytes) -> None:
    """1003, as docs/api.md says."""
    assert conversation(front, data, apart=True) == (["error"], 1003)
    assert front.recorder.taken() == []


def test_nothing_of_it_is_a_fault_of_ours(front: Front) -> None:
    """After all of the above: no error in the log, no connection left, and a good call is answered."""
    assert [line for line in front.gateway.log_lines if '"level":"error"' in line] == []
    assert conversation(front, GOOD, apart=True)[1] == 1000
    front.gateway.wait_until(lambda: not front.gateway.server.connections)


def test_frames_are_judged_in_the_same_way_however_they_are_cut() -> None:
    """One byte at a time: what is passed on is whole heads, and ends where the forbidden frame begins."""
    for name, (data, code) in {**CUT, **{name: (data, 0) for name, data in ANSWERED.items()}}.items():
        if len(data) > 10_000:
            continue
        whole = frames.Frames().take(data)
        piecewise, good, passed = frames.Frames(), True, b""
        for byte in data:
            if good:
                more, good = piecewise.take(bytes([byte]))
                passed += more
        assert (passed, good) == whole, name
        assert good or code == 1002, name


# ---- time


def silent(gateway: Gateway, data: bytes) -> Client:
    """A client that has opened a WebSocket and sent this, and never sends anything again."""
    client = Client(gateway.port)
    client.send(opening(gateway) + data)
    answer = client.answer()
    assert answer is not None
    assert answer.status == 101
    return client


def test_a_client_that_has_vanished_without_a_word_is_found_out(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its machine lost power, say: nothing answers our pings, and its call is cancelled."""
    monkeypatch.setattr(exchanges, "PING_SECONDS", 0.1)
    runner = gateway.ready("say_stream")
    with silent(gateway, GOOD):
        call = runner.expect(Frame.CALL).call
        cancel = runner.expect(Frame.CANCEL)
    assert (cancel.call, cancel.header) == (call, b'{"reason":"client"}')


@pytest.mark.parametrize(
    "sent", [b"", GOOD[:1], GOOD[:-1], IN_PIECES], ids=["nothing", "a byte", "nearly all", "a piece"]
)
def test_a_first_message_that_does_not_come_whole_ends_it(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    """Whatever of it has come: with an error, and without a call."""
    monkeypatch.setattr(runagent, "FIRST_FRAME_SECONDS", 0.1)
    monkeypatch.setattr(exchanges, "CLOSE_SECONDS", 0.1)
    gateway.ready("say_stream")
    with silent(gateway, sent) as client:
        got = received(client)
        assert got is not None
        assert json.loads(got[1])["code"] == "REQUEST_TIMEOUT"
        assert received(client) == (CLOSE, struct.pack(">H", 1013))
        assert received(client) is None
