"""`runagentd serve`: what it prints works when pasted, and when it ends nothing of it is left."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system import traces
from tests.system.daemon import ROOT, Daemon, serve
from tests.system.folders import agent

pytestmark = [pytest.mark.root, pytest.mark.slow]

GREETER = '''
    import asyncio

    def greet(name: str, times: int = 1) -> str:
        """Greet somebody."""
        return " ".join([f"Hello {name}!"] * times)

    async def nap(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "slept"
'''


def start(*arguments: str | Path, output: Path) -> subprocess.Popen[bytes]:
    """`runagentd serve` as the leader of a process group, as a shell starts it; what it prints goes to `output`."""
    command = [sys.executable, "-m", "runagentd.cli.runagentd", "serve", *map(str, arguments)]
    with output.open("wb") as out, output.with_suffix(".log").open("wb") as err:
        return subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
        )


def refused(*arguments: str | Path) -> str:
    """What `runagentd serve` says where it serves nothing; it ends with status 1 and prints nothing else."""
    command = [sys.executable, "-m", "runagentd.cli.runagentd", "serve", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert "Traceback" not in done.stderr or "the agent's own traceback:" in done.stderr
    return "".join(line for line in done.stderr.splitlines(keepends=True) if not re.match(r"\d\d:\d\d:\d\d ", line))


@pytest.fixture(scope="module")
def announced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, Any]]]:
    """What a serving daemon has printed, and its ready file."""
    place = tmp_path_factory.mktemp("announced")
    folders = [agent(place, "greeter", GREETER, "greet", "nap"), agent(place, "other", "def run(): return 1", "run")]
    output, ready = place / "output", place / "ready.json"
    process = start(
        *folders, "--port", "0", "--state-dir", place / "state", "--ready-file", ready, "--policy", "other=compute",
        output=output,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while "Ctrl+C ends it." not in output.read_text() or not ready.exists():
            assert process.poll() is None, output.with_suffix(".log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert stat.S_IMODE(ready.stat().st_mode) == 0o600
        yield output.read_text(), json.loads(ready.read_text())
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(12) == 0
    assert not ready.exists()


def test_it_says_where_it_serves_and_what(announced: tuple[str, dict[str, Any]]) -> None:
    """URL; each agent with id, policy, tags and signatures."""
    text, ready = announced
    assert re.search(r"^runagentd \S+ serves 2 agents at http://127\.0\.0\.1:[0-9]+$", text, re.MULTILINE)
    greeter = ready["agents"][0]["id"]
    assert f"greeter   id {greeter}   policy base\n" in text
    assert re.search(r"^  greet +\(name: str, times: int = .+\) -> str$", text, re.MULTILINE)
    assert re.search(r"^other   id [0-9a-f-]{36}   policy compute$", text, re.MULTILINE)
    assert re.search(r"^  run +\(\)$", text, re.MULTILINE)


def test_the_ready_file_says_the_same_to_scripts(announced: tuple[str, dict[str, Any]]) -> None:
    """URL, token, and id, name and tags of each agent."""
    text, ready = announced
    assert sorted(ready) == ["agents", "token", "url"]
    assert ready["url"] in text
    tags = {row["name"]: row["tags"] for row in ready["agents"]}
    assert tags == {"greeter": ["greet", "nap"], "other": ["run"]}


def test_the_token_that_it_prints_calls_every_agent(announced: tuple[str, dict[str, Any]]) -> None:
    """It is alone on its line."""
    text, ready = announced
    token = re.search(r"^  (ey\S+)$", text, re.MULTILINE)
    assert token is not None
    for name, tag, expected in (("greeter", "greet", "Hello Ada!"), ("other", "run", 1)):
        body = b'{"name": "Ada"}' if tag == "greet" else b"{}"
        request = urllib.request.Request(f"{ready['url']}/v1/agents/{name}/entrypoints/{tag}:invoke", body)
        request.add_header("Authorization", f"Bearer {token[1]}")
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert json.load(answer) == expected


def test_the_curl_line_works_when_pasted(announced: tuple[str, dict[str, Any]]) -> None:
    """As a shell splits it; and with curl itself, where there is one."""
    text, _ = announced
    found = re.search(r"^(curl .*\\\n.*)$", text, re.MULTILINE)
    assert found is not None
    words = shlex.split(found[1].replace("\\\n", " "))
    assert words[:4] == ["curl", "-sS", "-X", "POST"]
    headers = [words[number + 1] for number, word in enumerate(words) if word == "-H"]
    request = urllib.request.Request(
        words[4], words[words.index("-d") + 1].encode(), dict(header.split(": ") for header in headers)
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert json.load(answer) == "Hello hello!"
    if shutil.which("curl"):
        done = subprocess.run(["sh", "-c", found[1]], capture_output=True, text=True, timeout=20, check=True)
        assert json.loads(done.stdout) == "Hello hello!"


def test_the_python_snippet_works_when_pasted(announced: tuple[str, dict[str, Any]]) -> None:
    """With any Python, and nothing installed."""
    text, _ = announced
    snippet = text.partition("and with Python:\n")[2].partition("\n\n")[0]
    done = subprocess.run(
        [sys.executable, "-I", "-c", snippet], capture_output=True, text=True, timeout=20, check=False
    )
    assert (done.stdout, done.stderr) == ("Hello hello!\n", "")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_lets_open_calls_end_and_leaves_nothing(tmp_path: Path, how: signal.Signals) -> None:
    """Ctrl+C goes to the whole process group of the terminal. The open call is answered, then everything is gone."""
    folder, ready = agent(tmp_path, "greeter", GREETER, "nap"), tmp_path / "ready.json"
    state = tmp_path / "state"
    process = start(folder, "--port", "0", "--state-dir", state, "--ready-file", ready, output=tmp_path / "output")
    try:
        while not ready.exists():
            assert process.poll() is None, (tmp_path / "output.log").read_text()
            time.sleep(0.02)
        up = json.loads(ready.read_text())
        daemon = Daemon(process, state, up["url"], up["token"], up["agents"], tmp_path / "output.log")
        family = traces.family(process.pid, traces.identity(state))
        assert len(family) >= 6
        answers: list[tuple[int, Any]] = []
        caller = threading.Thread(target=lambda: answers.append(daemon.call("greeter", "nap", {"seconds": 1.5})))
        caller.start()
        time.sleep(0.3)
        began = time.monotonic()
        os.killpg(process.pid, how) if how is signal.SIGINT else process.send_signal(how)
        assert process.wait(10) == 0
        took = time.monotonic() - began
        caller.join(1)
        assert answers == [(200, "slept")]
        assert 1.0 < took < 5.0
        assert traces.left(state, family) == {}
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_a_call_that_does_not_end_does_not_keep_it_from_ending(tmp_path: Path) -> None:
    """It drains for eight seconds; within ten everything is gone, and the caller has been told."""
    with serve([agent(tmp_path, "greeter", GREETER, "nap")]) as daemon:
        family = traces.family(daemon.process.pid, traces.identity(daemon.state_dir))
        answers: list[tuple[int, Any]] = []
        caller = threading.Thread(target=lambda: answers.append(daemon.call("greeter", "nap", {"seconds": 60})))
        caller.start()
        time.sleep(0.3)
        began = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - began < 10
        caller.join(1)
        assert [(status, body["code"], body["cause"]) for status, body in answers] == [(503, "CANCELLED", "drain")]
        assert traces.left(daemon.state_dir, family) == {}


def test_it_is_not_ready_before_what_it_serves_was_deployed(tmp_path: Path) -> None:
    """A load balancer that asks /readyz sends nobody to a daemon that knows half of its agents."""
    slow = agent(tmp_path, "slow", "import time\ntime.sleep(3)\ndef run() -> int:\n    return 1\n", "run")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    seen: list[int] = []
    process = start(slow, "--port", str(port), "--state-dir", tmp_path / "state", output=tmp_path / "out")
    try:
        while 200 not in seen and process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
                    seen.append(answer.status)
            except urllib.error.HTTPError as error:
                seen.append(error.code)
            except OSError:
                pass
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
    assert (seen[-1], seen.count(503) > 2) == (200, True)


def test_a_second_ctrl_c_does_not_wait_for_open_calls(tmp_path: Path) -> None:
    """The first one says how long it waits, and that there is this way."""
    source = """
        import time

        def nap(seconds: float) -> None:
            print("napping")
            time.sleep(seconds)
    """
    with serve([agent(tmp_path, "greeter", source, "nap")]) as daemon:
        family = traces.family(daemon.process.pid, traces.identity(daemon.state_dir))
        answers: list[tuple[int, Any]] = []
        caller = threading.Thread(target=lambda: answers.append(daemon.call("greeter", "nap", {"seconds": 60})))
        caller.start()
        daemon.wait_for_log("napping")
        daemon.process.send_signal(signal.SIGINT)
        daemon.wait_for_log("Ctrl+C again ends them now")
        daemon.process.send_signal(signal.SIGINT)
        daemon.process.wait(20)
        assert "told to end again: the open calls are ended now" in daemon.log.read_text()
        caller.join(5)
        assert [status for status, _ in answers] in ([502], [503])
        assert daemon.stop() == 0
        assert traces.left(daemon.state_dir, family) == {}


def test_a_machine_that_cannot_run_it_is_told_so_once(tmp_path: Path) -> None:
    """A file system without idmapped mounts, for instance: to start again would not help."""
    state = tmp_path / "state"
    state.mkdir()
    words = (
        f"mount -t ramfs none {state} && exec {sys.executable} -m runagentd.cli.runagentd serve {ROOT}/examples/chat"
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f"{words} --port 0 --state-dir {state}/here"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("this file system has no idmapped mounts") == 1
    assert "runagentd: the supervisor cannot run on this machine; its message is above" in done.stderr.splitlines()


def test_two_daemons_on_one_machine_do_not_touch_each_other(tmp_path: Path) -> None:
    """The same agent twice: a token of one is no token of the other, and the end of one is not the other's."""
    folder = agent(tmp_path, "greeter", GREETER, "greet")
    with serve([folder]) as first, serve([folder]) as second:
        path = "/v1/agents/greeter/entrypoints/greet:invoke"
        assert first.request("POST", path, body={"name": "Ada"}, token=second.token)[0] == 401
        assert second.call("greeter", "greet", {"name": "Ada"}) == (200, "Hello Ada!")
        assert first.row("greeter").uid != second.row("greeter").uid
        instance = second.row("greeter").instance
        family = traces.family(first.process.pid, traces.identity(first.state_dir))
        assert first.stop() == 0
        assert traces.left(first.state_dir, family) == {}
        assert second.call("greeter", "greet", {"name": "Bo"}) == (200, "Hello Bo!")
        assert (second.row("greeter").instance, second.row("greeter").restarts) == (instance, 0)


