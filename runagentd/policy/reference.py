"""The reference of all policy keys as Markdown: `python -m runagentd.policy.reference > docs/policy.md`.

Runs as: whoever edits a key; a test compares the file with what this makes.
Reads from strangers: nothing.
"""

from __future__ import annotations

import sys
from typing import Any

from runagentd.policy.consistency import INTERPRETER_BYTES, RUNNER_TASKS
from runagentd.policy.document import INCLUDES_MAX
from runagentd.policy.keys import KEYS, NOT_BUILT_KEYS, NOT_BUILT_TABLES, TABLES, Key
from runagentd.policy.units import size_text

_OPENING = """\
# Policies

<!-- Made by `python -m runagentd.policy.reference > docs/policy.md` from runagentd/policy/keys.py. Do not edit. -->

A policy is a TOML file that says what one agent's sandbox grants.
The operator chooses it (`runagentd serve --policy [AGENT=]NAME|FILE`), never the agent's folder.
Every key has a default, and the default is the strictest that still starts an agent of the standard library,
but for `process.spawn` and `calls.isolation`, whose strictest values cost time.
`runagentctl policy check FILE` says what a policy comes to, or everything that is wrong with it at once.
`runagentctl policy diff A B` says which keys B has otherwise, and whether B allows anything that A does not: its exit
status is then 1, else 0, and 2 where either cannot be used.
`runagentctl schema policy` prints a JSON Schema for editors ([configuration.md](configuration.md#in-an-editor)).

runagentd ships these policies: `base` (the defaults, key by key), `compute` (more memory and processor time),
`tools` (may start the host's programs), `persistent` (keeps the folders that an agent names).

```toml
version = 1
extends = "compute"
include = ["network.toml"]

[files]
read = ["/srv/words", { path = "/srv/models", optional = true }]

[resources]
memory_max = "2GiB"

[syscalls]
groups = { add = ["memfd"] }
```

## How files come together

- `version = 1` stands in each file.
- `extends` names one policy: a bare word is one that runagentd ships, all else is a path, relative to the file.
  What it names may not itself extend.
- `include` lists up to INCLUDES_MAX files that hold `[network]` and `[secrets]` only.
- The order is: defaults, what is extended, what is included, the file itself.
  Each wins over those before it, key by key.
- A list replaces the one before it; `{ add = [...] }` adds to it.
- An operator's file is a regular file of at most 64KiB, belongs to root or to who runs the command, and can be
  written by its owner only.
  So are the folders on the way to it, but for those that are sticky, as `/tmp` is.

Sizes are text with `KiB`, `MiB` or `GiB`, or a bare number of bytes.
Durations are text with `ms`, `s`, `m` or `h`.
An unknown key is an error, and so is a value that the kernel would round.

## What must fit together

- `files.app_size`, `files.tmp_size` and `files.shm_size`, and INTERPRETER for the interpreter, fit in
  `resources.memory_max`: a tmpfs counts as memory.
- `calls.concurrency` and RUNNER_TASKS more tasks fit in `resources.pids_max`; with `calls.isolation = "call"` it is 1.
- With `calls.isolation = "principal"` `files.persistent` is false, and `calls.queue` is not 0.
- `calls.log_line_bytes` is not more than `calls.log_bytes_per_minute`.
- `files.read` shows nothing of `/run`, `/proc`, `/sys`, `/dev`, `/boot`, `/app` and `/tmp`, no folder that contains
  one of them, and not what the sandbox makes itself.

"""


def markdown() -> str:
    """The whole of docs/policy.md."""
    opening = (
        _OPENING.replace("INCLUDES_MAX", str(INCLUDES_MAX))
        .replace("INTERPRETER", size_text(INTERPRETER_BYTES))
        .replace("RUNNER_TASKS", str(RUNNER_TASKS))
    )
    return opening + "\n".join(_table(table) for table in TABLES) + _not_built()


def _table(table: str) -> str:
    lines = [
        f"## [{table}]",
        "",
        "| key | default | values | wider | meaning | described in |",
        "|---|---|---|---|---|---|",
        *(_line(key) for key in KEYS if key.table == table),
        "",
    ]
    return "\n".join(lines)


def _line(key: Key[Any]) -> str:  # Any: see `keys.KEYS`
    default, values = key.kind.text(key.default), key.kind.range()
    return f"| `{key.name}` | `{default}` | {values} | {key.kind.wider()} | {key.meaning} | {key.source} |"


def _not_built() -> str:
    tables = ", ".join(f"`[{table}]`" for table in NOT_BUILT_TABLES)
    lines = [
        "",
        "## Not built yet",
        "",
        "These are refused by name.",
        "",
        "| key | instead |",
        "|---|---|",
        *(f"| `{name}` | {instead} |" for name, instead in NOT_BUILT_KEYS.items()),
        f"| every key of {tables} | – |",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(markdown())
