"""What an attempt is, the list of all of them, and how one is observed.

Runs as: inside a served agent, as the agent; outside, in a throwaway child of the test process, as root.
Reads from strangers: nothing.
Standard library only: this package is copied into an agent's folder.

An attempt is a function. If it returns, it worked ("open"); an OSError is the kernel's refusal, under its errno's
name; `Nothing` says that it was allowed and that there was nothing to be had ("nothing"). It must do no harm even
where it works, since it does work outside, and wherever a protection was taken away to see whether a test notices.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

Function = Callable[[], str]

SECONDS = 20.0
"""How long one attempt may take before its process is killed ("stuck")."""


class Nothing(Exception):
    """The attempt was allowed, and there was nothing to be had; the text says what was there instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What happened: "open", "nothing", an errno, a signal, "stuck", or "broken" (the attempt itself is wrong)."""

    word: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One way out.

    expect      the words that may be observed inside
    control     what shows outside that the attempt would work: mostly the attempt itself
    sees        the words that count as success there; an errno means that the call got past every permission check
    lacks       the words that say that this kernel was built without the thing
    shares      namespaces of the host that the control keeps ("net", "pid"), for attempts that only look
    no_control  why nothing outside can show it
    in_runner   it needs the runner's own process; all others are tried in a child
    """

    name: str
    area: str
    idea: str
    run: Function
    expect: tuple[str, ...]
    control: Function | None
    sees: tuple[str, ...]
    lacks: tuple[str, ...]
    shares: tuple[str, ...]
    no_control: str
    in_runner: bool


ATTEMPTS: dict[str, Attempt] = {}
"""Every attempt, by name; filled while the modules of this package are imported."""


def attempt(
    area: str,
    expect: str,
    *,
    control: Function | None = None,
    sees: str = "open",
    lacks: str = "",
    shares: str = "",
    no_control: str = "",
    in_runner: bool = False,
) -> Callable[[Function], Function]:
    """Put a function on the list; words are separated by spaces. Its docstring is the idea."""

    def put(function: Function) -> Function:
        name = function.__name__
        if name in ATTEMPTS:
            raise ValueError(f"there are two attempts named {name}")
        ATTEMPTS[name] = Attempt(
            name=name,
            area=area,
            idea=(function.__doc__ or "").strip(),
            run=function,
            expect=tuple(expect.split()),
            control=None if no_control else (control or function),
            sees=tuple(sees.split()),
            lacks=tuple(lacks.split()),
            shares=tuple(shares.split()),
            no_control=no_control,
            in_runner=in_runner,
        )
        return function

    return put


def attempts(area: str, expect: str, made: Iterable[tuple[str, str, Function]], **more: Any) -> None:
    """Put several of one kind on the list: (name, idea, function)."""
    for name, idea, function in made:
        function.__name__ = name
        function.__doc__ = idea
        attempt(area, expect, **more)(function)


def observe_here(function: Function) -> Observation:
    """Run `function` in this process."""
    try:
        return Observation(word="open", detail=function())
    except Nothing as nothing:
        return Observation(word="nothing", detail=str(nothing))
    except OSError as refused:
        number = refused.errno or 0
        return Observation(word=errno.errorcode.get(number, f"errno {number}"), detail=str(refused))
    except BaseException as error:
        return Observation(word="broken", detail=f"{type(error).__name__}: {error}")


def observe(function: Function, seconds: float = SECONDS) -> Observation:
    """Run `function` in a child, which may be killed for it."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            found = observe_here(function)
            os.write(writer, json.dumps([found.word, found.detail[:2000]]).encode())
        finally:
            os._exit(0)
    os.close(writer)
    try:
        # A child of the attempt's own may hold the pipe open, so it is the answer that ends the wait.
        if not select.select([reader], [], [], seconds)[0]:
            return Observation(word="stuck", detail=f"no answer in {seconds} s")
        said = os.read(reader, 65536)
    finally:
        os.close(reader)
        kill(child)
        _, status = os.waitpid(child, 0)
    if said:
        word, detail = json.loads(said)
        return Observation(word=word, detail=detail)
    if os.WIFSIGNALED(status):
        return Observation(word=signal.Signals(os.WTERMSIG(status)).name, detail="killed")
    return Observation(word="broken", detail="the child ended without a word")


def kill(pid: int) -> None:
    """SIGKILL, for a process that may be gone."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def in_fork(work: Callable[[], object]) -> int:
    """A child that does `work` and ends; its pid."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            sys.stderr.write(f"{error!r}\n")
        finally:
            os._exit(0)
    return child
