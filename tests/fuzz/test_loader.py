"""Whatever an agent's files hold, the loader's answer is a report that the supervisor can read, in bounded time."""

from __future__ import annotations

import json
import time

from hypothesis import example, given
from hypothesis import strategies as st

from runagentd.loader import configuration, dotenv
from runagentd.supervise.load import parse_report
from runagentd.wire import record
from runagentd.wire.manifest import MANIFEST_BYTES, LoadReport
from tests.loader.folders import SHORT, FakeFolder

_KEYS = st.sampled_from(
    [
        "agent_name", "agent_id", "agent_architecture", "entrypoints", "file", "module", "tag", "type", "extractor",
        "description", "version", "framework", "env_vars", "persistent_folders", "auth_settings", "webhook_url",
        "policy", "python",
    ]
)  # fmt: skip
_TEXTS = st.sampled_from(["main.py", "run", "main", "app.invoke", "../x", "", "\ud800", "\0", "$.x"]) | st.text(
    st.characters(), max_size=20
)
_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | _TEXTS
_TREES = st.recursive(
    _LEAVES,
    lambda below: st.lists(below, max_size=4) | st.dictionaries(_KEYS | _TEXTS, below, max_size=6),
    max_leaves=30,
)


def report_on(files: dict[str, bytes]) -> LoadReport:
    """The loader's report, after it went over the wire, with what the supervisor asks of it."""
    began = time.process_time()
    report = configuration.load(FakeFolder({"main.py": b"", **files}), python=(3, 11))
    assert time.process_time() - began < 5
    sent = record.encode(report)
    assert len(sent) <= MANIFEST_BYTES
    received = parse_report(sent)
    assert received == report
    assert (received.manifest is None) == bool(received.problems)
    for problem in received.problems:
        assert problem.what.isprintable()
        assert problem.where.isprintable()
    return received


@given(st.binary(max_size=2000))
@example(b"{" * 5000)
@example(b'"' + b"\\" * 5001)
def test_any_bytes_as_json(content: bytes) -> None:
    report_on({"runagent.config.json": content})


@given(st.binary(max_size=2000))
@example(b"- " * 2000)
@example(b"? " * 2000)
@example(b"{" * 5000)
@example(b"!!timestamp 2025-99-99")
@example(b"a: 2025-99-99")
@example(b"a: !!int x")
@example(b"<<: [1]")
@example(b"a: 1:60:60")
@example(b"%YAML 9.9\n---\n")
@example(b"&a [*a]")
def test_any_bytes_as_yaml(content: bytes) -> None:
    report_on({"runagent.config.yaml": content})


@given(st.text(st.sampled_from("abc:-?[]{}#&*!|>'\"%@`,\n \t0."), max_size=300))
def test_any_text_that_looks_like_yaml(content: str) -> None:
    report_on({"runagent.config.yaml": content.encode()})


@given(_TREES)
def test_any_values_under_the_known_keys(tree: object) -> None:
    report_on({"runagent.config.json": json.dumps(tree).encode()})


@given(st.dictionaries(_KEYS, _TREES, max_size=8))
def test_a_right_configuration_with_anything_added(more: dict[str, object]) -> None:
    report_on({"runagent.config.json": json.dumps({**SHORT, **more}).encode()})


@given(st.binary(max_size=500) | st.text(st.sampled_from("AB=\"'\\\n #$\0export "), max_size=200).map(str.encode))
def test_any_bytes_as_dotenv(content: bytes) -> None:
    report_on({"runagent.config.json": json.dumps(SHORT).encode(), ".env": content})
    dotenv.parse(content)


@given(st.binary(max_size=300))
def test_any_bytes_as_pyvenv_cfg(content: bytes) -> None:
    files = {".venv/pyvenv.cfg": content, ".venv/lib/python3.11/site-packages/x": b""}
    assert report_on({"runagent.config.json": json.dumps(SHORT).encode(), **files}).problems == ()


@given(st.binary(max_size=100) | st.text(st.sampled_from("3.1 \n#t\0"), max_size=20).map(str.encode))
def test_any_bytes_as_python_version(content: bytes) -> None:
    made = report_on({"runagent.config.json": json.dumps(SHORT).encode(), ".python-version": content}).manifest
    assert made is None or made.python == "" or made.python.startswith("3.")


@given(st.binary(max_size=3000))
def test_any_bytes_from_a_loader_that_was_taken_over(content: bytes) -> None:
    report = parse_report(content)
    assert (report.manifest is None) == bool(report.problems)