def test_a_state_directory_has_one_daemon(tmp_path: Path) -> None:
    """The second one is told; the first does not notice."""
    folder = agent(tmp_path, "greeter", GREETER, "greet")
    with serve([folder]) as daemon:
        said = refused(folder, "--port", "0", "--state-dir", daemon.state_dir)
        assert said == (
            f"runagentd: another runagentd uses {daemon.state_dir}\n"
            "hint: stop it, or give this one its own --state-dir\n"
        )
        assert daemon.call("greeter", "greet", {"name": "Ada"}) == (200, "Hello Ada!")


def test_a_taken_port_is_one_sentence(tmp_path: Path) -> None:
    """With what to do, and without a traceback."""
    folder = agent(tmp_path, "greeter", GREETER, "greet")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert refused(folder, "--port", str(port), "--state-dir", tmp_path / "state") == (
            f"runagentd: cannot listen on 127.0.0.1 port {port}: address already in use\n"
            "hint: choose another --host or --port\n"
        )
    assert traces.left(tmp_path / "state", set()) == {}


def test_two_folders_with_one_id_stop_serve(tmp_path: Path) -> None:
    """An id names one agent, so neither is served."""
    first = agent(tmp_path, "first", GREETER, "greet", agent_id="twice")
    second = agent(tmp_path, "second", GREETER, "greet", agent_id="twice")
    said = refused(first, second, "--port", "0", "--state-dir", tmp_path / "state")
    assert re.fullmatch(
        rf"{tmp_path}/(first|second): agent_id: 'twice' is served already\n"
        r"hint: give each agent an agent_id, or at least a name, of its own\n",
        said,
    )
    assert traces.left(tmp_path / "state", set()) == {}


