"""The kernel's account of time lost to a lack of something (Documentation/accounting/psi.rst, Linux 4.20). Pure.

Runs as: the supervisor.
Reads from strangers: nothing; the kernel wrote the text.

    some avg10=0.00 avg60=0.00 avg300=0.00 total=0
    full avg10=0.00 avg60=0.00 avg300=0.00 total=0
"""

from __future__ import annotations


def some(text: str) -> dict[str, str]:
    """The fields of the time in which at least one process had to wait; empty for a text of another form."""
    for line in text.splitlines():
        kind, *fields = line.split()
        if kind == "some":
            return dict(field.split("=", 1) for field in fields if "=" in field)
    return {}
