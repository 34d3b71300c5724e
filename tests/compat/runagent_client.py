"""A RunAgent client in a process of its own, driven by tests: PyPI's `runagent`, which is client.py in .venv-compat.

Any other program that speaks as client.py does may take its place: rust.py brings one.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.system.daemon import ROOT, Daemon

PYTHON = Path(os.environ.get("RUNAGENTD_COMPAT_PYTHON") or ROOT / ".venv-compat/bin/python")


class RunAgent:
    """One process; each call makes a client object of its own, as users of the library do."""

    def __init__(self, process: subprocess.Popen[str], log: Path, url: str, token: str) -> None:
        self._process = process
        self._log = log
        self._url = url
        self._token = token

    def run(
        self,
        agent: str,
        tag: str,
        *args: object,
        url: str | None = None,
        token: str | None = "the daemon's own",
        take: int | None = None,
        **kwargs: object,
    ) -> dict[str, Any]:
        """What client.py answers; Any: JSON."""
        request = {
            "agent": agent,
            "tag": tag,
            "args": args,
            "kwargs": kwargs,
            "base_url": url or self._url,
            "api_key": self._token if token == "the daemon's own" else token,
            "take": take,
        }
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError("the client has no pipes")
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(request), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait(10)
            raise AssertionError(f"the client ended with status {status}:\n{self._log.read_text()[-2000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def result(self, agent: str, tag: str, *args: object, **kwargs: object) -> Any:
        """The result of a call that must succeed."""
        answer = self.run(agent, tag, *args, **kwargs)  # type: ignore[arg-type]  # a call's own keywords
        assert "error" not in answer, answer
        return answer["result"]

    def chunks(self, agent: str, tag: str, *args: object, **kwargs: object) -> list[Any]:
        """The chunks of a stream that must end well."""
        answer = self.run(agent, tag, *args, **kwargs)  # type: ignore[arg-type]  # a call's own keywords
        assert "error" not in answer, answer
        chunks: list[Any] = answer["chunks"]
        return chunks

    def error(self, agent: str, tag: str, *args: object, **kwargs: object) -> dict[str, Any]:
        """The error of a call that must fail: always the one class that this client knows."""
        answer = self.run(agent, tag, *args, **kwargs)  # type: ignore[arg-type]  # a call's own keywords
        error: dict[str, Any] = answer["error"]
        assert error.pop("type") == "RunAgentExecutionError"
        return error


@contextlib.contextmanager
def runagent_client(daemon: Daemon, folder: Path, command: Sequence[str | Path] = ()) -> Iterator[RunAgent]:
    """A client for `daemon`, with `folder` as its cache directory and home."""
    if not command and not PYTHON.exists():
        pytest.skip("needs .venv-compat: make compat")
    environment = {
        # Nothing else of ours: a proxy or a key of the person who runs the tests must not reach it.
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(folder),
        "RUNAGENT_CACHE_DIR": str(folder),
        "LANG": "C.UTF-8",
        # The library imports GitPython, which refuses to be imported where there is no git.
        "GIT_PYTHON_REFRESH": "quiet",
    }
    log = folder / "client.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command or (PYTHON, Path(__file__).with_name("client.py")),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=folder,
            env=environment,
        )
    try:
        yield RunAgent(process, log, daemon.url, daemon.token)
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(BrokenPipeError):
                if pipe is not None:
                    pipe.close()


def same(left: object, right: object) -> bool:
    """Equal, and of the same types throughout: 1, 1.0 and True are three values."""
    return json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)
