"""Policies from texts in memory, for tests that are about what texts mean and not about files."""

from __future__ import annotations

from runagentd.policy.load import Place, Reader, Unreadable, load
from runagentd.policy.model import Policy


def reader(texts: dict[str, str]) -> Reader:
    """A `Reader` of texts by label: "web.toml" for a file, "policies/base.toml" for a shipped policy."""

    def read(place: Place) -> bytes:
        if place.label not in texts:
            raise Unreadable("no such file")
        return texts[place.label].encode()

    return read


def loaded(text: str, **others: str) -> Policy:
    """The policy that `text` makes, as "./web.toml"; `others` are files beside it, by their stem."""
    return load("./web.toml", reader({"web.toml": text} | {f"{stem}.toml": other for stem, other in others.items()}))
