"""Which CPython an agent runs on: the daemon's own, or one that the operator has named.

Runs as: the supervisor. Pure.
Reads from strangers: what a manifest asks for, whose form was checked; it chooses among what the operator has named.
"""

from __future__ import annotations

from collections.abc import Iterable

from runagentd.errors import ConfigurationError, Problem
from runagentd.wire.runtime import PythonRuntime


class Runtimes:
    """What agents may ask for.

    A version of an agent keeps the runtime that it got, whatever the operator names later, as long as its files are
    what they were: `choose` is for versions that are made from then on, `renewed` for those that are there.
    """

    def __init__(self, own: PythonRuntime) -> None:
        self.own = own
        self._named: dict[str, PythonRuntime] = {}

    def configure(self, named: Iterable[PythonRuntime]) -> None:
        """What the operator's file names now."""
        self._named = {runtime.version: runtime for runtime in named}

    def choose(self, asked: str) -> PythonRuntime:
        """The runtime for who asks for this minor version, or for none (""). ConfigurationError where it is not there.

        One that the operator has named comes before the daemon's own of the same version: that is what for it was
        named.
        """
        if not asked:
            return self.own
        found = self._named.get(asked)
        if found is None and asked == self.own.version:
            found = self.own
        if found is None:
            raise ConfigurationError(
                Problem(
                    "",
                    f"it asks for Python {asked}, and there is {self._words()}",
                    (
                        f'name one in the daemon\'s configuration: [runtimes] "{asked}" = "/path/to/python{asked}"',
                        'or ask for another one: "python" in runagent.config.json, or .python-version',
                    ),
                )
            )
        return found

    def renewed(self, runtime: PythonRuntime) -> PythonRuntime:
        """What is now where this one was: another build after an update in its place, else itself.

        Its files are mounted anew for each sandbox: an old zygote with a new standard library would be neither of both.
        """
        found = self._named.get(runtime.version)
        updated = found is not None and found.interpreter == runtime.interpreter and runtime != self.own
        return found if found is not None and updated else runtime

    def shown(self, runtime: PythonRuntime) -> str:
        """Its release, for people; "" for the daemon's own, of which there is nothing to say."""
        return "" if runtime == self.own else runtime.release

    def _words(self) -> str:
        others = sorted(self._named.keys() - {self.own.version})
        return ", ".join([self.own.version, *others]) + (" only" if not others else "")
