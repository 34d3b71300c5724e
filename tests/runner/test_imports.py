"""The import rules that RunAgent's agents rely on, and what their authors are told when an import fails."""

from __future__ import annotations

from tests import tried
from tests.runner.driver import Launch

PYTHON = tried.VERSION


def test_relative_and_absolute_imports_of_a_sibling_give_the_same_module(agent: Launch) -> None:
    """`from .tool import x` works without a package, and a file is executed once whatever it is called."""
    runner = agent(
        {
            "main.py": """
                from .tool import work
                import tool
                from . import tool as again
                def same(): return [tool is again, tool.work is work, tool.__name__]
            """,
            "tool.py": """
                from .deeper import times
                times.append(1)
                def work(): return times
            """,
            "deeper.py": "times = []",
        },
        "same",
        "work=tool.py:work",
    )
    assert runner.call("same").value == [True, True, "tool"]
    assert runner.call("work").value == [1]


def test_an_entry_file_below_the_folder_imports_its_neighbours_and_its_parents(agent: Launch) -> None:
    """Its own folder is on sys.path, and relative imports may climb to the agent's folder."""
    runner = agent(
        {
            "src/main.py": """
                import neighbour
                from .neighbour import here
                from ..shared.text import greet
                import shared.text
                def run(): return [greet(), neighbour.here() == here(), shared.text.greet is greet]
            """,
            "src/neighbour.py": "def here(): return 1",
            "shared/text.py": "def greet(): return 'hi'",
        },
        "run",
        file="src/main.py",
    )
    assert runner.call("run").value == ["hi", True, True]


def test_a_package_with_an_init_is_itself(agent: Launch) -> None:
    """Its relative imports, and relative imports of it, lead to one module."""
    runner = agent(
        {
            "main.py": """
                from .pkg import VALUE
                from .pkg.inner import inner
                import pkg.inner
                from .pkg.inner import inner as again
                def run(): return [VALUE, inner(), pkg.inner is inner, again is inner, inner.__module__]
            """,
            "pkg/__init__.py": "from .inner import inner\nfrom ..main import __name__ as _\nVALUE = inner() + 1",
            "pkg/inner.py": "def inner(): return 1",
        },
        "run",
    )
    assert runner.call("run").value == [2, 1, True, True, "pkg.inner"]


def test_the_folder_may_be_a_package(agent: Launch) -> None:
    """Its __init__.py is what `from . import` finds."""
    runner = agent(
        {"__init__.py": "NAME = 'whole'", "main.py": "from . import NAME\ndef run(): return NAME"},
        "run",
    )
    assert runner.call("run").value == "whole"


def test_two_entrypoints_of_one_file_share_its_state(agent: Launch) -> None:
    """A file is imported once for all its entrypoints."""
    runner = agent(
        "seen = []\ndef add(x): seen.append(x)\ndef all(): return seen",
        "add",
        "all",
    )
    runner.call("add", 1)
    assert runner.call("all").value == [1]


def test_circular_relative_imports_work_as_in_a_package(agent: Launch) -> None:
    """The module that is being imported is the one that the other one gets."""
    runner = agent(
        {
            "main.py": "from . import other\nX = 1\ndef run(): return other.ask()",
            "other.py": "from . import main\ndef ask(): return main.X",
        },
        "run",
    )
    assert runner.call("run").value == 1


def test_dotted_names_reach_methods_of_objects(agent: Launch) -> None:
    """`app.invoke` is an attribute of an object in the file, bound methods and callable objects included."""
    runner = agent(
        """
        class App:
            def __init__(self): self.calls = 0
            def invoke(self, x: int): self.calls += x; return self.calls
            def __call__(self, x: int): return -x
        app = App()
        """,
        "invoke=main.py:app.invoke",
        "object=main.py:app",
    )
    assert runner.call("invoke", 2).value == 2
    assert runner.call("invoke", "3").value == 5
    assert runner.call("object", 3).value == -3