def test_no_folder_can_call_itself_by_the_name_of_another_agent(tmp_path: Path) -> None:
    """Names are chosen by folders; policies, tokens and callers trust them."""
    honest = agent(tmp_path, "honest", GREETER, "greet")
    evil = agent(tmp_path, "evil", GREETER, "greet", agent_id="honest")
    said = refused(honest, evil, "--port", "0", "--state-dir", tmp_path / "state")
    assert "the id of one agent is the name of another" in said


def test_a_policy_for_a_name_that_two_agents_have_stops_serve(tmp_path: Path) -> None:
    """The operator meant one of them, and nobody can tell which."""
    first = agent(tmp_path, "one", GREETER, "greet", agent_id="first", agent_name="same")
    second = agent(tmp_path, "two", GREETER, "greet", agent_id="second", agent_name="same")
    said = refused(first, second, "--port", "0", "--state-dir", tmp_path / "state", "--policy", "same=tools")
    assert "two agents are named 'same', and --policy names one: use its agent_id" in said


def test_what_one_folder_kept_is_not_given_to_another_with_the_same_id(tmp_path: Path) -> None:
    """An id follows from the name: without this, who knows the name has the data."""
    options = ["--port", "0", "--state-dir", str(tmp_path / "state"), "--policy", "persistent"]
    first = agent(tmp_path, "first", GREETER, "greet", agent_id="same", persistent_folders=["kept"])
    second = agent(tmp_path, "second", GREETER, "greet", agent_id="same", persistent_folders=["kept"])
    with serve([first], policies=["persistent"], options=["--state-dir", str(tmp_path / "state")]):
        pass
    assert "'same' has kept data, and it was served from" in refused(second, *options)


