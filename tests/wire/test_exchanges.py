"""Messages between the gateway and its workers: their form, both ways, and an error of ours for bytes that are none."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runagentd.wire import exchanges as wire
from runagentd.wire.exchanges import (
    Answer,
    Begin,
    BodyFault,
    ExchangeError,
    Head,
    Kind,
    Message,
    Said,
    Splitter,
    Verdict,
)

EVERY_KIND = frozenset(Kind)
ID = "0af76519-16cd-43dd-8448-eb211c80319c"
HEAD = Head("POST", "/v1/x?y", {"host": "h", "accept": "a, b"})
BEGIN = Begin(3, False, 2, ID, b"{}")
ANSWER = Answer(200, True, "application/json", {"Age": "1"}, b"7")

FORMS: list[tuple[bytes, bytes, Callable[[bytes], object] | None, object]] = [
    (wire.pack(Kind.PLACE, 1, b"::1"), b"\0\0\0\x0c\x01" + b"\0" * 7 + b"\x01::1", wire.address, "::1"),
    (wire.pack(Kind.RELEASED, 1), b"\0\0\0\x09\x02" + b"\0" * 7 + b"\x01", wire.nothing, None),
    (wire.pack(Kind.CERTIFICATE, 1, b"der"), b"\0\0\0\x0c\x03" + b"\0" * 7 + b"\x01der", wire.certificate, b"der"),
    (
        wire.pack_head(1, *HEAD),
        b"\0\0\0\x28\x04" + b"\0" * 7 + b"\x01POST\n/v1/x?y\nhost\nh\naccept\na, b",
        wire.head,
        HEAD,
    ),
    (
        wire.pack_begin(2, BEGIN),
        b"\0\0\0\x41\x05"
        + b"\0" * 7
        + b"\x02"
        + b"\0" * 7
        + b"\x03\x01"
        + b"\0" * 7
        + b"\x02\x24"
        + ID.encode()
        + b"{}",
        wire.begin,
        BEGIN,
    ),
    (
        wire.pack_piece(Kind.BODY, 2, b"ab", last=False),
        b"\0\0\0\x0c\x06" + b"\0" * 7 + b"\x02\0ab",
        wire.piece,
        (b"ab", False),
    ),
    (
        wire.pack(Kind.BODY_FAILED, 2, bytes([BodyFault.SLOW])),
        b"\0\0\0\x0a\x07" + b"\0" * 7 + b"\x02\x02",
        wire.body_fault,
        BodyFault.SLOW,
    ),
    (wire.pack_count(2, 5), b"\0\0\0\x0d\x08" + b"\0" * 7 + b"\x02\0\0\0\x05", wire.count, 5),
    (
        wire.pack_said(2, Said(last=True, text=True, closed=False, piece=b"hi")),
        b"\0\0\0\x0c\x09" + b"\0" * 7 + b"\x02\x03hi",
        wire.said,
        Said(last=True, text=True, closed=False, piece=b"hi"),
    ),
    (
        wire.pack_said(2, Said(last=True, text=False, closed=True, piece=b"", too_large=True)),
        b"\0\0\0\x0a\x09" + b"\0" * 7 + b"\x02\x0d",
        wire.said,
        Said(last=True, text=False, closed=True, piece=b"", too_large=True),
    ),
    (wire.pack(Kind.GONE, 2), b"\0\0\0\x09\x0a" + b"\0" * 7 + b"\x02", wire.nothing, None),
    (
        wire.pack(Kind.PLACED, 1, bytes([Verdict.ADDRESS])),
        b"\0\0\0\x0a\x41" + b"\0" * 7 + b"\x01\x02",
        wire.verdict,
        Verdict.ADDRESS,
    ),
    (
        wire.pack_number(Kind.READ_BODY, 2, 1024),
        b"\0\0\0\x11\x42" + b"\0" * 7 + b"\x02" + b"\0" * 6 + b"\x04\0",
        wire.number_of,
        1024,
    ),
    (
        wire.pack_answer(2, ANSWER),
        b"\0\0\0\x25\x43" + b"\0" * 7 + b"\x02\0\xc8\x01\x10\0\x05application/jsonAge\n17",
        wire.answer,
        ANSWER,
    ),
    (
        wire.pack_piece(Kind.MORE, 2, b"ab", last=True),
        b"\0\0\0\x0c\x44" + b"\0" * 7 + b"\x02\x01ab",
        wire.piece,
        (b"ab", True),
    ),
    (
        wire.pack_opening(2, 200, {"A": "b"}),
        b"\0\0\0\x0e\x45" + b"\0" * 7 + b"\x02\0\xc8A\nb",
        wire.opening,
        (200, {"A": "b"}),
    ),
    (wire.pack(Kind.PIECE, 2, b"ab"), b"\0\0\0\x0b\x46" + b"\0" * 7 + b"\x02ab", None, None),
    (wire.pack(Kind.ABORT, 2), b"\0\0\0\x09\x47" + b"\0" * 7 + b"\x02", wire.nothing, None),
    (wire.pack(Kind.END, 2), b"\0\0\0\x09\x48" + b"\0" * 7 + b"\x02", wire.nothing, None),
    (
        wire.pack_number(Kind.OPEN_WEBSOCKET, 2, 9),
        b"\0\0\0\x11\x49" + b"\0" * 7 + b"\x02" + b"\0" * 7 + b"\x09",
        wire.number_of,
        9,
    ),
    (wire.pack(Kind.RECEIVE, 2), b"\0\0\0\x09\x4a" + b"\0" * 7 + b"\x02", wire.nothing, None),
    (
        wire.pack_piece(Kind.TEXT, 2, b"hi", last=True),
        b"\0\0\0\x0c\x4b" + b"\0" * 7 + b"\x02\x01hi",
        wire.piece,
        (b"hi", True),
    ),
    (wire.pack_close(2, 1000, "bye"), b"\0\0\0\x0e\x4c" + b"\0" * 7 + b"\x02\x03\xe8bye", wire.close, (1000, "bye")),
    (wire.pack(Kind.FAULT, 2, b"\x01"), b"\0\0\0\x0a\x4d" + b"\0" * 7 + b"\x02\x01", wire.failed, True),
    (wire.pack(Kind.DRAIN, 0), b"\0\0\0\x09\x4e" + b"\0" * 8, wire.nothing, None),
]


@pytest.mark.parametrize(("packed", "literal", "parse", "value"), FORMS, ids=lambda each: "")
def test_the_form_of_each_message(
    packed: bytes, literal: bytes, parse: Callable[[bytes], object] | None, value: object
) -> None:
    """Literal bytes, both ways."""
    assert packed == literal
    [message] = Splitter(EVERY_KIND).feed(packed)
    if parse is not None:
        assert parse(message.body) == value


def test_every_kind_has_its_form_here() -> None:
    assert {packed[4] for packed, *_ in FORMS} == set(Kind)


@given(
    st.lists(st.sampled_from([packed for packed, *_ in FORMS]), max_size=6), st.lists(st.integers(0, 400), max_size=6)
)
def test_messages_are_the_same_however_the_bytes_are_cut(packed: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(packed)
    places = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    splitter = Splitter(EVERY_KIND)
    found = [message for start, end in itertools.pairwise(places) for message in splitter.feed(stream[start:end])]
    assert found == Splitter(EVERY_KIND).feed(stream)
    assert len(found) == len(packed)
    assert splitter.pending_bytes == 0


@pytest.mark.parametrize(("packed", "parse"), [(packed, parse) for packed, _, parse, _ in FORMS if parse is not None])
def test_a_body_that_is_cut_short_or_too_long_is_an_error_or_another_value(
    packed: bytes, parse: Callable[[bytes], object]
) -> None:
    """Never another exception; where the form has a fixed length, never a value."""
    body = packed[wire.PREFIX_BYTES :]
    fixed = parse in (wire.nothing, wire.count, wire.number_of, wire.verdict, wire.body_fault, wire.failed)
    for other in [*(body[:size] for size in range(len(body))), body + b"\0"]:
        try:
            parse(other)
        except ExchangeError:
            continue
        assert not fixed


def test_only_what_may_come_from_there_is_taken() -> None:
    for kinds in (wire.FROM_WORKER, wire.FROM_GATEWAY):
        for kind in Kind:
            splitter = Splitter(kinds)
            if kind in kinds:
                assert splitter.feed(wire.pack(kind, 1, b"")) == [Message(kind, 1, b"")]
            else:
                with pytest.raises(ExchangeError, match=f"a message of kind {int(kind)} may not come from here"):
                    splitter.feed(wire.pack(kind, 1, b""))
    with pytest.raises(ExchangeError, match="kind 0 "):
        Splitter(EVERY_KIND).feed(b"\0\0\0\x09\0" + b"\0" * 8)


@pytest.mark.parametrize("length", [0, 8, wire.MESSAGE_BYTES_MAX + 1, 2**32 - 1])
def test_a_length_that_no_message_has_is_refused_before_anything_is_kept(length: int) -> None:
    with pytest.raises(ExchangeError, match=f"claims {length} bytes"):
        Splitter(EVERY_KIND).feed(length.to_bytes(4) + b"\x0a" + b"\0" * 8)


LARGE = b"x" * (wire.PIECE_BYTES_MAX + 1)


@pytest.mark.parametrize(
    ("parse", "body"),
    [
        (wire.address, b"127.0.0.1\n"),
        (wire.address, b"1" * 65),
        (wire.address, b"\xff"),
        (wire.certificate, b""),
        (wire.certificate, b"x" * (wire.CERTIFICATE_BYTES_MAX + 1)),
        (wire.head, b""),
        (wire.head, b"POST"),
        (wire.head, b"PO ST\n/"),
        (wire.head, b"POST\n/\nhost"),
        (wire.head, b"POST\n/\nHost\nx"),
        (wire.head, b"POST\n/\nhost\nx\nhost\ny"),
        (wire.head, b"POST\n/" + b"".join(b"\na%d\nx" % number for number in range(wire.FIELDS_MAX + 1))),
        (wire.head, b"POST\n/" + b"x" * wire.HEAD_BYTES_MAX),
        (wire.begin, b"\0" * 8 + b"\x04" + b"\0" * 8 + b"\0"),
        (wire.begin, b"\0" * 8 + b"\0" + b"\xff" * 7 + b"\xfe" + b"\0"),
        (wire.begin, b"\0" * 8 + b"\0" + b"\0" * 8 + b"\x05abcd"),
        (wire.begin, b"\0" * 8 + b"\0" + b"\0" * 8 + b"\x01\xff"),
        (wire.begin, b"\0" * 8 + b"\0" + b"\0" * 8 + b"\x01abody"),
        (wire.begin, b"\0" * 8 + b"\x01" + b"\0" * 8 + b"\x01a" + LARGE),
        (wire.piece, b""),
        (wire.piece, b"\x02"),
        (wire.piece, b"\0" + LARGE),
        (wire.body_fault, b"\0"),
        (wire.body_fault, b"\x04"),
        (wire.count, b"\0\0\0\0"),
        (wire.said, b"\x08"),
        (wire.said, b"\x04"),
        (wire.said, b"\x05x"),
        (wire.said, b"\x07"),
        (wire.verdict, b"\x03"),
        (wire.answer, b"\0\x63\x01\0\0\0"),
        (wire.answer, b"\0\xc8\x02\0\0\0"),
        (wire.answer, b"\0\xc8\x01\x01\0\0"),
        (wire.answer, b"\0\xc8\x01\x01\0\0\xff"),
        (wire.answer, b"\0\xc8\x01\0\0\x05a\nb\nc"),
        (wire.answer, b"\0\xc8\x01\0\0\x01a"),
        (wire.answer, b"\0\xc8\x01\0\0\0" + LARGE),
        (wire.opening, b"\0\xc8a"),
        (wire.opening, b"\0\xc8" + b"x" * (wire.FIELDS_BYTES_MAX + 1)),
        (wire.close, b"\x03"),
        (wire.close, b"\x03\xe8" + b"x" * 124),
        (wire.close, b"\x03\xe8\xff"),
        (wire.failed, b"\x02"),
    ],
)
def test_a_body_out_of_its_bounds_is_an_error(parse: Callable[[bytes], object], body: bytes) -> None:
    with pytest.raises(ExchangeError):
        parse(body)


@pytest.mark.parametrize(
    "pack",
    [
        lambda: wire.pack_head(1, "GET", "/\nhost\nother", {}),
        lambda: wire.pack_head(1, "GET", "/", {"a": "b\nc"}),
        lambda: wire.pack_head(1, "GET", "/" + "x" * wire.HEAD_BYTES_MAX, {}),
        lambda: wire.pack_head(1, "GET" * 22, "/", {}),
        lambda: wire.pack_head(1, "G T", "/", {}),
        lambda: wire.pack_head(1, "GET", "/", {f"a{number}": "" for number in range(wire.FIELDS_MAX + 1)}),
        lambda: wire.pack_certificate(1, b"x" * (wire.CERTIFICATE_BYTES_MAX + 1)),
        lambda: wire.pack_answer(1, Answer(200, True, "a", {"b": "c\nd"}, b"")),
        lambda: wire.pack_answer(1, Answer(200, True, "a", {"b": "c" * wire.FIELDS_BYTES_MAX}, b"")),
        lambda: wire.pack_opening(1, 200, {"a\nb": "c"}),
        lambda: wire.pack_close(1, 1000, "x" * 124),
        lambda: wire.pack(Kind.PIECE, 1, b"x" * wire.MESSAGE_BYTES_MAX),
    ],
)  # fmt: skip
def test_what_would_be_read_otherwise_is_not_sent(pack: Callable[[], bytes]) -> None:
    """A line feed in a line would be a line."""
    with pytest.raises(ValueError, match=r"line feed|too large|too long"):
        pack()


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=20)


@given(TEXT, st.dictionaries(TEXT.map(str.lower).filter(lambda name: name == name.lower()), TEXT, max_size=5))
def test_a_head_comes_back_as_it_was(target: str, fields: dict[str, str]) -> None:
    packed = wire.pack_head(9, "GET", target, fields)
    assert wire.head(packed[wire.PREFIX_BYTES :]) == Head("GET", target, fields)


def test_what_is_not_utf_8_in_a_field_comes_back_as_aiohttp_gives_it() -> None:
    value = b"gar\xe7on".decode("utf-8", "surrogateescape")
    packed = wire.pack_head(9, "GET", "/", {"x": value})
    assert wire.head(packed[wire.PREFIX_BYTES :]).fields == {"x": value}


def test_a_length_beyond_every_bound_stays_beyond() -> None:
    packed = wire.pack_begin(1, Begin(1, False, 10**30, ID, None))
    assert wire.begin(packed[wire.PREFIX_BYTES :]).declared == 2**63 - 1


def test_large_content_is_cut_into_pieces_that_fit() -> None:
    assert [len(piece) for piece in wire.pieces(b"x" * 150_000)] == [65536, 65536, 18928]
    assert wire.pieces(b"") == [b""]
