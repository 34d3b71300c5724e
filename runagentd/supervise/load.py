"""Run a loader on a snapshot, and believe what it says only after checking it again.

Runs as: the supervisor, root.
Reads from strangers: the report of a loader that has read hostile files and may be hostile itself: at most 64 KiB,
in a limited time, decoded by `wire.record`, and held to every rule that the loader should have kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import itertools
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from runagentd.errors import HostError
from runagentd.supervise.waiting import readable
from runagentd.wire import record
from runagentd.wire.manifest import MANIFEST_BYTES, LoadProblem, LoadReport, Manifest

_START = (
    "import sys; sys.path += sys.argv[1:3]; from runagentd.loader.__main__ import main; sys.exit(main(sys.argv[3:]))"
)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ENVIRONMENT_BYTES = 32 * 1024
_PERSISTENT_MAX = 32
_IMPORT_PATHS_MAX = 4


async def load(snapshot: int, *, uid: int, gid: int, seconds: float = 10) -> LoadReport:
    """What the folder that `snapshot` is open on says of its agent. Whatever the loader does, there is a report."""
    reading, writing = os.pipe()
    try:
        process, pidfd = _start(snapshot, writing, uid, gid)
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    try:
        async with asyncio.timeout(seconds):
            content = await _read(reading)
    except TimeoutError:
        return _failed(f"loading the agent's configuration took more than {seconds:g} s")
    finally:
        os.close(reading)
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        await readable(pidfd)  # a process that was killed has ended then (pidfd_open(2))
        os.close(pidfd)
        process.poll()  # reaps it, unless the supervisor's own reaping was faster
    return parse_report(content)


def parse_report(content: bytes) -> LoadReport:
    """The report that `content` is, or one that says that it is none."""
    if not content:
        return _failed("the loader ended without a report")
    try:
        report = record.decode(LoadReport, content, bytes_max=MANIFEST_BYTES)
    except record.RecordError:
        return _failed("the loader's report is not one")
    if report.manifest is None:
        problems = tuple(_printable_problem(problem) for problem in report.problems)
        return LoadReport(manifest=None, problems=problems) if problems else _failed("the loader gave no reason")
    wrong = "problems beside a manifest" if report.problems else _wrong(report.manifest)
    return _failed(f"the loader's report is not one: {wrong}") if wrong else report


def _wrong(manifest: Manifest) -> str:
    """What of a manifest breaks a rule that `wire.manifest` does not check by itself; "" if nothing does."""
    names = [variable.name for variable in manifest.environment]
    size = sum(len(one.name) + len(one.value.encode()) + 2 for one in manifest.environment)
    checks = (
        (all(_VARIABLE.fullmatch(name) for name in names), "the name of a variable"),
        (len(set(names)) == len(names), "a variable stands twice"),
        (not any("\0" in variable.value for variable in manifest.environment), "a NUL in a variable"),
        (size <= _ENVIRONMENT_BYTES, "the size of the variables"),
        (all(entrypoint.file.endswith(".py") for entrypoint in manifest.entrypoints), "an entrypoint's file"),
        (all(entrypoint.tag.isprintable() for entrypoint in manifest.entrypoints), "an entrypoint's tag"),
        (all(_names_function(entrypoint.module) for entrypoint in manifest.entrypoints), "an entrypoint's module"),
        (len(manifest.persistent_folders) <= _PERSISTENT_MAX, "the number of persistent folders"),
        (_separate((*manifest.persistent_folders, *manifest.import_paths)), "folders within each other"),
        (len(manifest.import_paths) <= _IMPORT_PATHS_MAX, "the number of import paths"),
        (manifest.framework.isprintable() and manifest.version.isprintable(), "the framework or the version"),
        (all(hint.isprintable() for hint in manifest.hints), "a hint"),
    )
    return next((what for right, what in checks if not right), "")


def _names_function(module: str) -> bool:
    return all(part.isidentifier() for part in module.split("."))


def _separate(folders: tuple[str, ...]) -> bool:
    """Whether none of the folders is another one or lies within it: each becomes a mount."""
    ordered = sorted(f"{folder}/" for folder in folders)
    return not any(after.startswith(before) for before, after in itertools.pairwise(ordered))


def _printable_problem(problem: LoadProblem) -> LoadProblem:
    hints = tuple(_printable(hint) for hint in problem.hints)
    return LoadProblem(where=_printable(problem.where), what=_printable(problem.what), hints=hints)


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)


def _failed(what: str) -> LoadReport:
    hint = "the agent's files may be made to confuse it; 'runagentctl check DIR' tries again"
    return LoadReport(manifest=None, problems=(LoadProblem(where="", what=what, hints=(hint,)),))


def _start(snapshot: int, output: int, uid: int, gid: int) -> tuple[subprocess.Popen[bytes], int]:
    # A descriptor of its own: one with O_PATH would not do for reading a directory.
    folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=snapshot)
    try:
        process = subprocess.Popen(
            _command(folder, uid, gid),
            env={},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.DEVNULL,  # nothing of a process that reads strangers' files goes to a terminal
            pass_fds=[folder],
            start_new_session=True,
        )
        # Nothing was awaited since it was made, so nobody can have reaped it: the pid is its own.
        return process, os.pidfd_open(process.pid)
    finally:
        os.close(folder)


def _command(folder: int, uid: int, gid: int) -> list[str]:
    yaml = importlib.util.find_spec("yaml")
    if yaml is None or yaml.origin is None:
        raise HostError("the Python package 'yaml' is missing", "install runagentd with its dependencies")
    package, packages = Path(__file__).parent.parent.parent, Path(yaml.origin).parent.parent
    # -I -S: no variable, no user's folder and no .pth file has a say in what a process started by root imports.
    return [
        sys.executable, "-I", "-S", "-B", "-c", _START, str(package), str(packages),
        "--uid", str(uid), "--gid", str(gid), "--folder-fd", str(folder),
    ]  # fmt: skip


async def _read(descriptor: int) -> bytes:
    """All that comes until the end of the file, or one byte more than a report may have."""
    os.set_blocking(descriptor, False)
    content = b""
    while len(content) <= MANIFEST_BYTES:
        await readable(descriptor)
        try:
            piece = os.read(descriptor, MANIFEST_BYTES + 1 - len(content))
        except BlockingIOError:
            continue
        if not piece:
            break
        content += piece
    return content
