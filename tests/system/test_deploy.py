"""`runagentctl deploy` and what follows: versions of a served agent, and back again, while clients call."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from runagentd.names import storage_name
from tests.system.ctl import change, ctl, kill_supervisor, run, states, versions, with_token
from tests.system.daemon import Daemon, serve
from tests.system.folders import agent, policy

pytestmark = [pytest.mark.root, pytest.mark.slow]

ONE = """
    import time

    def say() -> str:
        return "one"

    def nap(seconds: float) -> str:
        time.sleep(seconds)
        return "one"
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The folder of an agent that is called chat."""
    return agent(tmp_path, "chat", ONE, "say", "nap")


def test_a_folder_becomes_an_agent_and_then_another_version_of_it(daemon: Daemon, place: Path) -> None:
    """The command says what came of it; the second version takes the calls, and the first goes back at once."""
    first = ctl(daemon, "deploy", place)
    assert first.splitlines()[0] == "chat: v1 serves"
    assert "  policy   base" in first
    assert "  say  () -> str" in first
    assert daemon.call("chat", "say") == (200, "one")
    assert ctl(daemon, "deploy", place) == "chat: v1 serves already; nothing has changed\n"
    change(place, "two")
    second = ctl(daemon, "deploy", place)
    assert second.splitlines()[0] == "chat: v2 serves, in the place of v1"
    assert "  changed  code" in second
    assert "v1 is kept warm for 5 min: 'runagentctl rollback chat' has it serve again at once" in second
    assert daemon.call("chat", "say") == (200, "two")
    assert states(daemon) == {2: "serving", 1: "warm"}
    warm = next(row for row in daemon.instances() if row.state == "warm")
    assert "; v1 is kept warm for 4m" in ctl(daemon, "describe", "chat")
    assert ctl(daemon, "rollback", "chat") == "chat: v1 serves, in the place of v2, at once: it was kept warm\n"
    assert daemon.call("chat", "say") == (200, "one")
    assert daemon.row("chat").instance == warm.instance, "no other instance was needed"
    assert states(daemon) == {2: "warm", 1: "serving"}
    assert {n: row["percent"] for n, row in versions(daemon).items()} == {2: 0, 1: 100}


def test_a_broken_version_is_refused_and_nothing_of_it_stays(daemon: Daemon, place: Path) -> None:
    """It does not import, does not load, or has no such function: the one before never stops serving."""
    ctl(daemon, "deploy", place)
    before = daemon.row("chat").instance
    good = (place / "agent.py").read_text()
    for text, words in (
        ("import nothing_of_that_name\n", "ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        ("def say() -> str:\n    return 'x'\n", "nap"),
        ("import os\nos._exit(3)\n", "the agent did not start"),
    ):
        (place / "agent.py").write_text(text)
        status, out, err = run("deploy", place, state=daemon.state_dir)
        assert (status, out) == (1, "")
        assert words in err
    (place / "agent.py").write_text(good)
    (place / "runagent.config.json").write_text("{")
    assert run("deploy", place, state=daemon.state_dir)[0] == 1
    assert daemon.call("chat", "say") == (200, "one")
    assert daemon.row("chat").instance == before
    assert states(daemon) == {1: "serving"}
    end = time.monotonic() + 5  # until the last instance that was tried is gone
    while len(list(daemon.state_dir.glob("agents/*/versions/*"))) != 1:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert list((daemon.state_dir / "agents" / "incoming").iterdir()) == []


def test_what_is_deployed_is_served_after_a_kill_and_after_a_stop(tmp_path: Path, place: Path) -> None:
    """The version that served, under the policy that it was deployed with, whatever has become of its file."""
    file = Path(policy(tmp_path, "rules", '[calls]\ndeadline = "21s"\n'))
    state = tmp_path / "state"
    with serve([], state_dir=state) as daemon:
        with_token(daemon)
        ctl(daemon, "deploy", place, "--policy", file)
        change(place, "two")
        ctl(daemon, "deploy", place)
        file.unlink()
        kill_supervisor(daemon)
        daemon.wait_until_ready("chat")
        assert daemon.call("chat", "say") == (200, "two")
        assert daemon.request("GET", "/v1/agents/chat")[1]["limits"]["deadline_seconds"] == 21
        assert states(daemon) == {2: "serving", 1: "kept"}
        said = ctl(daemon, "rollback", "chat")
        assert said == "chat: v1 serves, in the place of v2, after one of it had started\n"
    with serve([], state_dir=state) as daemon:
        with_token(daemon)
        assert daemon.call("chat", "say") == (200, "one")
        assert daemon.request("GET", "/v1/agents/chat")[1]["limits"]["deadline_seconds"] == 21
        assert states(daemon) == {2: "kept", 1: "serving"}


def test_what_serve_brought_goes_with_it_and_what_was_deployed_stays(tmp_path: Path, place: Path) -> None:
    """Also its versions; and 'serve' does not take over what is deployed."""
    other = agent(tmp_path, "passing", ONE, "say")
    state = tmp_path / "state"
    with serve([other], state_dir=state) as daemon:
        assert "passing goes with the 'serve' that brought it" in ctl(daemon, "versions", "passing")
        change(other, "two")
        assert "hint: the agent goes with the 'serve' that brought it" in ctl(daemon, "deploy", other)
        assert daemon.call("passing", "say") == (200, "two")
        ctl(daemon, "deploy", place)
    with serve([other], state_dir=state) as daemon:
        assert {row.agent_name: row.number for row in daemon.instances()} == {"passing": 1, "chat": 1}
        assert daemon.call("passing", "say") == (200, "two")
    with pytest.raises(AssertionError) as refused, serve([place], state_dir=state):
        pass
    assert "is deployed" in str(refused.value)
    assert "runagentctl deploy DIR" in str(refused.value)


def test_another_folder_is_no_version_of_an_agent_without_the_word(daemon: Daemon, tmp_path: Path, place: Path) -> None:
    """It calls itself so, and its author does not decide whose calls it gets."""
    ctl(daemon, "deploy", place)
    other = agent(tmp_path / "other", "chat", ONE.replace("one", "two"), "say", "nap")
    status, out, err = run("deploy", other, state=daemon.state_dir)
    assert (status, out) == (1, "")
    assert err == (
        f"{other}: agent_id: 'chat' is taken: it was deployed by hand from '{place}'\n"
        "hint: --take-over has this folder serve in its place: its calls go there, and what it has kept\n"
        "hint: or call this one otherwise: --name NAME\n"
    )
    assert daemon.call("chat", "say") == (200, "one")
    assert f"hint: before it was served from '{place}'" in ctl(daemon, "deploy", other, "--take-over")
    assert daemon.call("chat", "say") == (200, "two")
    assert run("deploy", place, state=daemon.state_dir)[0] == 1
    ctl(daemon, "deploy", place, "--name", "chat eu")


def test_a_wider_policy_needs_its_word(daemon: Daemon, tmp_path: Path, place: Path) -> None:
    """Each key is named, with what it was; a narrower one is taken without."""
    ctl(daemon, "deploy", place)
    wide = policy(tmp_path, "wide", '[resources]\nmemory_max = "512MiB"\n[calls]\ndeadline = "1s"\n')
    status, out, err = run("deploy", place, "--policy", wide, state=daemon.state_dir)
    assert (status, out) == (1, "")
    assert err == (
        f'policy {wide}: is wider than that of v1: resources.memory_max = "512MiB", was "256MiB"\n'
        "nothing was deployed\nhint: --allow-widening deploys it all the same\n"
    )
    assert states(daemon) == {1: "serving"}
    assert "  changed  policy" in ctl(daemon, "deploy", place, "--policy", wide, "--allow-widening")
    assert ctl(daemon, "deploy", place) == "chat: v2 serves already; nothing has changed\n"  # its policy stays
    narrow = policy(tmp_path, "narrow", '[resources]\nmemory_max = "384MiB"\n[calls]\ndeadline = "1s"\n')
    assert "v3 serves" in ctl(daemon, "deploy", place, "--policy", narrow)
    said = ctl(daemon, "rollback", "chat", "v2")
    assert '  its policy is wider: resources.memory_max = "512MiB", was "384MiB"' in said


def test_a_name_and_bounds_are_the_operators(daemon: Daemon, place: Path) -> None:
    """The same folder as two agents; the policy's most cannot be exceeded."""
    ctl(daemon, "deploy", place)
    assert ctl(daemon, "deploy", place, "--name", "chat eu", "--instances", "0:1").startswith("chat eu: v1 serves\n")
    assert daemon.call("chat eu", "say") == (200, "one")
    assert {row.agent_name for row in daemon.instances()} == {"chat", "chat eu"}
    status, _, err = run("deploy", place, "--instances", "2:99", state=daemon.state_dir)
    assert status == 1
    assert "--instances: 2:99 is not within what policy base allows: at most " in err


