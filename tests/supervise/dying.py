"""A process that deploys, version after version, until it is killed: by itself at one exact point, or by somebody else.

Runs as: a child of `test_kills_of_the_store`; root, for snapshots belong to the agent's id.
`python -m tests.supervise.dying FOLDER POINT N`: at the N-th time that it comes to POINT it ends by SIGKILL.
Points are names of audit events ("os.rename", before each rename(2)) and the beginnings of SQL statements ("COMMIT",
before it is carried out), and "served", after the commit. For each version that is deployed a line goes to stdout.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from runagentd.supervise import snapshot
from runagentd.supervise.homes import Homes
from runagentd.supervise.store import Store
from tests.supervise.test_store import made


def main(place: Path, point: str, times: int) -> None:
    """Deploy for ever."""
    left = times

    def come(to: str) -> None:
        nonlocal left
        if to.startswith(point):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    store, homes = Store(place / "state"), Homes(place / "state" / "agents")
    homes.sweep({agent: store.codes(agent) for agent in store.agents()})
    sys.addaudithook(lambda event, arguments: come(event))
    store._database.set_trace_callback(come)
    source = place / "source"
    number = 0
    while True:
        number += 1
        for file in range(5):
            (source / f"file{file}.py").write_text(f"{os.getpid()} {number} {file}\n" * 100)
        descriptor = os.open(source, os.O_RDONLY | os.O_DIRECTORY)
        taken = snapshot.take(descriptor, homes.incoming())
        os.close(descriptor)
        deployment, identity = made(taken.digest, code=taken.digest)
        homes.adopt(taken.path, "one", taken.digest, str(source))
        store.serve(deployment, identity, policy="version = 1\n", origin=str(source), stays=True)
        come("served")
        print(taken.digest, flush=True)
        for aside in homes.put_aside("one", store.codes("one")):
            snapshot.discard(aside)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
