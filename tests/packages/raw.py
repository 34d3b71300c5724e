"""Zip files written byte by byte, for wheels that `zipfile` would not write: lies, overlaps, a million entries."""

from __future__ import annotations

import functools
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

STORED, DEFLATED = 0, 8
UTF8 = 0x800


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file of an archive. What is None is told as it is (APPNOTE.TXT 4.3, 4.4)."""

    name: bytes
    content: bytes = b""
    said: bytes | None = None
    """the name in the central directory, where it is another one than the file's own header has"""
    mode: int = 0o100644
    method: int = STORED
    size: int | None = None
    """what the archive says that it is when it is unpacked"""
    again: bool = False
    """its place in the central directory is that of the first entry: they overlap"""


@functools.lru_cache(maxsize=4)
def _packed(content: bytes) -> tuple[bytes, int]:
    """Deflated, and the checksum: once for the many entries of a bomb."""
    return zlib.compress(content, 9, wbits=-15), zlib.crc32(content)


def archive(path: Path, entries: Iterable[Entry]) -> Path:
    """Write them as they are."""
    at, first = 0, None
    central = bytearray()
    count = 0
    with path.open("wb") as file:
        for entry in entries:
            deflated, crc = _packed(entry.content)
            packed = deflated if entry.method == DEFLATED else entry.content
            size = len(entry.content) if entry.size is None else entry.size
            facts = (20, UTF8, entry.method, 0, 0x21, crc, len(packed), size)
            said = entry.name if entry.said is None else entry.said
            place = at
            if entry.again and first is not None:
                place = first
            else:
                header = struct.pack("<IHHHHHIIIHH", 0x04034B50, *facts, len(entry.name), 0) + entry.name
                file.write(header + packed)
                at += len(header) + len(packed)
                first = place if first is None else first
            central += struct.pack(
                "<IHHHHHHIIIHHHHHII", 0x02014B50, 0x0314, *facts, len(said), 0, 0, 0, 0, entry.mode << 16, place
            )
            central += said
            count += 1
        file.write(central)
        size = len(central)
        if count > 0xFFFE:
            file.write(struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 45, 45, 0, 0, count, count, size, at))
            file.write(struct.pack("<IIQI", 0x07064B50, 0, at + size, 1))
        small = min(count, 0xFFFF)
        file.write(struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, small, small, size, at, 0))
    path.chmod(0o644)
    return path


def wheel(
    folder: Path,
    entries: Iterable[Entry],
    *,
    name: str = "one",
    metadata: bytes | None = None,
    record: bytes | None = b"",
    info: str = "one-1.0.dist-info",
    extra: Iterable[Entry] = (),
) -> Path:
    """A wheel of version 1.0; without a RECORD where `record` is None."""
    told = b"Metadata-Version: 2.1\nName: one\nVersion: 1.0\n" if metadata is None else metadata
    kind = b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files = [(f"{info}/METADATA", told), (f"{info}/WHEEL", kind)]
    if record is not None:
        files.append((f"{info}/RECORD", record))

    def all_of_it() -> Iterable[Entry]:
        for at, content in files:
            yield Entry(name=at.encode(), content=content, method=DEFLATED)
        yield from entries
        yield from extra

    return archive(folder / f"{name}-1.0-py3-none-any.whl", all_of_it())


def many(folder: Path, count: int) -> Path:
    """A wheel with so many empty files beside what makes it one, written in a second for a million."""
    infos = [
        ("one-1.0.dist-info/METADATA", b"Metadata-Version: 2.1\nName: one\nVersion: 1.0\n"),
        ("one-1.0.dist-info/WHEEL", b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"),
        ("one-1.0.dist-info/RECORD", b""),
    ]
    path = archive(
        folder / "one-1.0-py3-none-any.whl", (Entry(name=name.encode(), content=text) for name, text in infos)
    )
    whole = path.read_bytes()
    [(central_size, central_at)] = struct.iter_unpack("<II", whole[-10:-2])
    facts = (20, UTF8, STORED, 0, 0x21, 0, 0, 0)
    header = struct.pack("<IHHHHHIIIHH", 0x04034B50, *facts, len(b"one/0000000"), 0) + b"one/%07d"
    entry = struct.pack("<IHHHHHHIIIHHHHHI", 0x02014B50, 0x0314, *facts, 11, 0, 0, 0, 0, 0o100644 << 16)
    step = len(header % 0)
    at = central_at + count * step
    numbers = range(count)
    with path.open("wb") as file:
        file.write(whole[:central_at])
        file.write(b"".join([header % number for number in numbers]))
        file.write(whole[central_at : central_at + central_size])
        file.write(
            b"".join([b"%b%bone/%07d" % (entry, (central_at + n * step).to_bytes(4, "little"), n) for n in numbers])
        )
        size, total = file.tell() - at, count + len(infos)
        file.write(struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 45, 45, 0, 0, total, total, size, at))
        file.write(struct.pack("<IIQI", 0x07064B50, 0, at + size, 1))
        file.write(struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, 0xFFFF, 0xFFFF, size, at, 0))
    path.chmod(0o644)
    return path


def overlapping(folder: Path, *, entries: int, size: int) -> Path:
    """A wheel whose entries share one run of zeros, `size` bytes each and a little: 10 GiB out of 80 KB.

    Each entry begins with a stored block that holds the header of the next one, and goes on with what that one is made
    of, down to the last (D. Fifield, "A better zip bomb", USENIX WOOT 2019). All is right but the checksums.
    """
    packed, crc = _packed(bytes(size))
    unpacked = size
    rows: list[tuple[bytes, bytes]] = []
    """name and header, the last entry first"""
    body = packed
    for number in reversed(range(entries)):
        name = b"one/%04d" % number
        facts = (20, UTF8, DEFLATED, 0, 0x21, crc, len(body), unpacked)
        header = struct.pack("<IHHHHHIIIHH", 0x04034B50, *facts, len(name), 0) + name
        rows.append((name, struct.pack("<HHHHHHIII", 0x0314, *facts)))
        quoted = struct.pack("<BHH", 0, len(header), len(header) ^ 0xFFFF) + header
        body, unpacked = quoted + body, unpacked + len(header)
    whole = wheel(folder, []).read_bytes()
    [(central_size, at)] = struct.iter_unpack("<II", whole[-10:-2])
    central = bytearray(whole[at : at + central_size])
    data = body[5:]  # what would quote the first header is nobody's
    for place, (name, facts_of) in enumerate(reversed(rows)):
        start = at + place * (5 + 30 + len(name))
        central += struct.pack("<I", 0x02014B50) + facts_of
        central += struct.pack("<HHHHHII", len(name), 0, 0, 0, 0, 0o100644 << 16, start) + name
    count = entries + 3
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, count, count, len(central), at + len(data), 0)
    path = folder / "one-1.0-py3-none-any.whl"
    path.write_bytes(whole[:at] + data + central + end)
    return path
