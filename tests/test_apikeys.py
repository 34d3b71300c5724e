"""How an API key is written."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from runagentd import apikeys

KEY = "ra_live_01JDABCDEFGHJKMNPQRSTVWXYZ" + "a" * 43


def test_a_new_key_has_the_form_that_scanners_know() -> None:
    """And its id in it."""
    identity = apikeys.new_id()
    key = apikeys.create(identity)
    assert re.fullmatch(r"ra_live_[0-9A-HJKMNP-TV-Z]{26}[0-9A-Za-z]{49}", key)
    assert apikeys.parse(key) == identity
    assert apikeys.ID.fullmatch(identity)
    assert len({apikeys.create(identity) for _ in range(100)}) == 100


def test_the_checksum_is_that_of_the_documentation() -> None:
    """CRC-32 of all before it, in base 62: a literal, so that a change of form is seen."""
    assert apikeys.parse(KEY + "0kW1OG") == "01JDABCDEFGHJKMNPQRSTVWXYZ"


@given(st.integers(0, 82), st.characters(codec="ascii"))
def test_a_changed_character_is_seen(position: int, character: str) -> None:
    """A typo never reaches the table of keys."""
    key = KEY + "0kW1OG"
    changed = key[:position] + character + key[position + 1 :]
    assert apikeys.parse(changed) == (None if changed != key else "01JDABCDEFGHJKMNPQRSTVWXYZ")


@given(st.text(max_size=100))
def test_any_other_text_is_no_key(text: str) -> None:
    """Of any kind."""
    assert apikeys.parse(text) is None
    assert apikeys.parse("ra_live_" + text) is None


def test_what_is_kept_is_the_digest_of_the_whole_key() -> None:
    """SHA-256."""
    assert apikeys.digest("abc").hex() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
