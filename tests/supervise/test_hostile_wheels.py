"""Wheels that were made to do harm, installed by a real builder with the real installer: what comes of each, literally.

Either it is refused in words that say what is wrong with it, or it is installed as a package like any other. Nothing is
ever written outside the builder's own folder, and the next build goes on as if nothing had been.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runagentd.errors import ConfigurationError
from runagentd.supervise.build import BuildFailed
from runagentd.supervise.environments import ENTRIES_MAX
from runagentd.supervise.snapshot import Snapshot
from runagentd.wire.settings import PackageSettings
from tests.packages import made, raw
from tests.packages.raw import DEFLATED, Entry
from tests.packages.workshop import MIB, Workshop, opened

pytestmark = [pytest.mark.root, pytest.mark.kernel, pytest.mark.slow]

INFO = "one-1.0.dist-info"
ONE = Entry(name=b"one.py", content=b"X = 1\n")
MADE = [f"{INFO}/METADATA", f"{INFO}/RECORD", f"{INFO}/WHEEL"]
EXTRACT = "Failed to extract archive: /wheels/one-1.0-py3-none-any.whl\n  cause: "
COLLISION = "I/O operation failed during extraction\n  cause: failed to create"
"""What it fails at depends on which of two entries comes first: it unpacks with several threads."""
STRUCTURE = "hint: The structure of `one` (v1.0) was invalid:\n  "
OUTSIDE = [Path(place) / "outside.py" for place in ("/", "/tmp", "/usr", "/etc", "/stage")]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    """One for all of them: each build but the first comes after a hostile one, and the last is no harm."""
    tmp_path = tmp_path_factory.mktemp("hostile")
    with opened(tmp_path) as shop:
        yield shop
        made.wheel(shop.wheels, "good", "1.0", {"good.py": ""})
        assert "good.py" in files(shop.install("good"))


@pytest.fixture
def workshop(shared: Workshop) -> Iterator[Workshop]:
    """Beside what a test looks at there is nothing new afterwards."""
    yield shared
    place = shared.place.parent
    assert sorted(path.name for path in place.iterdir()) == ["jail", "place", "uids", "wheels"]
    assert list((place / "jail").iterdir()) == []
    assert [path for path in OUTSIDE if path.exists()] == []
    for path in shared.wheels.iterdir():
        path.unlink()
    for path in shared.place.iterdir():
        shutil.rmtree(path)


def files(taken: Snapshot) -> list[str]:
    """All that is installed, but for bytecode."""
    found = (path for path in taken.path.rglob("*") if not path.is_dir() or path.is_symlink())
    return sorted(str(path.relative_to(taken.path)) for path in found if "__pycache__" not in path.parts)


def entry(name: str | bytes, content: bytes = b"", mode: int = 0o100644) -> Entry:
    return Entry(name=name.encode() if isinstance(name, str) else name, content=content, mode=mode)


def script(name: str, does: str = "one:main") -> Entry:
    return entry(f"{INFO}/entry_points.txt", f"[console_scripts]\n{name} = {does}\n".encode())


def refused(shop: Workshop, requirements: str = "one\n") -> str:
    with pytest.raises((BuildFailed, ConfigurationError)) as caught:
        shop.install(requirements)
    assert list(shop.place.iterdir()) == []
    return str(caught.value)


# ---- what is installed, and is harmless


@pytest.mark.parametrize(
    ("entries", "installed"),
    [
        # Names that lead out are left out.
        ([entry("../outside.py")], []),
        ([entry("/outside.py")], []),
        ([entry("one/../../outside.py")], []),
        # A backslash leads nowhere on this system.
        ([entry("..\\outside.py")], ["..\\outside.py"]),
        # What a zip calls a link or a device is a file.
        ([entry("link", b"/etc/passwd", 0o120777)], ["link"]),
        ([entry("pipe", b"", 0o010666)], ["pipe"]),
        ([entry("device", b"", 0o020666)], ["device"]),
        ([entry("program", b"#!/bin/sh\n", 0o106755)], ["program"]),
        ([entry("A.py"), entry("a.py")], ["A.py", "a.py"]),
        # Nothing runs them: tests/system/test_environments.py.
        ([entry("one.pth", b"import os\n"), entry("sitecustomize.py", b"1/0\n")], ["one.pth", "sitecustomize.py"]),
        # PEP 427's folders for scripts and data stay below the environment.
        ([entry("one-1.0.data/scripts/tool", b"#!python\n")], ["bin/tool"]),
        ([entry("one-1.0.data/scripts/../../outside.py")], ["outside.py"]),
        ([entry("one-1.0.data/data/../../outside.py")], ["outside.py"]),
        ([entry("one-1.0.data/data/etc/passwd", b"x")], ["etc/passwd"]),
        ([entry("one-1.0.data/headers/../../../outside.py")], []),
        # The installer's own lock is no package's.
        ([entry(".lock", b"x")], []),
    ],
)
def test_what_cannot_lead_out_is_installed(workshop: Workshop, entries: list[Entry], installed: list[str]) -> None:
    raw.wheel(workshop.wheels, [ONE, *entries])
    taken = workshop.install("one")
    assert files(taken) == sorted([*MADE, "one.py", *installed])
    kept = [path for path in taken.path.rglob("*") if not path.is_dir()]
    assert {path.is_file() and not path.is_symlink() for path in kept} == {True}
    assert {path.stat().st_mode & 0o7000 for path in kept} == {0}
    if "link" in installed:
        assert (taken.path / "link").read_bytes() == b"/etc/passwd"


@pytest.mark.parametrize("record", [b"other.py,sha256=abc,3\n../../x,,\n", b""])
def test_a_record_that_lies_is_believed_in_nothing(workshop: Workshop, record: bytes) -> None:
    raw.wheel(workshop.wheels, [ONE], record=record)
    assert files(workshop.install("one")) == [*MADE, "one.py"]


def test_of_two_entries_with_one_name_one_is_there(workshop: Workshop) -> None:
    raw.wheel(workshop.wheels, [entry("one.py", b"1"), entry("one.py", b"22")])
    taken = workshop.install("one")
    assert files(taken) == [*MADE, "one.py"]
    # uv may write both at the same time, so the bytes are the wheel's own, of either or over each other.
    assert (taken.path / "one.py").read_bytes() in (b"1", b"22", b"12")


def test_packages_that_require_each_other_are_both_there(workshop: Workshop) -> None:
    made.wheel(workshop.wheels, "one", "1.0", {"one.py": ""}, requires=["two"])
    made.wheel(workshop.wheels, "two", "1.0", {"two.py": ""}, requires=["one"])
    assert {"one.py", "two.py"} <= set(files(workshop.install("one")))


def test_requirements_that_include_themselves_are_read_once(workshop: Workshop) -> None:
    raw.wheel(workshop.wheels, [ONE])
    assert files(workshop.install("-r requirements.txt\none\n")) == [*MADE, "one.py"]


# ---- what is refused in words


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([entry("one/new\nline.py")], f"{EXTRACT}Archive contains unacceptable filename: one/new\ufffdline.py"),
        ([entry("one/\x1b[2J.py")], f"{EXTRACT}Archive contains unacceptable filename: one/\ufffd[2J.py"),
        ([entry(b"one/\xff\xfe.py")], "filename at index 4 does not use UTF-8 encoding"),
        ([entry("one/a\0b.py")], f"{STRUCTURE}Failed to read from zip file"),
        (
            [entry("d", b"/etc", 0o120777), entry("d/x.py")],
            "I/O operation failed during extraction\n  cause: failed to create",
        ),
        ([entry("a"), entry("a/b.py")], COLLISION),
        (
            [Entry(name=b"two.py", again=True)],
            "the local file header name did not match the central directory name",
        ),
        (
            [Entry(name=b"../two.py", said=b"three.py")],
            "the local file header name did not match the central directory name",
        ),
        (
            [Entry(name=b"two.py", content=b"x" * 1000, method=DEFLATED, size=10)],
            f"{EXTRACT}Bad uncompressed size (got 000003e8, expected 0000000a) for file: two.py",
        ),
        (
            [Entry(name=b"two.py", content=b"x" * 10, method=DEFLATED, size=10**9)],
            f"{EXTRACT}Bad uncompressed size (got 0000000a, expected 3b9aca00) for file: two.py",
        ),
        ([Entry(name=b"two.py", content=b"x", method=99)], "a file with an unsupported compression method"),
        ([Entry(name=b"two.py", content=b"x", method=14)], "a file with an unsupported compression method"),
        ([entry("a/" * 200 + "x.py")], "lies more than 64 directories deep"),
        ([entry("a/" * 32_000 + "x")], "I/O operation failed during extraction\n  cause: failed to create directory"),
        ([entry("n" * 300)], "File name too long (os error 36)"),
        ([entry("one-1.0.data/odd/x")], "The wheel is invalid: Unknown wheel data type: odd"),
        ([script("a/b")], 'No such file or directory (os error 2) at path "/stage/site/bin/a/'),
        ([script("../../up")], "Script path must resolve to a file within the scripts directory: ../../up"),
        ([script("/stage/x")], "Script path must resolve to a file within the scripts directory: /stage/x"),
        ([script("x", "one:a;import os")], "The wheel is invalid: invalid console script: 'one:a;import os'"),
        ([entry("two-1.0.dist-info/METADATA")], "Multiple .dist-info directories found: one-1.0, two-1.0"),
    ],
)
def test_what_is_wrong_with_a_wheel_is_said(workshop: Workshop, entries: list[Entry], words: str) -> None:
    raw.wheel(workshop.wheels, [ONE, *entries])
    assert words in refused(workshop)


def _nothing(folder: Path) -> None:
    (folder / "one-1.0-py3-none-any.whl").write_bytes(b"")


def _link(folder: Path) -> None:
    (folder / "one-1.0-py3-none-any.whl").symlink_to("/etc/hosts")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: raw.wheel(folder, [ONE], record=None), f"/{INFO}/RECORD`: No such file or directory"),
        (lambda folder: raw.wheel(folder, [ONE], record=b'"\xff,,,\n'), "`RECORD` file is invalid"),
        (
            lambda folder: raw.wheel(folder, [ONE], info="two-1.0.dist-info"),
            "The .dist-info directory `two-1.0` does not start with the normalized package name: one",
        ),
        (
            lambda folder: raw.wheel(folder, [ONE], metadata=b"Metadata-Version: 2.1\nName: two\nVersion: 1.0\n"),
            "Package metadata name `two` does not match given name `one`",
        ),
        (
            lambda folder: raw.archive(folder / "one-1.0-py3-none-any.whl", [ONE]),
            f"{STRUCTURE}No .dist-info directory found",
        ),
        # 10 GiB out of 80 KB.
        (lambda folder: raw.overlapping(folder, entries=160, size=64 * MIB), "overlapped ZIP structure at 0x"),
        (_nothing, f"{STRUCTURE}Failed to read from zip file"),
        (_link, f"{STRUCTURE}Failed to read from zip file"),
    ],
    ids=[
        "no record",
        "record",
        "other info",
        "other name",
        "no metadata",
        "overlapping",
        "empty",
        "a link out of the folder",
    ],
)
def test_what_is_no_wheel_is_said(workshop: Workshop, make: Callable[[Path], object], words: str) -> None:
    make(workshop.wheels)
    assert words in refused(workshop)


@pytest.mark.parametrize(
    "wheel",
    [
        {"entries": [ONE, *(Entry(name=b"b%d" % n, content=bytes(32 * MIB), method=DEFLATED) for n in range(4))]},
        {"entries": [ONE], "metadata": b"Name: one\nVersion: 1.0\nMetadata-Version: 2.1\n\n" + b"x" * 100 * MIB},
    ],
    ids=["zeros", "metadata"],
)
def test_a_bomb_fills_its_own_folder_and_nothing_else(workshop: Workshop, wheel: dict[str, object]) -> None:
    """What unpacks to more than an environment may have, a thousand times more as well as twice."""
    raw.wheel(workshop.wheels, **wheel)  # type: ignore[arg-type]  # as they are named there
    with pytest.raises(BuildFailed) as caught:
        workshop.install("one")
    assert caught.value.full
    assert "No space left on device (os error 28)" in caught.value.words


def test_ten_gibibytes_out_of_ten_megabytes_end_where_the_shipped_limits_are(workshop: Workshop) -> None:
    """Literally so many, and no byte of the archive is a lie; refused in words, in seconds, within its own memory."""
    zeros = bytes(64 * MIB)
    bomb = (Entry(name=b"one/%03d" % number, content=zeros, method=DEFLATED) for number in range(160))
    path = raw.wheel(workshop.wheels, bomb)
    assert path.stat().st_size < 11_000_000
    assert sum(entry.file_size for entry in zipfile.ZipFile(path).infolist()) > 10 * 1024 * MIB
    shipped = PackageSettings()
    used: list[int] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.02):
            for group in workshop.host.groups():
                with contextlib.suppress(OSError):  # it is being removed
                    used.append(group.memory_current())

    looking = threading.Thread(target=look)
    looking.start()
    began = time.monotonic()
    try:
        with pytest.raises(BuildFailed) as caught:
            workshop.install("one", size=shipped.size, files=2 * ENTRIES_MAX, seconds=shipped.seconds)
    finally:
        over.set()
        looking.join()
    assert time.monotonic() - began < 20
    assert caught.value.full
    assert "No space left on device (os error 28)" in caught.value.words
    assert shipped.size / 2 < max(used) <= shipped.size + 1024 * MIB


def test_a_million_entries_end_where_the_file_system_does(workshop: Workshop) -> None:
    """Literally a million, in the time that it takes to make as many files as there may be; a daemon allows 400,000."""
    raw.many(workshop.wheels, 1_000_000)
    began = time.monotonic()
    with pytest.raises(BuildFailed) as caught:
        workshop.install("one", files=100_000, size=256 * MIB)
    assert time.monotonic() - began < 60
    assert caught.value.full
    assert "No space left on device (os error 28)" in caught.value.words


def test_a_source_distribution_runs_nothing_where_only_wheels_are_installed(workshop: Workshop) -> None:
    made.source(workshop.wheels, "one", "1.0", "open('/stage/site/ran', 'w')\n")
    assert "one==1.0 has no usable wheels" in refused(workshop)
