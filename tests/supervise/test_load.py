"""The loader as a process: what it gives up before it reads, and what is believed of what it says."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runagentd.loader import confine
from runagentd.supervise import load as loading
from runagentd.wire import record
from runagentd.wire.manifest import Entrypoint, LoadProblem, LoadReport, Manifest, Variable
from tests.loader.folders import SHORT

UID = 1879113700  # in the last block of the range: no daemon on a build machine leases it


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "snapshot"
    path.mkdir(mode=0o755)
    (path / "main.py").write_text("def run(): ...\n")
    (path / "runagent.config.json").write_text(json.dumps(SHORT))
    os.chmod(tmp_path, 0o700)  # a state directory is private; the loader has a descriptor
    return path


def run_loader(folder: Path, *, seconds: float = 10) -> LoadReport:
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        return asyncio.run(loading.load(descriptor, uid=UID, gid=UID, seconds=seconds))
    finally:
        os.close(descriptor)


@pytest.mark.root
@pytest.mark.kernel
def test_a_folder_becomes_a_manifest(folder: Path) -> None:
    report = run_loader(folder)
    assert report.problems == ()
    assert report.manifest is not None
    assert report.manifest.agent_name == "demo"


@pytest.mark.root
@pytest.mark.kernel
def test_yaml_and_a_byte_order_mark_need_nothing_that_is_out_of_reach(folder: Path) -> None:
    """Codecs and parsers are imported before the files are out of reach."""
    (folder / "runagent.config.json").unlink()
    content = b"\xef\xbb\xbfagent_name: d\xc3\xa9mo\nentrypoints: [{file: main.py, module: run, tag: main}]\n"
    (folder / "runagent.config.yml").write_bytes(content)
    (folder / ".env").write_bytes(b"\xef\xbb\xbfA=1")
    report = run_loader(folder)
    assert report.manifest is not None
    assert report.manifest.agent_name == "démo"
    assert report.manifest.environment == (Variable(name="A", value="1"),)


@pytest.mark.root
@pytest.mark.kernel
def test_problems_come_back_as_they_were_written(folder: Path) -> None:
    (folder / "runagent.config.json").write_text("{")
    report = run_loader(folder)
    assert [problem.where for problem in report.problems] == ["runagent.config.json"]


@pytest.mark.root
@pytest.mark.kernel
def test_a_link_out_of_the_folder_is_not_read(folder: Path) -> None:
    """A snapshot has none; the loader does not count on it."""
    (folder / "runagent.config.json").unlink()
    (folder / "runagent.config.json").symlink_to("/etc/passwd")
    assert run_loader(folder).problems[0].what == "the folder has no such file (nor .yaml or .yml)"


@pytest.mark.root
@pytest.mark.kernel
def test_a_loader_that_takes_too_long_is_killed(folder: Path) -> None:
    report = run_loader(folder, seconds=0.001)
    assert report.problems[0].what == "loading the agent's configuration took more than 0.001 s"


# What a taken-over loader could do: run in a process that has confined itself exactly as the loader does.
_PROBE = """
import errno, os, socket, sys
sys.path[:0] = sys.argv[1:2]
from runagentd.loader import confine
folder, report = int(sys.argv[2]), 1
confine.confine(folder, report, uid={uid}, gid={uid})
def attempt(name, function):
    try:
        function()
        result = "done"
    except OSError as error:
        result = errno.errorcode[error.errno]
    os.write(report, f"{{name}} {{result}}\\n".encode())
attempt("read-own", lambda: os.close(os.open("main.py", os.O_RDONLY, dir_fd=folder)))
attempt("list-own", lambda: os.listdir(folder))
attempt("write-own", lambda: os.open("new", os.O_WRONLY | os.O_CREAT, dir_fd=folder))
attempt("host-file", lambda: os.open("/etc/hostname", os.O_RDONLY))
attempt("above", lambda: os.open("../outside", os.O_RDONLY, dir_fd=folder))
attempt("proc", lambda: os.open("/proc/self/status", os.O_RDONLY))
attempt("fork", os.fork)
attempt("connect", lambda: socket.socket().connect(("127.0.0.1", 22)))
attempt("become-root", lambda: os.setuid(0))
attempt("other-descriptors", lambda: os.fstat(int(sys.argv[3])))
try:
    bytearray(600 << 20)
except MemoryError:
    os.write(report, b"600-mib MemoryError\\n")
