"""Whether an object in JSON says one thing only.

Runs as: the egress process. Pure.
Reads from strangers: yes, what an issuer's server answers.

Of two members with one name a parser takes the first or the last, and another one the other (RFC 8259, section 4): what
an issuer's own software has checked, and whoever forwards its answer, need not be what we read.
"""

from __future__ import annotations

import json
from typing import Any


class Doubled(dict[str, Any]):
    """An object in which a member is there twice. Any: JSON."""


def outline(data: bytes) -> Any:
    """The JSON with numbers as texts, where each object that is in doubt is a `Doubled`; ValueError for what is none.

    Any: JSON. RecursionError where it is too deep.
    """
    # Numbers are not looked at, and making one of a million digits takes its time.
    return json.loads(data.decode("utf-8"), object_pairs_hook=_object, parse_int=str, parse_float=str)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else Doubled(pairs)