def test_an_agent_that_cannot_be_imported_is_shown_its_own_traceback(tmp_path: Path) -> None:
    """Marked as the agent's, line by line: it is text of a stranger's."""
    folder = agent(tmp_path, "broken", "import json\nimport no_such_module\n\ndef run():\n    pass\n", "run")
    said = refused(folder, "--port", "0", "--state-dir", tmp_path / "state")
    assert "broken: " in said
    own = said.partition("the agent's own traceback:\n")[2]
    lines = [line for line in own.splitlines() if line.startswith("  | ")]
    assert lines[0] == "  | Traceback (most recent call last):"
    assert lines[-1] == "  | ModuleNotFoundError: No module named 'no_such_module'"
    assert any("agent.py" in line and "line 2" in line for line in lines)
    assert "/runner/" not in said
    assert traces.left(tmp_path / "state", set()) == {}


@pytest.mark.parametrize(
    ("tags", "source", "message"),
    [
        (
            ("missing",),
            "def run(): return 1",
            """\
broken: agent.py: missing: there is no 'missing' in agent.py
hint from inside the sandbox: there are: run
""",
        ),
        (("run",), "run = 7", "broken: agent.py: run: it is not a function but of type int\n"),
    ],
    ids=["no-such-function", "not-callable"],
)
def test_every_entrypoint_is_looked_for_before_anything_is_served(
    tmp_path: Path, tags: tuple[str, ...], source: str, message: str
) -> None:
    """What is wrong is named with its file and its name there."""
    said = refused(agent(tmp_path, "broken", source, *tags), "--port", "0", "--state-dir", tmp_path / "state")
    assert said == message


def test_a_tag_that_stands_twice_stops_serve(tmp_path: Path) -> None:
    """The configuration is named, with the place in it."""
    folder = agent(tmp_path, "broken", "def run(): return 1", "run", "run")
    said = refused(folder, "--port", "0", "--state-dir", tmp_path / "state")
    assert said == (
        f"{folder}/runagent.config.json: agent_architecture.entrypoints[1].tag: "
        '"run" is the tag of agent_architecture.entrypoints[0] too\n'
        "hint: give each entrypoint a tag of its own\n"
    )


def test_a_policy_for_an_agent_that_is_not_served_stops_serve(tmp_path: Path) -> None:
    """It is most likely a misspelled name."""
    folder = agent(tmp_path, "greeter", GREETER, "greet")
    said = refused(folder, "--policy", "greter=compute", "--port", "0", "--state-dir", tmp_path / "state")
    assert said == (
        "runagentd: --policy greter=compute: no served agent has that id or name\nhint: served are: greeter\n"
    )


def test_only_root_can_serve(tmp_path: Path) -> None:
    """One sentence, and no traceback."""
    command = [sys.executable, "-m", "runagentd.cli.runagentd", "serve", "/"]
    done = subprocess.run(
        [sys.executable, "-c", f"import os; os.setuid(65534); os.execv({command[0]!r}, {command!r})"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if "runagentd must be started as root" not in done.stderr:
        # The checkout or the interpreter lies below a directory that only root can enter: nobody else can even ask.
        assert "ermission denied" in done.stderr or "No module named" in done.stderr
    assert done.returncode != 0


def test_more_folders_than_the_supervisor_has_connections_are_served(tmp_path: Path) -> None:
    """They are deployed some at a time, and each answers."""
    folders = [agent(tmp_path, f"a{number}", "def f():\n    return 1\n", "f") for number in range(66)]
    with serve(folders) as daemon:
        assert [row["name"] for row in daemon.agents] == [f"a{number}" for number in range(66)]
        assert daemon.call("a65", "f") == (200, 1)
