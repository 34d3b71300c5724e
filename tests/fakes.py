"""Fakes that several test packages share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class RecordingKernel:
    """Stands in for a module of functions: remembers every call in order, as `name(arguments)`; does nothing.

    `refuse` names functions that raise the given error instead. Constants come from the real module.
    """

    def __init__(self, real: object, calls: list[str], refuse: dict[str, OSError] | None = None) -> None:
        self._real = real
        self._calls = calls
        self._refuse = refuse or {}

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._real, name)
        if not callable(value) or isinstance(value, type):
            return value
        return self._record(name)

    def _record(self, name: str) -> Callable[..., Any]:
        def call(*arguments: object, **named: object) -> int:
            shown = [repr(argument) for argument in arguments] + [f"{key}={value!r}" for key, value in named.items()]
            self._calls.append(f"{name}({', '.join(shown)})")
            if name in self._refuse:
                raise self._refuse[name]
            return 99

        return call