def test_versions_and_agents_can_be_forgotten(daemon: Daemon, place: Path) -> None:
    """But not what serves, nor what an alias leads to; data stays."""
    ctl(daemon, "deploy", place, "--alias", "stable")
    change(place, "two")
    ctl(daemon, "deploy", place)
    change(place, "three")
    ctl(daemon, "deploy", place)
    assert run("remove", "chat", "v3", state=daemon.state_dir)[2].startswith("runagentctl: v3 serves\nhint: promote")
    assert "v1 has the alias 'stable'" in run("remove", "chat", "v1", state=daemon.state_dir)[2]
    assert ctl(daemon, "remove", "chat", "v2") == "chat: v2 is forgotten\n"
    assert states(daemon) == {3: "serving", 1: "kept"}
    assert ctl(daemon, "promote", "chat", "stable").startswith("chat: v1 serves, in the place of v3, after one")
    assert daemon.call("chat", "say") == (200, "one")
    for wrong in ("v2", "v99", "nothing", "ffff", "v3x"):
        assert "is no version of this agent" in run("promote", "chat", wrong, state=daemon.state_dir)[2]
    assert ctl(daemon, "remove", "chat") == "chat: served no more; what it has kept stays\n"
    ends = [line for line in ctl(daemon, "events", "--limit", "3").splitlines() if "instance-ended" in line]
    assert ends
    assert all("an operator ended the instance" in line for line in ends), ends
    assert daemon.call("chat", "say")[0] == 404
    assert daemon.instances() == []
    assert list(daemon.state_dir.glob("agents/*/versions/*")) == []
    assert "v1 serves" in ctl(daemon, "deploy", place)


