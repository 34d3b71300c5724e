"""`runagentctl schema`: the JSON Schema of a file that people write, for their editors.

Runs as: anyone.
Reads from strangers: nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from runagentd.config import agent_file
from runagentd.config import schema as config_schema
from runagentd.loader import schema as agent_schema
from runagentd.plan.syscalls import shipped_table
from runagentd.policy import schema as policy_schema

_SCHEMAS: dict[str, Callable[[], str]] = {
    "policy": lambda: policy_schema.schema(shipped_table().selectable()),
    "config": config_schema.schema,
    "agent": agent_schema.schema,
    "agent-file": agent_file.json_schema,
}


def print_schema(of: str) -> int:
    """The schema of one of `_SCHEMAS` on stdout; the exit status."""
    sys.stdout.write(_SCHEMAS[of]())
    return 0