def test_names_that_no_import_could_say(agent: Launch) -> None:
    """A file with a dash, one named like a built-in module, one named __main__."""
    runner = agent(
        {
            "my-agent.py": "def a(): return __name__",
            "time.py": "def b(): return __name__\ndef c():\n    import time\n    return time.time() > 0",
            "__main__.py": "def d(): return __name__",
        },
        "a=my-agent.py:a",
        "b=time.py:b",
        "c=time.py:c",
        "d=__main__.py:d",
    )
    assert runner.call("a").value == "__agent__.my_agent"
    assert runner.call("b").value == "__agent__.time"
    assert runner.call("c").value is True
    assert runner.call("d").value == "__agent__.__main__"


def test_a_file_that_the_agent_has_loaded_itself_is_not_executed_again(agent: Launch) -> None:
    """Under whatever name it is in sys.modules."""
    runner = agent(
        {
            "main.py": """
                import importlib.util, os, sys
                path = os.path.join(os.path.dirname(__file__), "other.py")
                spec = importlib.util.spec_from_file_location("odd", path)
                sys.modules["odd"] = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(sys.modules["odd"])
                def run(): return sys.modules["odd"].times
            """,
            "other.py": "import builtins\ntimes = getattr(builtins, 'times', 0) + 1\nbuiltins.times = times\n"
            "def name(): return [__name__, times]",
        },
        "run",
        "name=other.py:name",
    )
    assert runner.call("run").value == 1
    assert runner.call("name").value == ["odd", 1]


def test_all_problems_of_all_entrypoints_are_told_at_once(agent: Launch) -> None:
    """Tag, place, what and a hint for each; a missing function gets a suggestion."""
    runner = agent(
        {
            "main.py": "def summarise(): ...\nclass App:\n    def invoke(self): ...\napp = object()\nvalue = 1",
            "broken.py": "def f(:\n    pass",
            "needs.py": "import nowhere_at_all",
        },
        "a=main.py:sumarize_",
        "b=main.py:value",
        "c=broken.py:f",
        "d=needs.py:f",
        "e=main.py:print_",
        "f=main.py:summarise",
    )
    problems = {problem["tag"]: problem for problem in runner.problems}
    assert set(problems) == {"a", "b", "c", "d", "e"}
    assert problems["a"]["where"] == "main.py: sumarize_"
    assert problems["a"]["what"] == "there is no 'sumarize_' in main.py"
    assert problems["a"]["hints"] == ["did you mean 'summarise'?"]
    assert problems["b"]["what"] == "it is not a function but of type int"
    assert problems["c"]["what"].startswith("the import failed: SyntaxError: invalid syntax")
    assert 'broken.py", line 1\n    def f(:\n          ^\nSyntaxError: invalid syntax' in problems["c"]["traceback"]
    assert problems["d"]["what"] == "the import failed: ModuleNotFoundError: No module named 'nowhere_at_all'"
    assert problems["d"]["hints"] == [
        "write the package that has 'nowhere_at_all' into a requirements.txt in the agent's folder"
    ]
    assert not runner.is_ready(0.05)


def test_a_failing_import_shows_the_agents_frames_only(agent: Launch) -> None:
    """No frame of ours and none of importlib's stands between the agent's own."""
    runner = agent(
        {"main.py": "from . import second", "second.py": "def f():\n    return {}['KEY']\nf()"},
        "run",
    )
    trace = runner.problems[0]["traceback"]
    assert [line.split('"')[1].rpartition("/")[2] for line in trace.splitlines() if "File" in line] == [
        "main.py",
        "second.py",
        "second.py",
    ]
    assert trace.endswith("    return {}['KEY']\nKeyError: 'KEY'")
    (hint,) = runner.problems[0]["hints"]
    assert hint == "is it an environment variable? set it in 'env_vars' or in .env; the host's are not passed on"