def test_an_agent_that_cannot_be_served_again_is_named(daemon: Daemon, tmp_path: Path, place: Path) -> None:
    """Which one, and why, in the log, in the events, and in its versions; the others are served."""
    ctl(daemon, "deploy", place)
    ctl(daemon, "deploy", place, "--name", "other")
    lost = daemon.row("other").agent
    folder = daemon.state_dir / "agents" / storage_name(lost) / "versions"
    folder.rename(folder.with_name("elsewhere"))
    kill_supervisor(daemon)
    daemon.wait_for_log("an agent is not served again")
    daemon.wait_until_ready("chat")
    status, out, err = run("versions", lost, state=daemon.state_dir)
    assert status == 0
    assert "not served" in out
    assert "No such file or directory" in err
    assert "not-restored" in ctl(daemon, "events")
    wide = policy(tmp_path, "wide", '[resources]\nmemory_max = "512MiB"\n')
    words = ("deploy", place, "--name", "other", "--policy", wide)
    assert "is wider than that of v1" in run(*words, state=daemon.state_dir)[2], "not even where it is not served"
    assert "v1 serves" in ctl(daemon, "deploy", place, "--name", "other"), "what is whole again serves again"


def test_damaged_state_is_refused_at_once_and_in_words(tmp_path: Path) -> None:
    """Nothing is served from what cannot be trusted, and nobody is told that it is."""
    state = tmp_path / "state"
    with serve([], state_dir=state):
        pass
    (state / "deployments.db").write_bytes(b"\xff" * 8192)
    with pytest.raises(AssertionError) as refused, serve([], state_dir=state):
        pass
    text = str(refused.value)
    assert "deployments.db is damaged: file is not a database" in text
    assert "put a copy of it back, or move it away" in text
    assert "serves what is deployed" not in text


def test_a_manifest_in_another_form_is_made_again_from_its_snapshot(daemon: Daemon, place: Path) -> None:
    """As after an upgrade that knows more of an agent: what is deployed is served, under the name that it was given."""
    ctl(daemon, "deploy", place, "--name", "other")
    with sqlite3.connect(daemon.state_dir / "deployments.db") as database:
        database.execute("UPDATE versions SET manifest = substr(manifest, 1, length(manifest) - 4)")
    database.close()
    kill_supervisor(daemon)
    daemon.wait_until_ready("other")
    assert daemon.call("other", "say") == (200, "one")


