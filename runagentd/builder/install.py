"""Run uv, tell how far it is, and pass on its own words where it fails.

Runs as: the builder, confined.
Reads from strangers: yes, by way of uv: requirements, an index, packages. What uv prints is theirs in part, too.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import socket
import subprocess
import threading
import urllib.parse
from collections import deque
from collections.abc import Iterable, Sequence

from runagentd.builder import bytecode, jail
from runagentd.wire import build
from runagentd.wire.build import SITE, STAGE, BuildJob, Phase

_COUNTED = {
    "Resolved": Phase.FETCHING,
    "Prepared": Phase.INSTALLING,
}
_LINE = re.compile(r"(Resolved|Prepared) (\d{1,6}) packages?\b")
_SPACE = re.compile(r"\s")
_GOES_WELL = re.compile(r"\s*(Using|Resolved|Prepared|Downloading|Downloaded|Building|Built|Installed) ")
"""What uv says of what it does: no part of what went wrong."""
_LINES_MAX = 200
_THREADS = "4"
_LINE_MAX = 2000
_PACKAGES_MAX = 10_000
_COUNT_SECONDS = 0.5
_FETCHED = f"{STAGE}/cache/archive-v0"
"""Where uv puts each package when it is there as a whole."""


class _Count(threading.Thread):
    """Tells every now and then how many packages are there: uv itself says so of large ones alone."""

    def __init__(self, packages: int, report: socket.socket) -> None:
        super().__init__(daemon=True)
        self._packages = packages
        self._report = report
        self._over = threading.Event()

    def run(self) -> None:
        told = 0
        while not self._over.wait(_COUNT_SECONDS):
            with contextlib.suppress(OSError):
                there = min(len(os.listdir(_FETCHED)), self._packages)
                if there > told:
                    told = there
                    far = build.Progress(phase=Phase.FETCHING, packages=self._packages, there=there)
                    self._report.send(build.pack(far))

    def stop(self) -> None:
        """Nothing is told any more when this returns."""
        self._over.set()
        self.join()


class Failed(Exception):
    """uv has ended without success; the text is what it said."""


def run(job: BuildJob, report: socket.socket) -> None:
    """Fill the folder SITE, and say what came of it."""
    try:
        packages = _install(job, report)
        report.send(build.pack(build.Progress(phase=Phase.COMPILING, packages=packages)))
        bytecode.compile_all(f"{STAGE}/{SITE}", seen_at=job.target)
    except (Failed, OSError) as error:
        words = _end_of(str(error))
        answer = build.NotBuilt(words=words, full="No space left on device" in words or "os error 28" in words)
        report.send(build.pack(answer))
        return
    report.send(build.pack(build.Built(packages=packages)))


def _install(job: BuildJob, report: socket.socket) -> int:
    """How many packages were installed."""
    for folder in ("home", "tmp", "cache", SITE, "project"):
        os.mkdir(f"{STAGE}/{folder}", 0o755)
    for file in job.files:
        path = f"{STAGE}/project/{file.name}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "xb") as output:
            output.write(file.content)
    os.chdir(f"{STAGE}/project")
    report.send(build.pack(build.Progress(phase=Phase.RESOLVING, packages=0)))
    source = job.files[0].name
    options: list[str] = []
    if source == build.LOCK:
        # All that is locked and nothing else; hashes are compared wherever the lock has them.
        source, options = f"{STAGE}/locked.txt", ["--no-deps"]
        _uv(job, ["export", "--frozen", "--no-emit-project", "--no-default-groups", "--no-header", "--no-annotate",
                  "--quiet", "--output-file", source])  # fmt: skip
    if not job.source:
        options.append("--no-build")
        # What uv asks of the interpreter goes to its cache, and then it needs no other program.
        _uv(job, ["pip", "list", "--quiet", "--target", f"{STAGE}/{SITE}"])
    lines = _uv(
        job,
        [
            "pip",
            "install",
            "--target",
            f"{STAGE}/{SITE}",
            "--link-mode",
            "hardlink",
            *options,
            "--requirements",
            source,
        ],
        report,
    )
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{STAGE}/{SITE}/.lock")  # uv's own, no part of any package
    return max((int(found[2]) for line in lines if (found := _LINE.search(line))), default=0)


def _uv(job: BuildJob, arguments: Sequence[str], report: socket.socket | None = None) -> list[str]:
    """The lines that it printed, from the last ones back; `Failed` where it does not end well.

    With `report` it is told how far it is; and unless packages may be built, uv can start no program then. Its own
    options do not suffice: `--no-binary NAME` in requirements weighs more than `--no-build`.
    """

    def restrict() -> None:
        jail.forbid_programs_but(jail.INSTALLER, *([job.loader] if job.loader else []))

    process = subprocess.Popen(
        [jail.INSTALLER, *arguments],
        env=_variables(job),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=restrict if report is not None and not job.source else None,  # this process has one thread yet
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    lines = deque[str](maxlen=_LINES_MAX)
    counts: list[_Count] = []
    try:
        for line in _lines(process):
            lines.append(line)
            found = _LINE.match(line)
            if found and report is not None:
                packages, phase = min(int(found[2]), _PACKAGES_MAX), _COUNTED[found[1]]
                while counts:
                    counts.pop().stop()
                report.send(build.pack(build.Progress(phase=phase, packages=packages)))
                if phase is Phase.FETCHING:
                    counts.append(_Count(packages, report))
                    counts[-1].start()
        status = process.wait()
    finally:
        while counts:
            counts.pop().stop()
    if status:
        how = f"uv was ended by signal {-status}" if status < 0 else f"uv ended with status {status}"
        said = [line for line in lines if not _GOES_WELL.match(line)]
        raise Failed("\n".join([*said, how] if status < 0 or not said else said))
    return list(lines)


def _lines(process: subprocess.Popen[str]) -> Iterable[str]:
    """Of one that is too long, what comes before its last space within bounds; see `_end_of`."""
    if process.stderr is None:
        raise Failed("uv was started without a pipe")
    begins = True
    while piece := process.stderr.readline(_LINE_MAX):
        ends = piece.endswith("\n")
        if begins:
            yield piece.rstrip("\n") if ends or len(piece) < _LINE_MAX else f"{piece.rpartition(' ')[0]} …"
        begins = ends


def _end_of(text: str) -> str:
    """No more than may be sent. Cut at a space: the supervisor leaves whole passwords out, not half ones."""
    if len(text) <= build.WORDS_MAX:
        return text
    found = _SPACE.search(text, len(text) - build.WORDS_MAX + 2)
    return f"… {text[found.end() :]}" if found else "…"


def _index(address: str) -> dict[str, str]:
    """What tells uv of an index. Never as an argument: an address may hold a password, and arguments are everybody's.

    uv writes `${NAME}` in requirements out, and asks whatever host stands before it: so what holds a password has a
    name that no requirements can know.
    """
    parts = urllib.parse.urlsplit(address)
    login, at, host = parts.netloc.rpartition("@")
    if not at:
        return {"UV_DEFAULT_INDEX": address}
    name = f"i{secrets.token_hex(16)}"
    user, _, password = login.partition(":")
    logins = {"USERNAME": urllib.parse.unquote(user), "PASSWORD": urllib.parse.unquote(password)}
    return {
        "UV_DEFAULT_INDEX": f"{name}={urllib.parse.urlunsplit(parts._replace(netloc=host))}",
        **{f"UV_INDEX_{name.upper()}_{kind}": text for kind, text in logins.items() if text},
    }


def _variables(job: BuildJob) -> dict[str, str]:
    """All of uv's environment. No configuration of a user's, the system's or the project's is read."""
    variables = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": f"{STAGE}/home",
        "TMPDIR": f"{STAGE}/tmp",
        "LANG": "C.UTF-8",
        "NO_COLOR": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        # As many threads as processors are more than a builder may have, on a machine with a hundred of them.
        "RAYON_NUM_THREADS": _THREADS,
        "TOKIO_WORKER_THREADS": _THREADS,
        "UV_CONCURRENT_INSTALLS": _THREADS,
        "UV_CONCURRENT_BUILDS": "2",
        "UV_CONCURRENT_DOWNLOADS": "16",
        "UV_CACHE_DIR": f"{STAGE}/cache",
        "UV_KEYRING_PROVIDER": "disabled",
        "UV_NO_CONFIG": "1",
        # With the times of a wheel's file in it, equal packages would not be equal.
        "UV_NO_INSTALLER_METADATA": "1",
        "UV_NO_PROGRESS": "1",
        "UV_PYTHON": job.interpreter,
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_SYSTEM_CERTS": "1",
    }
    if job.index:
        variables |= _index(job.index)
    else:
        variables |= {"UV_NO_INDEX": "1", "UV_OFFLINE": "1"}
    if job.wheels:
        variables["UV_FIND_LINKS"] = jail.WHEELS
    if job.authorities:
        variables["SSL_CERT_FILE"] = jail.AUTHORITIES
    return variables
