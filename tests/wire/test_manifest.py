"""What a manifest may be, whoever wrote it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from runagentd.wire import manifest, record
from runagentd.wire.manifest import Entrypoint, Manifest
from runagentd.wire.record import RecordError
from tests.wire.messages import LOAD_REPORT, MANIFEST


def entrypoint(number: int) -> Entrypoint:
    return Entrypoint(tag=f"t{number}", file="run.py", module="run")


def test_a_load_report_survives_the_way() -> None:
    """A manifest, or the problems that prevent one, or both."""
    encoded = record.encode(LOAD_REPORT)
    assert record.decode(manifest.LoadReport, encoded, bytes_max=manifest.MANIFEST_BYTES) == LOAD_REPORT
    nothing = manifest.LoadReport(manifest=None, problems=())
    assert record.encode(nothing) == b"\x00\x00\x00\x00\x00"


@pytest.mark.parametrize("path", ["a", "a/b.py", ".venv/lib", "with space/ü", "...", "a..b/c"])
def test_a_plain_relative_path_is_taken(path: str) -> None:
    """Hidden folders, spaces and any script are fine."""
    manifest.check_relative(path)


@pytest.mark.parametrize(
    "path", ["", "/", "/etc/passwd", "..", "../a", "a/../b", "a/..", ".", "./a", "a//b", "a/", "a\0b", "a/" * 512 + "a"]
)
def test_a_path_that_could_lead_elsewhere_is_refused(path: str) -> None:
    """The loader may have been taken over by the files it read, so the value itself refuses."""
    with pytest.raises(ValueError, match=r" is not a plain relative path$"):
        manifest.check_relative(path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"agent_id": ""}, "an agent's id has 1 to 200 printable characters"),
        ({"agent_id": "a\n"}, "an agent's id has 1 to 200 printable characters"),
        ({"agent_name": "x" * 201}, "an agent's name has 1 to 200 printable characters"),
        ({"agent_name": "\x1b[2J"}, "an agent's name has 1 to 200 printable characters"),
        ({"entrypoints": ()}, "an agent has 1 to 256 entrypoints"),
        ({"entrypoints": tuple(map(entrypoint, range(257)))}, "an agent has 1 to 256 entrypoints"),
        ({"entrypoints": (entrypoint(1), entrypoint(1))}, "the tags of an agent are unique"),
        ({"persistent_folders": ("../data",)}, "'../data' is not a plain relative path"),
        ({"import_paths": ("/usr/lib",)}, "'/usr/lib' is not a plain relative path"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_manifest_that_breaks_a_rule_cannot_be_made(change: dict[str, Any], sentence: str) -> None:
    """Not by us, and not by decoding what a loader wrote."""
    with pytest.raises(ValueError) as caught:
        dataclasses.replace(MANIFEST, **change)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("good", "bad", "sentence"),
    [
        (b"\x00\x00\x00\x07storage", b"\x00\x00\x00\x07../rage", "'../rage' is not a plain relative path"),
        (b"\x00\x00\x00\x06run.py", b"\x00\x00\x00\x06/un.py", "'/un.py' is not a plain relative path"),
        (b"\x00\x00\x00\x04chat", b"\x00\x00\x00\x04ch\x07t", "an agent's name has 1 to 200 printable characters"),
    ],
)
def test_the_reading_side_checks_again(good: bytes, bad: bytes, sentence: str) -> None:
    """A rule broken in the bytes is a RecordError with the rule's sentence."""
    encoded = record.encode(MANIFEST)
    assert good in encoded
    with pytest.raises(RecordError) as caught:
        record.decode(Manifest, encoded.replace(good, bad, 1), bytes_max=manifest.MANIFEST_BYTES)
    assert str(caught.value) == sentence


@pytest.mark.parametrize("tag", ["", "x" * 201])
def test_a_tag_has_a_length(tag: str) -> None:
    """1 to 200 characters; which characters is the author's choice."""
    with pytest.raises(ValueError, match=r"^a tag has 1 to 200 characters$"):
        Entrypoint(tag=tag, file="run.py", module="run")
    assert Entrypoint(tag="über:all/ 1", file="run.py", module="run").tag == "über:all/ 1"
