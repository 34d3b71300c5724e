"""docs/api.md says what the error table says."""

from __future__ import annotations

from pathlib import Path

from runagentd import errors


def test_the_document_has_a_row_for_each_kind_of_error() -> None:
    """With its code, its statuses, whose fault it is, and its meaning."""
    text = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, errors.ErrorKind)]
    assert len(kinds) > 20
    rows = [
        f"| `{kind.code}` | {kind.native_status} | {kind.runagent_status} | {kind.concept} | {kind.fault.value} |"
        f" {'yes' if kind.retryable else 'no'} | {kind.title} |"
        for kind in kinds
    ]
    assert [row for row in rows if row not in text] == []
