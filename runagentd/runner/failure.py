"""What went wrong in the agent's code, in words: type, message, a traceback of the agent's own frames.

Runs as: the runner, in the sandbox.
Reads from strangers: yes, exceptions of the agent's; no method of theirs may raise through these functions.
Not the `traceback` module: it imports `ast` late, and by then that name may belong to the agent.
"""

from __future__ import annotations

import importlib
import json
import linecache
import os
import sys
import types
from collections.abc import Iterator
from typing import NoReturn

BROKEN_STATUS = 70
"""The exit status of a process that ended itself (sysexits(3): EX_SOFTWARE)."""
MESSAGE_BYTES_MAX = 8 * 1024
TRACEBACK_BYTES_MAX = 32 * 1024
_FRAMES_AT_EACH_END = 12
_CHAIN_MAX = 8
_MEMBERS_NAMED = 8

_encode = json.JSONEncoder(ensure_ascii=False).encode
_MACHINERY = ("<frozen importlib", importlib.import_module.__code__.co_filename)


def json_text(text: str, bytes_max: int) -> bytes:
    """`text` as a JSON string of at most `bytes_max` bytes; the end is cut where it is longer."""
    text = text[:bytes_max]
    while True:
        encoded = _encode(text).encode("utf-8", "replace")
        if len(encoded) <= bytes_max:
            return encoded
        # One character can be six bytes; two steps are enough for almost every text.
        text = text[: min(len(text) - 1, len(text) * (bytes_max - 4) // len(encoded))]


# As the interpreter has it in our frames, wherever our code came from: a fresh interpreter has it from no file.
_OURS = os.path.dirname(os.path.dirname(json_text.__code__.co_filename)) + os.sep


def type_name(error: BaseException) -> str:
    """The qualified name of an exception's class, without the module of built-in ones."""
    kind = type(error)
    try:
        module, name = kind.__module__, kind.__qualname__
        return (name if module in ("builtins", "__main__") else f"{module}.{name}")[:200]
    except Exception:  # noqa: BLE001  (a metaclass of the agent's)
        return "Exception"


def message(error: BaseException) -> str:
    """str(error), or its type's name where that fails; the members of a group are named."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  (a __str__ of the agent's)
        text = f"<a {type_name(error)} that cannot be shown>"
    if isinstance(error, BaseExceptionGroup):
        members = [f"{type_name(one)}: {message(one)[:500]}" for one in error.exceptions[:_MEMBERS_NAMED]]
        more = len(error.exceptions) - len(members)
        text = f"{text}: {'; '.join(members)}{f'; and {more} more' if more else ''}"
    return text[:MESSAGE_BYTES_MAX]


def traceback_text(error: BaseException) -> str:
    """A traceback like Python's, of the agent's frames and those of the libraries between them; none of ours."""
    try:
        text = "\n".join(_chain(error))
    except Exception:  # noqa: BLE001  (a hostile __cause__ or __str__; a missing traceback is no reason to fail)
        text = f"{type_name(error)}: {message(error)}"
    encoded = text.encode("utf-8", "replace")
    if len(encoded) > TRACEBACK_BYTES_MAX:
        half = TRACEBACK_BYTES_MAX // 2 - 16
        encoded = encoded[:half] + b"\n  ...\n" + encoded[-half:]
    return encoded.decode("utf-8", "replace")


def _chain(error: BaseException) -> Iterator[str]:
    """An exception after those that led to it, the first one first."""
    links: list[tuple[BaseException, str]] = []
    seen: set[int] = set()
    current: BaseException | None = error
    joint = ""
    while current is not None and id(current) not in seen and len(links) < _CHAIN_MAX:
        seen.add(id(current))
        links.append((current, joint))
        if current.__cause__ is not None:
            joint = "\nThe above exception was the direct cause of the following exception:\n"
            current = current.__cause__
        elif not current.__suppress_context__:
            joint = "\nDuring handling of the above exception, another exception occurred:\n"
            current = current.__context__
        else:
            current = None
    for one, after in reversed(links):
        yield from _single(one)
        if after:
            yield after


def _single(error: BaseException) -> Iterator[str]:
    frames = list(_frames(error.__traceback__))
    if frames:
        yield "Traceback (most recent call last):"
        if len(frames) > 2 * _FRAMES_AT_EACH_END + 1:
            yield from frames[:_FRAMES_AT_EACH_END]
            yield f"  [{len(frames) - 2 * _FRAMES_AT_EACH_END} more frames]"
            yield from frames[-_FRAMES_AT_EACH_END:]
        else:
            yield from frames
    if isinstance(error, SyntaxError):
        yield from _syntax(error)
        return
    text = message(error)
    yield f"{type_name(error)}: {text}" if text else type_name(error)
    for note in getattr(error, "__notes__", ())[:_MEMBERS_NAMED]:
        yield str(note)[:1000]


def _frames(trace: types.TracebackType | None) -> Iterator[str]:
    while trace is not None:
        code = trace.tb_frame.f_code
        name = code.co_filename
        if not name.startswith(_OURS) and not name.startswith(_MACHINERY):
            yield f'  File "{name}", line {trace.tb_lineno}, in {code.co_name}{_source(name, trace.tb_lineno)}'
        trace = trace.tb_next


def _source(name: str, number: int) -> str:
    try:
        line = linecache.getline(name, number).strip()
    except Exception:  # noqa: BLE001  (a file that vanished, a loader of the agent's)
        return ""
    return f"\n    {line[:200]}" if line else ""


def _syntax(error: SyntaxError) -> Iterator[str]:
    if error.filename is not None:
        yield f'  File "{error.filename}", line {error.lineno}'
    if error.text:
        line = error.text.rstrip("\n")
        yield f"    {line.strip()[:200]}"
        indent = len(line) - len(line.lstrip())
        if error.offset and 0 < error.offset - indent <= 200:
            yield " " * (4 + error.offset - 1 - indent) + "^"
    yield f"{type_name(error)}: {error.msg}"


def end_process(error: BaseException) -> NoReturn:
    """After an error outside of every call, say so to the operator, and let the instance be replaced."""
    try:
        sys.stderr.write(
            "runagentd: an error outside of every call ended this process\n"
            f"{traceback_text(error)}\n{type_name(error)} in {_own_places(error)}\n"
        )
        sys.stderr.flush()
    finally:
        os._exit(BROKEN_STATUS)


def _own_places(error: BaseException) -> str:
    """Where in the runner an error arose: a traceback of the agent's leaves our frames out, and here they matter."""
    places = []
    trace = error.__traceback__
    while trace is not None:
        places.append(f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}")
        trace = trace.tb_next
    return " > ".join(places)