"""


@pytest.mark.root
@pytest.mark.kernel
def test_a_confined_loader_can_read_the_folder_and_nothing_else(folder: Path) -> None:
    (folder.parent / "outside").write_text("x")
    package = str(Path(confine.__file__).parent.parent.parent)
    read, other = os.open(folder, os.O_RDONLY), os.open("/etc/hostname", os.O_RDONLY)
    code = _PROBE.format(uid=UID)
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, package, str(read), str(other)],
        pass_fds=[read, other], env={}, capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    os.close(read)
    os.close(other)
    assert done.stdout.splitlines() == [
        "read-own done",
        "list-own done",
        "write-own EACCES",
        "host-file ENOENT",
        "above ENOENT",
        "proc ENOENT",
        "fork EAGAIN",
        "connect EACCES",
        "become-root EPERM",
        "other-descriptors EBADF",
        "600-mib MemoryError",
    ]


_CONFINED = """\
Uid:\t7\t7\t7\t7
Gid:\t7\t7\t7\t7
Groups:\t
NoNewPrivs:\t1
Threads:\t1
CapInh:\t0000000000000000
CapPrm:\t0000000000000000
CapEff:\t0000000000000000
CapBnd:\t0000000000000000
CapAmb:\t0000000000000000
"""


def test_a_status_as_it_must_be_is_accepted() -> None:
    confine.look(_CONFINED, uid=7, gid=7)


@pytest.mark.parametrize(
    ("line", "instead", "expected"),
    [
        ("Uid:\t7\t7\t7\t7", "Uid:\t7\t0\t7\t7", "Uid is 7 0 7 7"),
        ("Gid:\t7\t7\t7\t7", "Gid:\t7\t7\t7\t0", "Gid is 7 7 7 0"),
        ("Groups:\t", "Groups:\t0 27", "Groups is 0 27"),
        ("NoNewPrivs:\t1", "NoNewPrivs:\t0", "NoNewPrivs is 0"),
        ("Threads:\t1", "Threads:\t2", "Threads is 2"),
        ("CapBnd:\t0000000000000000", "CapBnd:\t0000000000000080", "CapBnd is 0000000000000080"),
        ("CapEff:\t0000000000000000", "", "CapEff is missing"),
    ],
)
def test_a_loader_that_kept_something_ends_before_it_reads(line: str, instead: str, expected: str) -> None:
    with pytest.raises(confine.NotConfined, match=expected):
        confine.look(_CONFINED.replace(line, instead), uid=7, gid=7)


def a_manifest(**changes: object) -> Manifest:
    fields: dict[str, object] = {
        "agent_id": "a", "agent_name": "a", "description": "", "framework": "", "version": "",
        "entrypoints": (Entrypoint(tag="t", file="main.py", module="run"),),
        "environment": (), "persistent_folders": (), "import_paths": (), "requirements": (), "hints": (),
    }  # fmt: skip
    return Manifest(**{**fields, **changes})  # type: ignore[arg-type]  # a test may give any field anything


def test_a_right_report_is_believed() -> None:
    report = LoadReport(manifest=a_manifest(), problems=())
    assert loading.parse_report(record.encode(report)) == report


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"environment": (Variable(name="A=B", value=""),)}, "the name of a variable"),
        ({"environment": (Variable(name="A", value="\0"),)}, "a NUL in a variable"),
        ({"environment": (Variable(name="A", value=""),) * 2}, "a variable stands twice"),
        ({"environment": (Variable(name="A", value="x" * 40_000),)}, "the size of the variables"),
        ({"entrypoints": (Entrypoint(tag="t", file="main.so", module="run"),)}, "an entrypoint's file"),
        ({"entrypoints": (Entrypoint(tag="\n", file="main.py", module="run"),)}, "an entrypoint's tag"),
        ({"entrypoints": (Entrypoint(tag="t", file="main.py", module="a;b"),)}, "an entrypoint's module"),
        ({"persistent_folders": ("a", "a/b")}, "folders within each other"),
        ({"persistent_folders": ("a", "a")}, "folders within each other"),
        ({"persistent_folders": (".venv",), "import_paths": (".venv/lib",)}, "folders within each other"),
        ({"persistent_folders": tuple(f"f{n}" for n in range(33))}, "the number of persistent folders"),
        ({"import_paths": ("a", "b", "c", "d", "e")}, "the number of import paths"),
        ({"hints": ("\x1b[2J",)}, "a hint"),
    ],
)
def test_a_manifest_that_the_loader_would_not_have_made_is_not_believed(
    changes: dict[str, object], expected: str
) -> None:
    report = loading.parse_report(record.encode(LoadReport(manifest=a_manifest(**changes), problems=())))
    assert report.manifest is None
    assert report.problems[0].what == f"the loader's report is not one: {expected}"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "the loader ended without a report"),
        (b"\xff" * 10, "the loader's report is not one"),
        (b"\0" * 70_000, "the loader's report is not one"),
        (record.encode(LoadReport(manifest=None, problems=())), "the loader gave no reason"),
        (record.encode(LoadReport(manifest=a_manifest(), problems=(LoadProblem(where="", what=""),))),
         "the loader's report is not one: problems beside a manifest"),
    ],
)  # fmt: skip
def test_what_is_not_a_report_is_said_to_be_none(content: bytes, expected: str) -> None:
    assert loading.parse_report(content).problems[0].what == expected


def test_a_problem_cannot_write_to_the_operators_terminal() -> None:
    problem = LoadProblem(where="\x1b]0;x\x07", what="a\rb", hints=("\x9b2J",))
    (shown,) = loading.parse_report(record.encode(LoadReport(manifest=None, problems=(problem,)))).problems
    assert (shown.where, shown.what, shown.hints) == ("?]0;x?", "a?b", ("?2J",))
