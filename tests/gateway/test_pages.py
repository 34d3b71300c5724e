"""The documentation page, as far as it can be judged without a browser."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from tests.fakes_gateway import Gateway

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Tags(HTMLParser):
    """All tags with their attributes, and the text of scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inline: list[str] = []
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_data(self, data: str) -> None:
        if self._inside in ("script", "style") and data.strip():
            self.inline.append(data)


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/docs", "text/html; charset=utf-8"),
        ("/docs.css", "text/css; charset=utf-8"),
        ("/docs.js", "text/javascript; charset=utf-8"),
    ],
)
def test_each_file_is_there_for_everybody_under_a_strict_policy(gateway: Gateway, path: str, content_type: str) -> None:
    """Nothing in it is secret; a browser keeps it and asks whether it has changed."""
    got = gateway.ask("GET", path, token=None)
    assert (got.status, got.headers["content-type"]) == (200, content_type)
    assert got.headers["content-security-policy"] == POLICY
    assert got.headers["x-content-type-options"] == "nosniff"
    again = gateway.ask("GET", path, token=None, If_None_Match=got.headers["etag"])
    assert (again.status, again.body) == (304, b"")
    assert gateway.ask("POST", path, b"{}", token=None).status == 405


def test_the_page_runs_nothing_inline_and_loads_nothing_from_elsewhere(gateway: Gateway) -> None:
    """The policy would stop it; it is not even asked."""
    page = Tags()
    page.feed(gateway.ask("GET", "/docs", token=None).body.decode())
    assert page.inline == []
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], tag
        for name in ("src", "href"):
            assert re.fullmatch(r"|docs\.(css|js)|data:,", attributes.get(name) or ""), (tag, attributes)
    labelled = {attributes.get("for") for tag, attributes in page.tags if tag == "label"}
    assert {attributes.get("id") for tag, attributes in page.tags if tag == "input"} <= labelled


def test_the_script_makes_no_markup_of_text(gateway: Gateway) -> None:
    """A docstring with a tag in it is text: no way from a string to HTML or to code is used."""
    script = gateway.ask("GET", "/docs.js", token=None).body.decode()
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "srcdoc"):
        assert word not in script
    assert "textContent" in script
    assert not re.search(r"https?://", script)
    for word in ("localStorage", "sessionStorage", "document.cookie"):
        assert word not in script
