"""`runagentctl apply`: have served what agent files say, and show first what that changes.

Runs as: root.
Reads from strangers: nothing; what an agent says of itself is printed by a process without privileges.
Each agent takes the way that 'deploy' takes, one after the other; what goes wrong with one holds up no other. The
supervisor compares, for it knows the digests; and it refuses what is not any more what was shown.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from runagentd.cli import deploy_commands, difference
from runagentd.cli.difference import Difference, Step
from runagentd.config import agent_files
from runagentd.config.agent_file import AgentFile
from runagentd.errors import ConfigurationError, HostError, Problem
from runagentd.foreman import admin_client, announce
from runagentd.log import complain, escape
from runagentd.state import StateDirectory
from runagentd.wire import admin

DIFFERENT = 1
"""Exit status of a dry run that found something to do; as diff(1)."""
TROUBLE = 2
"""Of one that found a file which cannot be used."""


def apply(
    directory: StateDirectory,
    places: Sequence[Path],
    *,
    usual: Path,
    dry_run: bool,
    yes: bool,
    prune: bool,
    take_over: bool,
    as_json: bool,
) -> int:
    """0 where all is as the files say when it returns; else 1, and for a dry run DIFFERENT or TROUBLE.

    `usual` is the folder that is read where no places are named. ConfigurationError, HostError.
    """
    try:
        places = places or [_there(usual)]
        return _apply(directory, places, dry_run=dry_run, yes=yes, prune=prune, take_over=take_over, as_json=as_json)
    except (ConfigurationError, HostError) as error:
        if not dry_run:
            raise
        complain(f"runagentctl: {error}")
        return TROUBLE


def _there(folder: Path) -> Path:
    """The folder; ConfigurationError where it is not there, which is not about any agent's file."""
    if os.path.lexists(folder):
        return folder
    hints = (
        f"make it (mkdir --parents {folder}) and write a file for each agent into it (docs/files.md)",
        "or name folders or files: runagentctl apply DIR|FILE",
    )
    raise ConfigurationError(Problem(str(folder), "no such folder, and 'apply' was given no other", hints))


def _apply(
    directory: StateDirectory,
    places: Sequence[Path],
    *,
    dry_run: bool,
    yes: bool,
    prune: bool,
    take_over: bool,
    as_json: bool,
) -> int:
    found = agent_files.find(places)
    steps = [_plan(directory.admin_socket, file, take_over=take_over) for file in found.files]
    compared = difference.compare(found, steps, _managed(directory.admin_socket))
    # Which agent a file that cannot be used was about is not known: perhaps the very one that seems to be gone.
    pruned = compared.gone if prune and not compared.refused else ()
    if not as_json:
        _show(compared, prune=bool(pruned))
        if prune and compared.gone and not pruned:
            complain("nothing is removed while a file is refused")
    if not compared.to_do and not pruned:
        if as_json:
            _tell(compared, ok=not compared.refused)
        elif not compared.refused:
            print("nothing to do")
        return (TROUBLE if dry_run else 1) if compared.refused else 0
    if dry_run:
        if as_json:
            _tell(compared, ok=False)
        return TROUBLE if compared.refused else DIFFERENT
    if not yes and not _agreed():
        return 1
    return _carry_out(directory.admin_socket, compared, pruned, take_over=take_over, as_json=as_json)


def _plan(path: Path, file: AgentFile, *, take_over: bool) -> Step:
    """What it would change, as the supervisor says; HostError where it does not."""
    try:
        reply = _deploy(path, file, dry_run=True, take_over=take_over)
    except ConfigurationError as error:
        return Step(path=file.path, file=file, problems=error.problems)
    match reply:
        case admin.Planned():
            problems = _of_another(file, reply) if not take_over else ()
            return Step(path=file.path, file=file, planned=reply, problems=problems)
        case admin.Deployed():
            return Step(path=file.path, file=file, problems=reply.problems)
        case admin.Failed():
            return Step(path=file.path, file=file, problems=(Problem(str(file.path), reply.message),))
        case _:
            raise HostError("the supervisor answered something else than was asked")


def _of_another(file: AgentFile, planned: admin.Planned) -> tuple[Problem, ...]:
    """What speaks against it where another file manages the agent, and was not only moved here."""
    manager = planned.managed_by
    if manager in ("", str(file.path)) or not os.path.lexists(manager):
        return ()
    what = f"{planned.agent_name!r} is an agent that another file manages: {manager}"
    hints = (
        "where this is meant to be that agent, remove the other file, or apply with --take-over",
        "or write another name into this one",
    )
    return (Problem(f"{file.path}: folder", what, hints),)


