"""What runagentd is measured beside: each in an environment of its own, with what stood between it and its host.

Runs as: `make bench`, root.
Reads from strangers: nothing; what they print when they do not start is quoted in one line.
A peer that is missing or does not start is named in the table with the reason. Left out, it would look like won.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import ROOT, BenchmarkError, Endpoint, bare_aiohttp, server

ENVIRONMENTS = ROOT / ".venv-peers"
COMPAT = ROOT / ".venv-compat"
"""RunAgent's own client and server: `make compat` uses it, too."""
FASTAPI, GRANIAN = "FastAPI on uvicorn", "FastAPI on granian"
LITSERVE, BENTOML, RUNAGENT, AIOHTTP = "LitServe", "BentoML", "RunAgent's own server", "aiohttp, bare"
BWRAP, RUNC, SANDLOCK, FLOOR = "bubblewrap, true", "runc, python3", "sandlock, true", "the namespaces alone (C), true"
_IN_PROCESS = "none: the function runs in the process that reads the network"
_NOTHING = "nothing"
_REASON_CHARACTERS = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One of them."""

    name: str
    version: str
    isolation: str
    """what stands between the function and its host"""
    protections: str
    """what was on while it was measured"""
    missing: str = ""
    """why it cannot be measured; empty where it can"""

    def as_row(self) -> dict[str, str]:
        """For the result."""
        return dataclasses.asdict(self)


OURS = (
    Peer(
        name="runagentd", version="this checkout",
        isolation="a process with a uid, a root, a cgroup, namespaces, a seccomp filter and Landlock rules of its own; "
        "no capability, no network",
        protections="token, scopes, check of arguments and result, deadline, record, history, metrics; policy base",
    ),
    Peer(
        name=AIOHTTP, version="as in requirements.lock", isolation=_IN_PROCESS, protections=_NOTHING,
    ),
)  # fmt: skip


def python(environment: str) -> Path:
    """The interpreter of a peer's environment; BenchmarkError, with pip's last word, where it is not there."""
    folder = ENVIRONMENTS / environment
    if not (folder / ".installed").exists():
        why = folder / "why"
        said = why.read_text(encoding="utf-8", errors="replace") if why.exists() else ""
        raise BenchmarkError(f"not installed: {last_line(said) or 'make .venv-peers installs it'}")
    return folder / "bin" / "python"


def last_line(text: str) -> str:
    """The last thing that a program said, short enough for a table; folders of this machine are no part of it."""
    lines = [line.strip() for line in text.replace(f"{ROOT}/", "").splitlines() if line.strip()]
    return lines[-1][:_REASON_CHARACTERS] if lines else ""


def _version(folder: Path, package: str) -> str:
    """From the name of its metadata (PEP 427)."""
    for found in folder.glob(f"lib/python3*/site-packages/{package}-*.dist-info"):
        return found.name.removeprefix(f"{package}-").removesuffix(".dist-info")
    return "?"


# ---- servers


@contextlib.contextmanager
def fastapi() -> Iterator[Endpoint]:
    """FastAPI on uvicorn as its documentation deploys it on one processor: uvloop, httptools, one worker, no log."""
    options = ("--loop", "uvloop", "--http", "httptools", "--workers", "1", "--no-access-log", "--log-level", "warning")
    command = [
        str(python("fastapi")), "-m", "uvicorn", "benchmarks.servers.fastapi_echo:app", *options,
        "--host", "127.0.0.1", "--port", "{port}",
    ]  # fmt: skip
    with server(FASTAPI, command) as endpoint:
        yield endpoint


@contextlib.contextmanager
def granian() -> Iterator[Endpoint]:
    """The same application on granian's server, one worker."""
    command = [
        str(python("fastapi")), "-m", "granian", "--interface", "asgi", "--loop", "uvloop", "--workers", "1",
        "--no-access-log", "--log-level", "warning", "--host", "127.0.0.1", "--port", "{port}",
        "benchmarks.servers.fastapi_echo:app",
    ]  # fmt: skip
    with server(GRANIAN, command) as endpoint:
        yield endpoint


@contextlib.contextmanager
def litserve() -> Iterator[Endpoint]:
    """LitServe, one API server and one worker, without batches."""
    command = [str(python("litserve")), "-m", "benchmarks.servers.litserve_echo", "--port", "{port}"]
    with server(LITSERVE, command) as endpoint:
        yield endpoint


