"""What a function can ask about the call that it runs for: the module `runagent_call`, made of context variables.

Runs as: the runner, in the sandbox.
Reads from strangers: nothing; the gateway has checked what a CALL frame says.

The variables are set in the very context in which the function, generator or coroutine runs, so that tasks which it
starts inherit them, and calls that run at the same time do not see each other's. That costs about half a microsecond
a call, and is done only once the agent has imported the module.
The deadline is on time.monotonic() and not on time.time(): nobody can set that clock back during a call, and it is the
clock of every wait in Python (asyncio.timeout_at takes the value as it is).
"""

from __future__ import annotations

import math
import sys
import time
import types
from collections.abc import Sequence
from contextvars import ContextVar
from importlib.machinery import ModuleSpec
from typing import Any, Protocol

NAME = "runagent_call"

deadline: ContextVar[float] = ContextVar("deadline", default=math.inf)
request_id: ContextVar[str] = ContextVar("request_id", default="")
caller: ContextVar[str] = ContextVar("caller", default="")
traceparent: ContextVar[str | None] = ContextVar("traceparent", default=None)
tracestate: ContextVar[str | None] = ContextVar("tracestate", default=None)

_DOC = """What is known of the call that runs: of none where no call does, as while a module is imported.

deadline     when the call's time is over, on time.monotonic(); math.inf for never
request_id   the id that the caller and the daemon's logs know the call by
caller       who calls, as a text that stands for the same caller each time and says nothing else
traceparent  W3C trace context: what to send along with requests of one's own
tracestate   likewise, or None where the caller sent none
remaining()  how many seconds are left, 0.0 at least
"""

_monotonic = time.monotonic


class About(Protocol):
    """The part of a call that is of interest here."""

    header: dict[str, Any]
    """that of its CALL frame"""
    arrived: float
    """on time.monotonic()"""


current: ContextVar[About | None] = ContextVar("call", default=None)
"""Set for each call before its function runs, for one that imports the module itself."""


def remaining() -> float:
    """How many seconds are left until the call's deadline: 0.0 at least, math.inf where there is no deadline."""
    return max(0.0, deadline.get() - _monotonic())


class CallModule:
    """The last of the finders, so that an agent's own module or library of this name wins; and the loader."""

    def __init__(self) -> None:
        self.wanted = False
        """whether the agent has imported it: from then on each call is to be told"""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        """See importlib.abc.MetaPathFinder."""
        if name != NAME:
            return None
        return ModuleSpec(NAME, self, origin="runagentd")  # type: ignore[arg-type]  # a loader by its two methods

    def create_module(self, spec: ModuleSpec) -> types.ModuleType:
        return types.ModuleType(NAME, _DOC)

    def exec_module(self, module: types.ModuleType) -> None:
        names = {
            "deadline": deadline, "request_id": request_id, "caller": caller, "traceparent": traceparent,
            "tracestate": tracestate, "remaining": remaining,
        }  # fmt: skip
        vars(module).update(names, __all__=list(names))
        self.wanted = True
        call = current.get()
        if call is not None:  # the import stands in the function itself
            tell(call)


def tell(call: About) -> None:
    """Set the variables, in the context in which the function of a call runs or will run."""
    header = call.header
    deadline.set(call.arrived + header.get("deadline_ms", math.inf) / 1000)
    request_id.set(header.get("request_id", ""))
    caller.set(header.get("principal", ""))
    traceparent.set(header.get("traceparent"))
    tracestate.set(header.get("tracestate"))


def install() -> CallModule:
    """Offer the module to the agent, behind all other finders."""
    module = CallModule()
    sys.meta_path.append(module)
    return module
