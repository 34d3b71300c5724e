"""`runagentctl check`: everything that `serve` checks, without serving.

Runs as: root. A whole daemon is started on a throwaway state directory and a port of 127.0.0.1 that nobody knows, so
that what is checked is what would be served.
Reads from strangers: nothing; the announcement is made by a process without privileges.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from runagentd import state
from runagentd.foreman import scope
from runagentd.foreman.serve import ServeOptions, serve
from runagentd.wire.admin import PolicyChoice


def check(folder: Path, *, policy: str, config: Path | None, as_json: bool) -> int:
    """0 where the folder would be served, 1 where not, with every problem."""
    scope.enter()  # before anything is made: what runs now may start again
    with tempfile.TemporaryDirectory(prefix="runagentd-check-", dir=state.SCRATCH) as place:
        return serve(
            ServeOptions(
                folders=(folder,),
                host="127.0.0.1",
                port=0,
                policies=(PolicyChoice(agent="", policy=policy),),
                state_dir=Path(place) / "state",
                ready_file=None,
                log_format="text",
                verbose=False,
                spares=0,
                standbys=0,
                config=config,
                check_only=True,
                as_json=as_json,
            )
        )
