"""Let a running daemon take over what was changed in its state directory, and say whether it did.

Runs as: root.
Reads from strangers: nothing.
"""

from __future__ import annotations

import json

from runagentd.errors import HostError
from runagentd.foreman import admin_client
from runagentd.state import StateDirectory
from runagentd.wire import admin


def spread(directory: StateDirectory) -> bool | None:
    """True: the gateway holds to it. False: it has not said so in time. None: no daemon runs here."""
    try:
        connection = admin_client.connect(directory.admin_socket)
    except HostError:
        return None
    with connection:
        connection.settimeout(30.0)
        admin_client.send(connection, admin.TrustChanged())
        reply = admin_client.receive(connection)
    if isinstance(reply, admin.Failed):
        raise HostError(reply.message)
    return isinstance(reply, admin.TrustSpread) and reply.taken


def report(directory: StateDirectory, done: str, facts: dict[str, object], *, as_json: bool) -> int:
    """Spread it, then print what was done and since when it holds; 1 where a running daemon did not take it over."""
    taken = spread(directory)
    if as_json:
        print(json.dumps({**facts, "taken": taken}))
    else:
        since = {
            True: "the gateway holds to it now",
            False: "the gateway has NOT said that it holds to it: look at its log, and at 'runagentctl ps'",
            None: "no daemon runs with this state directory: it holds from the next start",
        }
        print(f"{done}; {since[taken]}")
    return 1 if taken is False else 0
