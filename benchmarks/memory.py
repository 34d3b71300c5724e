"""How much memory processes hold, as the kernel tells it.

Runs as: the benchmarks, root.
Reads from strangers: nothing; /proc of this host.
"""

from __future__ import annotations

from pathlib import Path


def pss(pid: int) -> int:
    """Bytes of a process, its part of what it shares with others included (proc_pid_smaps(5))."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:"))