@contextlib.contextmanager
def bentoml() -> Iterator[Endpoint]:
    """BentoML as `bentoml serve` starts it, in production mode, with one worker."""
    with tempfile.TemporaryDirectory(prefix="runagentd-bench-") as home:
        command = [
            str(python("bentoml")), "-m", "bentoml", "serve", "benchmarks.servers.bentoml_echo:Echo",
            "--host", "127.0.0.1", "--port", "{port}",
        ]  # fmt: skip
        environment = {"BENTOML_HOME": home, "BENTOML_DO_NOT_TRACK": "True", "PYTHONPATH": str(ROOT)}
        with server(BENTOML, command, environment=environment) as endpoint:
            yield endpoint


RUNAGENT_ID = "00000000-0000-4000-8000-0000000000be"


@contextlib.contextmanager
def runagent() -> Iterator[Endpoint]:
    """RunAgent's own server, `runagent serve`, with a folder of the form that its loader wants."""
    program = COMPAT / "bin" / "runagent"
    if not (COMPAT / ".runagent").exists():
        raise BenchmarkError("not installed: make .venv-compat/.runagent installs it")
    with tempfile.TemporaryDirectory(prefix="runagentd-bench-") as place:
        folder = Path(place) / "agent"
        folder.mkdir()
        shutil.copy(ROOT / "benchmarks" / "agents" / "echo" / "echo.py", folder)
        shutil.copy(ROOT / "benchmarks" / "agents" / "counting" / "counting.py", folder)
        (folder / "runagent.config.json").write_text(json.dumps(_runagent_config()), encoding="utf-8")
        environment = {
            "HOME": place, "RUNAGENT_CACHE_DIR": f"{place}/cache", "DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1",
            "RUNAGENT_LOGGING_LEVEL": "ERROR", "RUNAGENT_API_KEY": "", "NO_COLOR": "1",
        }  # fmt: skip
        register = subprocess.run(
            [str(program), "config", "--register-agent", str(folder)], cwd=place, env={**os.environ, **environment},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        if register.returncode != 0:
            raise BenchmarkError(f"runagent config: {last_line(register.stdout + register.stderr)}")
        command = [str(program), "serve", str(folder), "--host", "127.0.0.1", "--port", "{port}"]
        path = f"/api/v1/agents/{RUNAGENT_ID}/run"
        with server(RUNAGENT, command, path=path, wrap=runagent_body, environment=environment, slow=True) as endpoint:
            yield endpoint


def runagent_body(text: str) -> bytes:
    """A call in RunAgent's protocol."""
    return json.dumps({"entrypoint_tag": "echo", "input_args": [], "input_kwargs": {"text": text}}).encode()


def _runagent_config() -> dict[str, object]:
    return {
        "agent_name": "echo", "description": "The trivial function", "framework": "default", "template": "",
        "version": "1.0.0", "created_at": "2026-01-01T00:00:00", "agent_id": RUNAGENT_ID,
        "template_source": {"repo_url": "", "author": "", "path": ""},
        "agent_architecture": {"entrypoints": [
            {"file": "echo.py", "module": "echo", "tag": "echo"},
            {"file": "counting.py", "module": "count_stream", "tag": "count_stream"},
        ]},
        "env_vars": {}, "auth_settings": {"type": "none"},
    }  # fmt: skip


SERVERS: tuple[tuple[str, str, Callable[[], AbstractContextManager[Endpoint]]], ...] = (
    (FASTAPI, _IN_PROCESS, fastapi),
    (GRANIAN, _IN_PROCESS, granian),
    (LITSERVE, "a worker process of the same user, over a queue", litserve),
    (BENTOML, _IN_PROCESS, bentoml),
    (RUNAGENT, _IN_PROCESS, runagent),
    (AIOHTTP, _IN_PROCESS, bare_aiohttp),
)


def start_all(
    stack: contextlib.ExitStack, names: Sequence[str], progress: Callable[[str], None]
) -> tuple[dict[str, Endpoint], dict[str, str]]:
    """Those servers that start, and why the others do not."""
    there: dict[str, Endpoint] = {}
    missing: dict[str, str] = {}
    for name, _, start in SERVERS:
        if name in names:
            progress(f"starting {name}")
            try:
                there[name] = stack.enter_context(start())
            except BenchmarkError as error:
                missing[name] = last_line(str(error))
    return there, missing


# ---- sandboxes


def floor(folder: Path) -> Path:
    """The C program that makes the namespaces and nothing else, compiled into `folder`."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise BenchmarkError("no C compiler; apt-get install gcc libc6-dev")
    program = folder / "floor"
    source = ROOT / "benchmarks" / "floor.c"
    command = [compiler, "-O2", "-o", str(program), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchmarkError(f"cc: {last_line(done.stderr)}")
    return program


BWRAP_COMMAND = (
    "bwrap", "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--die-with-parent",
    "--", "/usr/bin/true",
)  # fmt: skip


def runc_bundle(folder: Path) -> list[str]:
    """A container in `folder` that imports what our agent imports, as a command; "{id}" has to be filled in.

    Its root is the host's runtime, read-only, in the namespaces that `runc spec` gives, without a terminal.
    """
    if shutil.which("runc") is None:
        raise BenchmarkError("not installed; apt-get install runc")
    bundle, rootfs = folder / "bundle", folder / "bundle" / "rootfs"
    rootfs.mkdir(parents=True)
    # A configuration of its own, as `runc spec` writes it: what it has by default stays as it is.
    subprocess.run(["runc", "spec", "--bundle", str(bundle)], check=True, capture_output=True)
    path = bundle / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    interpreter = os.path.realpath(sys.executable)
    config["process"]["terminal"] = False
    config["process"]["args"] = [interpreter, "-S", "-c", "import asyncio, json"]
    wanted = ("/usr", "/lib", "/lib64", "/bin", "/etc", sys.base_prefix)
    folders = sorted({os.path.realpath(each) for each in wanted if os.path.exists(each)})
    for each in wanted:
        if os.path.islink(each):  # /lib and others are links into /usr where that is merged
            (rootfs / each.lstrip("/")).symlink_to(os.readlink(each))
    config["mounts"] += [
        {"destination": each, "source": each, "type": "bind", "options": ["rbind", "ro"]}
        for each in folders
        if not any(each != other and each.startswith(f"{other}/") for other in folders)
    ]
    path.write_text(json.dumps(config), encoding="utf-8")
    return ["runc", "--root", str(folder / "state"), "run", "--bundle", str(bundle), "{id}"]


def known(missing: dict[str, str]) -> list[Peer]:
    """All of them, ourselves first, for the column that says what is not equal."""
    environments = {
        FASTAPI: ("fastapi", ("fastapi", "uvicorn")), GRANIAN: ("fastapi", ("fastapi", "granian")),
        LITSERVE: ("litserve", ("litserve",)), BENTOML: ("bentoml", ("bentoml",)),
        SANDLOCK: ("sandlock", ("sandlock",)),
    }  # fmt: skip
    found = list(OURS)

    def add(name: str, isolation: str, protections: str) -> None:
        environment, packages = environments.get(name, ("", ()))
        folder = ENVIRONMENTS / environment if environment else COMPAT
        texts = [f"{package} {_version(folder, package)}" for package in packages or ("runagent",)]
        found.append(
            Peer(
                name=name, version=", ".join(texts), isolation=isolation, protections=protections,
                missing=missing.get(name, ""),
            )
        )  # fmt: skip

    for name, isolation, _ in SERVERS:
        if name != AIOHTTP:
            add(name, isolation, _NOTHING)
    for name, version, isolation, protections in (
        (BWRAP, _says("bwrap", "--version"), "namespaces and mounts; no cgroup, no filter, all of the host readable",
         "no interpreter, no answer: it ends where ours begins"),
        (RUNC, _says("runc", "--version"), "namespaces, mounts, cgroup, capabilities; no filter in `runc spec`",
         "imports asyncio and json; no answer"),
        (FLOOR, "benchmarks/floor.c", "namespaces; the host's mounts and files as they are",
         "the least that can be paid"),
    ):  # fmt: skip
        found.append(
            Peer(
                name=name, version=version, isolation=isolation, protections=protections, missing=missing.get(name, "")
            )
        )
    add(SANDLOCK, "Landlock and a seccomp filter; no namespaces, no cgroup, no other uid", "no interpreter, no answer")
    return found


def _says(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return "–"
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    return " ".join(done.stdout.split()[:3])