def _deploy(path: Path, file: AgentFile, *, take_over: bool, dry_run: bool = False, shown: str = "") -> admin.Reply:
    """The supervisor's answer; ConfigurationError where the folder cannot be opened."""
    request = admin.Deploy(
        folder=str(file.folder),
        policies=(admin.PolicyChoice(agent="", policy=file.policy),),
        keep=True,
        name=file.name,
        instances=file.instances,
        aliases=file.aliases,
        allow_widening=file.allow_widening,
        progress=True,
        managed_by=str(file.path),
        dry_run=dry_run,
        shown=shown,
        take_over=take_over,
    )
    try:
        descriptor = os.open(file.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        words = f"{file.folder}: {(error.strerror or 'cannot be opened').lower()}"
        problem = Problem(f"{file.path}: folder", words, ("name the folder of an agent",))
        raise ConfigurationError(problem) from error
    try:
        return deploy_commands.ask(path, request, descriptor)
    finally:
        os.close(descriptor)


def _managed(path: Path) -> list[admin.ManagedRow]:
    """All agents that files manage, however many answers that takes."""
    rows: list[admin.ManagedRow] = []
    while True:
        reply = admin_client.told(admin_client.ask(path, admin.ManagedAsk(skip=len(rows))), admin.Managed)
        rows += reply.rows
        if not reply.rows or len(rows) >= reply.total:
            return rows


def _show(compared: Difference, *, prune: bool) -> None:
    for line in difference.lines(compared, prune=prune):
        print(line)
    print(difference.summary(compared), flush=True)


def _agreed() -> bool:
    """Whether who sits at the terminal wants it."""
    if not sys.stdin.isatty():
        complain("nothing was applied: there is no terminal to ask at\nhint: --yes applies without a question")
        return False
    sys.stderr.write("apply? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    complain("nothing was applied")
    return False


def _carry_out(
    path: Path, compared: Difference, pruned: Sequence[admin.ManagedRow], *, take_over: bool, as_json: bool
) -> int:
    """Apply each, then remove; the exit status."""
    replies: dict[Path, admin.Deployed] = {}
    for step in compared.to_do:
        replies[step.path] = _applied(path, step, take_over=take_over)
        if not as_json:
            _show_applied(step, replies[step.path])
    failed = sum(not reply.ok for reply in replies.values())
    held_up = bool(pruned) and failed > 0
    removed = []
    for row in pruned if not failed else ():
        reply = admin_client.ask(path, admin.Remove(agent=row.agent, version="", managed_by=row.managed_by))
        if isinstance(reply, admin.Done):
            removed.append(row)
            if not as_json:
                print(f"{escape(row.agent_name)}: served no more; what it has kept stays")
        else:
            failed += 1
            complain(f"{escape(row.agent_name)}: {escape(reply.message if isinstance(reply, admin.Failed) else '?')}")
    ok = not failed and not compared.refused
    if as_json:
        _tell(compared, replies, removed, ok=ok)
    elif held_up:
        complain("nothing was removed, for not all else is as the files say")
    return 0 if ok else 1


def _applied(path: Path, step: Step, *, take_over: bool) -> admin.Deployed:
    """What came of one; where nobody can say, that."""
    if step.file is None or step.planned is None:
        raise ValueError(f"{step.path} is refused")
    problem = Problem("", "")
    try:
        reply = _deploy(path, step.file, take_over=take_over, shown=step.planned.digest)
        if isinstance(reply, admin.Deployed):
            return reply
        problem = Problem(str(step.path), reply.message if isinstance(reply, admin.Failed) else "an unknown answer")
    except ConfigurationError as error:
        (problem,) = error.problems
    except (HostError, OSError) as error:
        hint = "to apply again does no harm"
        problem = Problem(str(step.path), str(error), (hint,))
    return deploy_commands.refused(problem)


def _show_applied(step: Step, reply: admin.Deployed) -> None:
    if reply.ok and reply.unchanged:
        aliases = step.planned.aliases if step.planned is not None else ()
        led = "".join(f", {escape(alias.alias)} leads to it" for alias in aliases)
        print(f"{escape(reply.agent_name)}: v{reply.number} serves as before{led}", flush=True)
        return
    if not reply.ok:
        complain(f"{escape(step.name)}: not applied ({escape(str(step.path))})")
    announce.show_as_nobody(announce.Announcement(deployed=(reply,), deploy=True), uid=deploy_commands.NOBODY)


def _tell(
    compared: Difference,
    replies: Mapping[Path, admin.Deployed] = MappingProxyType({}),
    removed: Sequence[admin.ManagedRow] = (),
    *,
    ok: bool,
) -> None:
    """All of it as JSON; what agents say of themselves is put in by a process without privileges."""
    agents = []
    for step in compared.steps:
        reply = replies.get(step.path)
        result = None if reply is None else "applied" if reply.ok else "failed"
        agents.append({**difference.facts(step), "result": result})
    told = {
        "ok": ok,
        "agents": agents,
        "gone": [difference.gone_facts(row, removed=row in removed) for row in compared.gone],
    }
    deployed = tuple(replies[step.path] for step in compared.steps if step.path in replies)
    announcement = announce.Announcement(deployed=deployed, as_json=True, applied=json.dumps(told))
    announce.show_as_nobody(announcement, uid=deploy_commands.NOBODY)