def test_a_version_that_is_not_well_gets_no_call(daemon: Daemon, tmp_path: Path) -> None:
    """The function that the configuration names is called first: an exception, false, or a missing argument is no."""
    source = """
        def say() -> str:
            return "one"

        def well():
            return True

        def odd(text: str) -> str:
            return text
    """
    folder = agent(tmp_path, "careful", source, "say", "well", "odd", health="well")
    ctl(daemon, "deploy", folder)
    good = (folder / "agent.py").read_text()
    for answer, words in (
        ("return False", "'well' did not answer well: it answered false"),
        ("raise RuntimeError('the model file is\\x1b[2J missing')", "the model file is\\x1b[2J missing"),
        ("import os; os._exit(1)", "the agent's process ended itself with status 1"),
    ):
        (folder / "agent.py").write_text(good.replace("return True", answer).replace('"one"', '"two"'))
        status, out, err = run("deploy", folder, state=daemon.state_dir)
        assert (status, out) == (1, "")
        assert words in err
        assert "\x1b" not in err
        assert daemon.call("careful", "say") == (200, "one")
    configuration = json.loads((folder / "runagent.config.json").read_text())
    (folder / "runagent.config.json").write_text(json.dumps({**configuration, "health": "odd"}))
    assert "it needs arguments (text), and is called without any" in run("deploy", folder, state=daemon.state_dir)[2]
    (folder / "runagent.config.json").write_text(json.dumps({**configuration, "health": "weell"}))
    err = run("deploy", folder, state=daemon.state_dir)[2]
    assert 'health: "weell" is not the tag of one of the entrypoints\nhint: did you mean "well"?' in err
    assert {row.agent_name: row.number for row in daemon.instances()} == {"careful": 1}
    (folder / "runagent.config.json").write_text(json.dumps(configuration))
    (folder / "agent.py").write_text(good.replace('"one"', '"two"'))
    ctl(daemon, "deploy", folder)
    assert daemon.call("careful", "say") == (200, "two")


def test_a_token_for_an_agent_that_is_not_there_is_made_with_a_word_about_it(daemon: Daemon, tmp_path: Path) -> None:
    """It may be deployed later, or be misspelled: the token alone is on standard output."""
    ctl(daemon, "deploy", agent(tmp_path, "chat", ONE, "say", "nap"))
    options = ("token", "create", "--subject", "alice", "--agent")
    status, out, err = run(*options, "chat", state=daemon.state_dir)
    assert (status, out.count("."), err) == (0, 2, "")
    status, out, err = run(*options, "chta", state=daemon.state_dir)
    assert (status, out.count("."), len(out.split())) == (0, 2, 1)
    assert err.startswith("note: no agent 'chta' is served here now; ")


def test_commands_that_come_at_the_same_time_take_turns(daemon: Daemon, tmp_path: Path) -> None:
    """Four folders of one agent, and rollbacks in between: each is done or refused in words, and one version serves."""
    folders = [agent(tmp_path / str(number), "chat", ONE, "say", "nap") for number in range(4)]
    for number, folder in enumerate(folders):
        change(folder, f"number{number}")
    ctl(daemon, "deploy", folders[0])
    said: list[tuple[int, str, str]] = []
    commands = [("deploy", str(folder), "--take-over") for folder in folders[1:]] + [("rollback", "chat")] * 2
    threads = [
        threading.Thread(target=lambda words=words: said.append(run(*words, state=daemon.state_dir)))
        for words in commands
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {status for status, _, err in said if "no other version served before" not in err} == {0}
    rows = versions(daemon)
    assert sorted(rows) == [1, 2, 3, 4]
    assert sum(row["state"] == "serving" for row in rows.values()) == 1
    serving = next(row for row in rows.values() if row["state"] == "serving")
    folder = next(each for each in folders if str(each) == serving["origin"])
    assert daemon.call("chat", "say") == (200, f"number{folders.index(folder)}")


def test_no_call_is_lost_while_versions_come_and_go(daemon: Daemon, place: Path) -> None:
    """Four clients; each answer is that of one of the versions."""
    ctl(daemon, "deploy", place)
    failures: list[object] = []
    over = threading.Event()

    def client() -> None:
        while not over.is_set():
            status, value = daemon.call("chat", "say")
            if status != 200:
                failures.append((status, value))

    clients = [threading.Thread(target=client) for _ in range(4)]
    for each in clients:
        each.start()
    try:
        for number in range(3):
            change(place, f"number{number}")
            ctl(daemon, "deploy", place)
            assert daemon.call("chat", "say") == (200, f"number{number}")
            ctl(daemon, "rollback", "chat")
            ctl(daemon, "rollback", "chat")
            assert daemon.call("chat", "say") == (200, f"number{number}")
    finally:
        over.set()
        for each in clients:
            each.join()
    assert failures == []
