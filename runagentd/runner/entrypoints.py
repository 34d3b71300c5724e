"""Import the agent and find its entrypoints: what can be called and how, or everything that is wrong at once.

Runs as: the runner, in the sandbox.
Reads from strangers: yes, this is where the agent's code first runs.
"""

from __future__ import annotations

import collections.abc
import difflib
import functools
import inspect
import os
import sys
import time
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from runagentd.runner import failure, hints, imports, told
from runagentd.runner.jsonpath import JsonPath, JsonPathError
from runagentd.runner.parameters import Parameters
from runagentd.wire.manifest import Entrypoint, Manifest

_STREAM_TYPES = frozenset(
    {
        collections.abc.Generator, collections.abc.AsyncGenerator, collections.abc.Iterator,
        collections.abc.AsyncIterator, collections.abc.AsyncIterable,
    }
)  # fmt: skip

_CALL = "__call__"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One entrypoint, ready to be called."""

    entrypoint: Entrypoint
    function: Callable[..., Any]
    told: told.CallModule
    """what it can ask about a call"""
    parameters: Parameters
    extractor: tuple[tuple[str, JsonPath], ...]
    asynchronous: bool
    """whether calling it gives a coroutine or an asynchronous generator"""
    streams: bool | None
    """whether it gives a stream; None where only a call can tell"""
    doc: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportProblem:
    """One reason why the agent cannot serve."""

    tag: str
    where: str
    what: str
    traceback: str = ""
    hints: tuple[str, ...] = ()


@dataclass(slots=True)
class Loaded:
    """What became of an agent's import."""

    targets: list[Target] = field(default_factory=list)
    problems: list[ImportProblem] = field(default_factory=list)
    import_ms: float = 0.0


def load(manifest: Manifest, app_path: str) -> Loaded:
    """Import each file once, and look at each entrypoint."""
    imports.install(app_path, [os.path.join(app_path, folder) for folder in manifest.import_paths])
    call_module = told.install()
    started = time.perf_counter()
    loaded = Loaded()
    modules: dict[str, types.ModuleType | None] = {}
    for entrypoint in manifest.entrypoints:
        if entrypoint.file not in modules:
            modules[entrypoint.file] = _import(entrypoint, app_path, loaded.problems)
    for entrypoint in manifest.entrypoints:
        module = modules[entrypoint.file]
        if module is not None:
            found = _target(entrypoint, module, call_module)
            if isinstance(found, ImportProblem):
                loaded.problems.append(found)
            else:
                loaded.targets.append(found)
    loaded.import_ms = round((time.perf_counter() - started) * 1000, 3)
    return loaded


def _import(entrypoint: Entrypoint, app_path: str, problems: list[ImportProblem]) -> types.ModuleType | None:
    try:
        return imports.import_file(app_path, entrypoint.file)
    except BaseException as error:  # noqa: BLE001  (sys.exit() at import is the agent's error, not our end)
        problems.append(
            ImportProblem(
                tag=entrypoint.tag,
                where=entrypoint.file,
                what=f"the import failed: {failure.type_name(error)}: {failure.message(error)[:1000]}",
                traceback=failure.traceback_text(error),
                hints=tuple(_import_hints(error)),
            )
        )
        return None


def _import_hints(error: BaseException) -> list[str]:
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    match error:
        case ModuleNotFoundError():
            name = str(error.name or "").partition(".")[0]
            if not name or name == imports.FOLDER:
                return ["the file that this names is not in the agent's folder"]
            return [f"write the package that has '{name}' into a requirements.txt in the agent's folder"]
        case SyntaxError():
            return [f"this is Python {python}"]
        case SystemExit():
            return ["an agent is imported, not run: put what ends the program under if __name__ == '__main__'"]
        case KeyError():
            return ["is it an environment variable? set it in 'env_vars' or in .env; the host's are not passed on"]
    if told_by_policy := hints.hint(error):
        return [told_by_policy]
    match error:
        case PermissionError() | ConnectionError() | TimeoutError():
            return ["the sandbox may forbid it: 'runagentctl policy explain' lists what this agent's policy allows"]
    return []


