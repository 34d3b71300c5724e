"""What libraries do beside computing: each works under `base`, or is refused and works with the line that is named.

docs/frameworks.md has CASES as a table, word for word.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.frameworks.served import AGENTS, count, log_of, wait_for_log
from tests.system import daemon, folders
from tests.system.daemon import ROOT, Daemon

pytestmark = [pytest.mark.root, pytest.mark.kernel, pytest.mark.slow]

PAGE = ROOT / "docs" / "frameworks.md"
WORKS = "works"
EPERM = "PermissionError: [Errno 1] Operation not permitted"


@dataclass(frozen=True, slots=True)
class Case:
    """A function of the agent's, and what comes of it under `base`."""

    what: str
    base: str = WORKS
    line: str = ""
    """of a policy, with which it works; empty where none is needed, or there is none"""
    at_times: bool = False
    """whether it also works without"""

    @property
    def words(self) -> str:
        return self.what.replace("_", " ")

    @property
    def agent(self) -> str:
        """Under which it has its line."""
        return f"allowed {self.words}"

    def row(self) -> str:
        """As docs/frameworks.md has it."""
        if self.base == WORKS:
            return f"| {self.words} | {WORKS} | |"
        outcome = f"`{self.base}`{', at times' if self.at_times else ''}"
        return f"| {self.words} | {outcome} | {f'`{self.line}`' if self.line else 'none'} |"


CASES = (
    Case("a_thread_of_the_import"),
    Case("a_pool_of_threads"),
    Case("a_hundred_threads", "RuntimeError: can't start new thread", "resources.pids_max = 128"),
    Case("a_child_by_fork"),
    Case("multiprocessing_pool"),
    Case("multiprocessing_queue"),
    Case("process_pool_executor"),
    Case("multiprocessing_spawn", "AssertionError: 255 is not 0", "process.exec = true"),
    Case("a_named_semaphore"),
    # Its tracker cannot be started; the error depends on whether that has ended before it is first written to.
    Case("shared_memory_block", "BrokenPipeError: [Errno 32] Broken pipe", "process.exec = true", at_times=True),
    Case("shared_memory_block_without_tracker"),
    Case("shared_memory_of_64_mib", "OSError: [Errno 28] No space left on device", 'files.shm_size = "96MiB"'),
    Case("a_temporary_file"),
    Case("temporary_files_of_100_mib", "OSError: [Errno 28] No space left on device", 'files.tmp_size = "112MiB"'),
    Case("a_file_of_100_mib", "OSError: [Errno 27] File too large", 'process.fsize = "128MiB"'),
    Case("sqlite_in_app"),
    Case("sqlite_in_tmp_with_wal"),
    Case("a_file_in_home"),
    Case("a_file_beside_a_library", "OSError: [Errno 30] Read-only file system: 'cache.txt'"),
    Case("code_of_ones_own_in_tmp", "OSError: /tmp/own.so: failed to map segment from shared object"),
    Case("executable_memory"),
    Case("an_anonymous_file", EPERM, 'syscalls.groups = ["memfd"]'),
    Case("a_program", f"{EPERM}: '/usr/bin/true'", "process.exec = true"),
    Case("asyncio_subprocess", f"{EPERM}: '/usr/bin/true'", "process.exec = true"),
    Case("pinning_to_a_processor", EPERM, 'syscalls.groups = ["sched"]'),
    Case("being_nice", EPERM, 'syscalls.groups = ["sched"]'),
    Case("the_number_of_processors"),
    Case("a_unix_socket"),
    Case("a_socket_on_loopback", EPERM),
    Case("looking_a_name_up", "gaierror: [Errno -3] Temporary failure in name resolution"),
    Case("five_hundred_descriptors", "OSError: [Errno 24] Too many open files: '/dev/null'", "process.nofile = 1024"),
)
ALLOWED = [case for case in CASES if case.line]


def copy(place: Path, name: str) -> Path:
    """The agent under another name, since a policy goes by the name."""
    folder = place / name.replace(" ", "-")
    shutil.copytree(AGENTS / "ordinary", folder)
    path = folder / "runagent.config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "agent_name": name}))
    return folder


def policy(place: Path, case: Case) -> str:
    """`base` with the case's line, and what that line needs to make sense."""
    key, _, value = case.line.partition(" = ")
    table, _, name = key.partition(".")
    lines = {table: [f"{name} = {value}"]}
    if key == "process.exec":
        # /usr/bin/true is to be there.
        lines["files"] = ['runtime = "system"']
    if table == "files":
        lines["resources"] = ['memory_max = "512MiB"']
    text = "".join(f"[{table}]\n" + "".join(f"{line}\n" for line in lines[table]) for table in lines)
    return folders.policy(place, case.what, f'extends = "base"\n{text}')


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    place = tmp_path_factory.mktemp("ordinary")
    agents = [AGENTS / "ordinary", *(copy(place, case.agent) for case in ALLOWED)]
    policies = ["base", *(f"{case.agent}={policy(place, case)}" for case in ALLOWED)]
    with daemon.serve(agents, policies=policies) as running:
        yield running


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
def test_it_works_under_base_or_is_refused_in_these_words(served: Daemon, case: Case) -> None:
    status, outcome = served.call("ordinary", "attempt", {"what": case.what})
    assert status == 200
    assert outcome in (case.base, WORKS) if case.at_times else outcome == case.base


@pytest.mark.parametrize("case", ALLOWED, ids=lambda case: case.what)
def test_what_is_refused_works_with_the_line_that_is_named(served: Daemon, case: Case) -> None:
    assert served.call(case.agent, "attempt", {"what": case.what}) == (200, WORKS)


@pytest.mark.parametrize(
    ("what", "hint"),
    [
        ("a_program", "a program is started only where the policy has process.exec = true, as 'tools' has"),
        ("asyncio_subprocess", "a program is started only where the policy has process.exec = true, as 'tools' has"),
        ("a_socket_on_loopback", "there is no network: network.mode = "),
        ("looking_a_name_up", "there is no network: network.mode = "),
        ("an_anonymous_file", "the policy may lack this system call: process.exec and syscalls.groups"),
        ("a_hundred_threads", "the policy's resources.pids_max bounds threads and processes together"),
        ("temporary_files_of_100_mib", "the policy's files.app_size, files.tmp_size and files.shm_size bound"),
        ("a_file_of_100_mib", "the policy's process.fsize bounds how large a file may be"),
        ("five_hundred_descriptors", "the policy's process.nofile bounds how many descriptors may be open"),
        ("code_of_ones_own_in_tmp", "native code is loaded from packages only"),
    ],
)
def test_the_agents_log_says_which_line_it_may_be_about_and_the_caller_does_not(
    served: Daemon, what: str, hint: str
) -> None:
    words = f"runagentd: hint: {hint}"
    before = count(log_of(served, "ordinary"), words)
    status, body = served.call("ordinary", "do", {"what": what})
    assert (status, body["code"]) == (502, "FUNCTION_ERROR")
    assert "policy" not in json.dumps(body)
    wait_for_log(served, "ordinary", words, times=before + 1)


def test_the_page_says_the_same() -> None:
    rows = PAGE.read_text().partition("| what | under `base` | the line that allows it |\n|---|---|---|\n")[2]
    assert rows.partition("\n\n")[0].splitlines() == [case.row() for case in CASES]
