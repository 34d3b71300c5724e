"""An effective policy as a text that gives the same one again, whatever has become of the files that it came from.

Runs as: the supervisor. Pure.
Reads from strangers: nothing; the text lies in the state directory.
A version of an agent keeps what its operator accepted when it was deployed: it is a policy in the form of a file, with
every key written out, so that `policy.load` reads and checks it like any other.
"""

from __future__ import annotations

from runagentd.errors import ConfigurationError, Problem
from runagentd.policy.digest import policy_digest
from runagentd.policy.document import VERSION
from runagentd.policy.keys import KEYS, TABLES, value_of
from runagentd.policy.load import load
from runagentd.policy.model import Policy


def to_text(policy: Policy) -> str:
    """Every key of a policy; ConfigurationError for one that could not be read back as it is."""
    lines = [f"version = {VERSION}"]
    for table in TABLES:
        lines.append(f"[{table}]")
        lines += [f"{key.field} = {key.kind.text(value_of(policy, key))}" for key in KEYS if key.table == table]
    text = "\n".join(lines) + "\n"
    if policy_digest(from_text(policy.name, text)) != policy_digest(policy):
        raise ConfigurationError(Problem(policy.name, "this policy cannot be kept: written out, it reads otherwise"))
    return text


def from_text(name: str, text: str) -> Policy:
    """The policy that `to_text` wrote down, under its name; ConfigurationError for another text.

    A key that is newer than the text has its default, which is the strictest there is.
    """
    return load(name, lambda place: text.encode("utf-8", "surrogateescape"))