def test_an_agent_that_exits_at_import_has_a_problem_and_not_an_end(agent: Launch) -> None:
    """sys.exit() at module level is reported like any failing import."""
    runner = agent("import sys\nsys.exit(3)", "run")
    assert runner.problems[0]["what"] == "the import failed: SystemExit: 3"
    assert runner.problems[0]["hints"] == [
        "an agent is imported, not run: put what ends the program under if __name__ == '__main__'"
    ]
    assert not runner.has_ended(0.1)
    assert runner.call("run").header == {"kind": "unknown_tag", "message": "there is no entrypoint 'run'"}


def test_a_signature_that_python_cannot_tell_is_a_problem(agent: Launch) -> None:
    """Some functions in C have none."""
    runner = agent("class T:\n    __signature__ = 3\n    def __call__(self): ...\nrun = T()", "run")
    assert runner.problems[0]["what"].startswith("its signature cannot be read: ")


def test_an_extractor_with_an_unknown_path_is_a_problem_at_load(agent: Launch) -> None:
    """A filter is not part of the subset."""
    runner = agent("def run(): ...", "run", extractor={"x": "$.a[?(@.b)]"})
    assert runner.problems[0]["what"] == "extractor: '$.a[?(@.b)]' cannot be read from '[?(@.b)]' on"


def test_a_hundred_huge_problems_fit_into_one_report(agent: Launch) -> None:
    """64 KiB, whatever an agent raises."""
    tags = [f"t{number}=main.py:f{number}" for number in range(200)]
    runner = agent("raise ValueError('x' * 1_000_000)", *tags)
    assert len(runner.report.body) <= 64 * 1024
    assert runner.problems[0]["what"].startswith("the import failed: ValueError: xxx")


def test_the_description_stays_below_its_limit(agent: Launch) -> None:
    """Documentation goes first, and then everything but the tags."""
    source = "\n".join(f"def f{n}(argument_{'x' * 80}: int):\n    '''{'doc ' * 500}'''" for n in range(200))
    runner = agent(source, *[f"t{number}=main.py:f{number}" for number in range(200)])
    assert len(runner.report.body) <= 64 * 1024
    assert len(runner.description["entrypoints"]) == 200


def test_the_description_tells_what_can_be_told_without_a_call(agent: Launch) -> None:
    """Parameters, documentation, and whether an entrypoint streams; null where only a call can tell."""
    runner = agent(
        """
        from collections.abc import AsyncIterator, Iterator
        def plain(a: int, *rest, k: "str" = "") -> dict:
            '''Do it.

            Well.
            '''
        async def asynchronous(): ...
        def generator(): yield 1
        async def asyncgen(): yield 1
        def annotated() -> Iterator[int]: return iter([1])
        async def coroutine() -> AsyncIterator[int]: ...
        def unknown(): ...
        """,
        "plain", "asynchronous", "generator", "asyncgen", "annotated", "coroutine", "unknown",
    )  # fmt: skip
    entrypoints = {one["tag"]: one for one in runner.description["entrypoints"]}
    assert entrypoints["plain"] == {
        "tag": "plain",
        "file": "main.py",
        "module": "plain",
        "parameters": [
            {"name": "a", "kind": "positional_or_keyword", "required": True, "type": "int"},
            {"name": "rest", "kind": "var_positional", "required": False, "type": None},
            {"name": "k", "kind": "keyword_only", "required": False, "type": "str", "default": '""'},
        ],
        "doc": "Do it.\n\nWell.",
        "streams": False,
        "asynchronous": False,
        "returns": "dict",
    }
    assert {tag: (one["asynchronous"], one["streams"]) for tag, one in entrypoints.items()} == {
        "plain": (False, False),
        "asynchronous": (True, None),
        "generator": (False, True),
        "asyncgen": (True, True),
        "annotated": (False, True),
        "coroutine": (True, True),
        "unknown": (False, None),
    }
