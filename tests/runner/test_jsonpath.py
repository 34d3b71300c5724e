"""Extractors' paths: the subset of JSONPath, and what is refused when an agent is loaded."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runagentd.runner.jsonpath import JsonPath, JsonPathError

DOCUMENT: dict[str, Any] = {
    "content": "hello",
    "messages": [{"role": "user", "text": "a"}, {"role": "ai", "text": "b", "deep": {"name": "n"}}],
    "odd key": {"a.b": 1, "it's": 2},
    "with-dash": 3,
    "none": None,
}


@pytest.mark.parametrize(
    ("path", "first"),
    [
        ("$", DOCUMENT),
        ("$.content", "hello"),
        ("content", "hello"),
        ("messages[-1].text", "b"),
        ("$.messages[0].role", "user"),
        ("$.messages[*].text", "a"),
        ("$['odd key']['a.b']", 1),
        ("$['odd key']['it\\'s']", 2),
        ('$["odd key"]["a.b"]', 1),
        ("$.with-dash", 3),
        ("$..name", "n"),
        ("$..messages[1].text", "b"),
        ("$.messages[1:].text", "b"),
        ("$.messages[1:][*]", "ai"),
        ("$.messages[1:2]", {"role": "ai", "text": "b", "deep": {"name": "n"}}),
        ("$.*", "hello"),
        ("$.messages[9]", None),
        ("$.missing.path", None),
        ("$.none", None),
        ("$.content[0]", None),
    ],
)
def test_the_first_match_or_null(path: str, first: Any) -> None:
    """A slice gives its members one by one, as RFC 9535 has it."""
    assert JsonPath(path).first(DOCUMENT) == first


@pytest.mark.parametrize(
    "path", ["", "$.", "$[", "$[?(@.a)]", "$.a[1,2]", "$..", "$....a", "$.messages[::0]", "7", "$ a"]
)
def test_what_is_not_understood_is_refused(path: str) -> None:
    """At load, not at the first call."""
    with pytest.raises(JsonPathError):
        JsonPath(path)


@given(st.text(alphabet="$.[]*:'\"ab019-? \\"))
def test_any_text_is_a_path_or_refused(text: str) -> None:
    """And never another exception, at load or at use."""
    try:
        path = JsonPath(text)
    except JsonPathError:
        return
    path.first(DOCUMENT)