def _target(entrypoint: Entrypoint, module: types.ModuleType, call_module: told.CallModule) -> Target | ImportProblem:
    def problem(what: str, *hints: str, traceback: str = "") -> ImportProblem:
        where = f"{entrypoint.file}: {entrypoint.module}"
        return ImportProblem(tag=entrypoint.tag, where=where, what=what, hints=hints, traceback=traceback)

    value: Any = module
    walked: list[str] = []
    for name in entrypoint.module.split("."):
        try:
            value = getattr(value, name)
        except AttributeError:
            return problem(
                f"there is no '{name}' in {'.'.join(walked) or entrypoint.file}", *_alternatives(value, name, walked)
            )
        except Exception as error:  # noqa: BLE001  (a property of the agent's)
            return problem(
                f"looking up '{name}' failed: {failure.type_name(error)}: {failure.message(error)[:500]}",
                traceback=failure.traceback_text(error),
            )
        walked.append(name)
    if not callable(value):
        return problem(
            f"it is not a function but of type {type(value).__name__}",
            *[f"did you mean '{entrypoint.module}.{name}'?" for name in ("invoke", "run") if _has(value, name)][:1],
        )
    try:
        parameters = Parameters(value)
    except Exception as error:  # noqa: BLE001  (ValueError from inspect, anything from a __signature__ of the agent's)
        return problem(
            f"its signature cannot be read: {failure.message(error)[:500]}",
            "wrap it in a function with plain parameters",
        )
    try:
        extractor = tuple((one.name, JsonPath(one.path)) for one in entrypoint.extractor)
    except JsonPathError as error:
        return problem(f"extractor: {error}", "names, [index], [first:last], *, and .. are understood")
    asynchronous, streams = _kind(value)
    return Target(
        entrypoint=entrypoint, function=value, told=call_module, parameters=parameters, extractor=extractor,
        asynchronous=asynchronous, streams=streams, doc=_doc(value),
    )  # fmt: skip


def _alternatives(value: Any, name: str, walked: list[str]) -> list[str]:
    """A did-you-mean, or the functions that there are."""
    try:
        names = [one for one in dir(value) if not one.startswith("_")]
        close = difflib.get_close_matches(name, names, n=1)
        if close:
            return [f"did you mean '{'.'.join([*walked, close[0]])}'?"]
        own = getattr(value, "__name__", None)
        functions = [one for one in names if getattr(getattr(value, one, None), "__module__", None) == own]
        return [f"there are: {', '.join(functions[:10])}"] if functions else []
    except Exception:  # noqa: BLE001  (a __dir__ or __getattr__ of the agent's; it is only a hint)
        return []


def _has(value: Any, name: str) -> bool:
    try:
        return callable(getattr(value, name, None))
    except Exception:  # noqa: BLE001  (a property of the agent's)
        return False


def _kind(function: Any) -> tuple[bool, bool | None]:
    """(asynchronous, streams) as far as it can be told without a call."""
    plain = function
    while isinstance(plain, functools.partial):
        plain = plain.func
    if not inspect.isroutine(plain) and not isinstance(plain, type):
        plain = getattr(type(plain), _CALL, plain)
    if inspect.isasyncgenfunction(plain):
        return True, True
    if inspect.isgeneratorfunction(plain):
        return False, True
    try:
        hint = typing.get_type_hints(plain).get("return")
    except Exception:  # noqa: BLE001  (an annotation is code of the agent's)
        hint = None
    origin = typing.get_origin(hint) or hint
    streams = None if hint is None else isinstance(origin, collections.abc.Hashable) and origin in _STREAM_TYPES
    if hint is Any or origin in (collections.abc.Iterable, collections.abc.Awaitable, collections.abc.Coroutine):
        streams = None
    return inspect.iscoroutinefunction(plain), streams


def _doc(function: Any) -> str:
    try:
        # Only what its author wrote: a plain object's docstring would be that of its class, or of `type`.
        doc = inspect.getdoc(function) if inspect.isroutine(function) else getattr(function, "__doc__", None)
    except Exception:  # noqa: BLE001  (a __doc__ of the agent's)
        return ""
    return doc if isinstance(doc, str) else ""
