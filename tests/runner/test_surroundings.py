"""The agent finds a plain Python: nothing of the runner, its own modules first, its own environment."""

from __future__ import annotations

import pytest

from tests.runner.driver import Launch

RAISES = "raise RuntimeError('the runner imported ' + __name__)"
USED_BY_THE_RUNNER = (
    "ast", "asyncio", "collections", "contextlib", "contextvars", "dataclasses", "datetime", "decimal", "difflib",
    "enum", "fcntl", "functools", "importlib", "inspect", "json", "linecache", "pathlib", "queue", "re", "selectors",
    "signal", "socket", "string", "struct", "threading", "tokenize", "traceback", "types", "typing", "uuid", "warnings",
    "weakref",
)  # fmt: skip


def test_nothing_of_the_runner_shows(agent: Launch) -> None:
    """No module, no path, no argument, no frame."""
    runner = agent(
        """
        import sys, os
        def look():
            return {
                "modules": [name for name in sys.modules if "runagentd" in name],
                "path": [entry for entry in sys.path if os.path.exists(os.path.join(entry, "runagentd"))],
                "argv": sys.argv + sys.orig_argv,
                "main": sorted(vars(sys.modules["__main__"])),
                "environment": dict(os.environ),
                "here": os.getcwd() == os.path.dirname(__file__),
            }
        """,
        "look",
        environment={"OPENAI_API_KEY": "sk-1", "HOME": "/home/me"},
    )
    assert runner.call("look").value == {
        "modules": [],
        "path": [],
        "argv": ["main.py", "python3", "main.py"],
        "main": ["__builtins__", "__doc__", "__loader__", "__name__", "__package__", "__spec__"],
        "environment": {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": "/home/me",
            "LANG": "C.UTF-8",
            "TMPDIR": "/tmp",
            "USER": "agent",
            "OPENAI_API_KEY": "sk-1",
        },
        "here": True,
    }


def test_an_agents_own_module_wins_over_the_standard_librarys(agent: Launch) -> None:
    """As `python3 main.py` would have it; and the runner, which uses json, goes on working."""
    runner = agent(
        {
            "main.py": """
                import json, queue
                def run(x: int): return [json.MINE, queue.MINE, x]
                def fail(): raise ValueError("still told")
            """,
            "json.py": "MINE = 'own json'",
            "queue/__init__.py": "MINE = 'own queue'",
        },
        "run",
        "fail",
    )
    assert runner.call("run", "7").value == ["own json", "own queue", 7]
    assert runner.call("fail").header["message"] == "still told"


@pytest.mark.parametrize("concurrency", [1, 2])
def test_the_runner_imports_nothing_once_the_agents_folder_is_on_the_path(agent: Launch, concurrency: int) -> None:
    """An agent whose folder has a module for each that the runner uses, which raises when imported."""
    runner = agent(
        {
            **{f"{name}.py": RAISES for name in USED_BY_THE_RUNNER},
            "main.py": """
                def plain(x: int | None, y: dict[str, list[int]] = {}) -> float: return x
                async def later(x: int): return x
                def items():
                    yield 1
                    raise KeyError("odd")
                async def later_items():
                    yield {"a": float("nan")}
                class Odd: pass
                def odd(): return [Odd(), {1: 2}, b"x"]
                def refused(): return object()
            """,
        },
        "plain", "later", "items", "later_items", "odd", "refused",
        concurrency=concurrency,
    )  # fmt: skip
    assert runner.call("plain", "7").value == 7
    assert runner.call("later", 8).value == 8
    assert runner.stream("items").chunks == [1]
    assert runner.stream("items").closing.body.decode().endswith("KeyError: 'odd'")
    assert runner.stream("later_items").chunks == [{"a": None}]
    assert runner.call("odd").value == [{}, {"1": 2}, "78"]
    assert runner.call("refused").header["kind"] == "unserialisable"
    assert runner.call("plain", "x").header["pointer"] == "/input_args/0"
    assert runner.call("plain", z=1).header["pointer"] == "/input_kwargs/z"
    waiting = runner.gateway.send_call("items", [], {}, mode="stream", credits=0)
    runner.gateway.cancel(waiting)
    assert runner.gateway.finish(waiting).header["kind"] == "cancelled"


def test_an_agent_may_take_functions_away_that_the_runner_uses(agent: Launch) -> None:
    """As gevent does with select.poll when it patches the standard library."""
    runner = agent("import select\ndel select.poll\ndef run(): return hasattr(select, 'poll')", "run")
    assert runner.call("run").value is False


def test_a_namespace_folder_does_not_shadow_a_module(agent: Launch) -> None:
    """A folder `json/` with data in it is no module; the standard library's is found, as in plain Python."""
    runner = agent({"main.py": "import json\ndef run(): return json.dumps([1])", "json/data.txt": "x"}, "run")
    assert runner.call("run").value == "[1]"


def test_an_agent_that_imports_asyncio_gets_the_one_whose_loop_runs_it(agent: Launch) -> None:
    """Locks, tasks and clients of the agent's belong to the loop that its functions run in."""
    runner = agent(
        """
        import asyncio
        lock = asyncio.Lock()
        async def run():
            async with lock:
                return await asyncio.create_task(asyncio.sleep(0, "done"))
        """,
        "run",
    )
    assert [runner.call("run").value for _ in range(3)] == ["done"] * 3


def test_a_venvs_packages_are_found_after_the_standard_library(agent: Launch) -> None:
    """As in the venv itself: a backport named like a module of the library does not break it. `.pth` files work."""
    runner = agent(
        {
            "main.py": """
                import dataclasses, library, elsewhere
                def run(): return [library.NAME, elsewhere.NAME, hasattr(dataclasses, "BACKPORT")]
            """,
            "venv/library.py": "NAME = 'venv'",
            "venv/dataclasses.py": "BACKPORT = True",
            "venv/more.pth": "other",
            "venv/other/elsewhere.py": "NAME = 'by pth'",
        },
        "run",
        import_paths=("venv",),
    )
    assert runner.call("run").value == ["venv", "by pth", False]


def test_print_reaches_the_pipe_line_by_line_and_input_is_at_its_end(agent: Launch) -> None:
    """Text that UTF-8 cannot hold is escaped, not an error; exit() exists."""
    runner = agent(
        """
        import sys
        print("imported")
        def run():
            print("héllo", end="")
            print("\\ud800", file=sys.stderr)
            try:
                input("? ")
            except EOFError:
                return "eof"
        def leave(): exit(3)
        """,
        "run",
        "leave",
    )
    assert runner.output() == "imported\n"
    assert runner.call("run").value == "eof"
    assert runner.output() == "héllo? "
    assert runner.output("stderr") == "\\ud800\n"
    assert runner.call("leave").header == {"kind": "exception", "message": "3", "type": "SystemExit"}


def test_the_agents_time_zone_is_set_from_its_environment(agent: Launch) -> None:
    """TZ takes effect without a call of tzset()."""
    runner = agent("import time\ndef run(): return time.tzname[0]", "run", environment={"TZ": "XYZ-3"})
    assert runner.call("run").value == "XYZ"
