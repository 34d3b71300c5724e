"""What an operator types, and what comes back: real commands against a real daemon, no traceback anywhere."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

import pytest

from runagentd import interpreters
from runagentd.cli import doctor_commands
from tests.system.ctl import run
from tests.system.daemon import ROOT, Daemon, serve
from tests.system.folders import agent

pytestmark = [pytest.mark.root, pytest.mark.slow]

TALKER = """
    import sys
    from pathlib import Path

    if Path("kept/crash").exists():
        raise RuntimeError("there is a file 'crash'")

    print("loaded")

    def say(text: str) -> str:
        print(text)
        print("to stderr:", text, file=sys.stderr)
        return text

    def crash_from_now_on() -> None:
        import os
        Path("kept/crash").touch()
        os._exit(1)
"""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    place = tmp_path_factory.mktemp("ctl")
    names = ("talker", "other", "crasher")
    folders = [agent(place, name, TALKER, "say", "crash_from_now_on", persistent_folders=["kept"]) for name in names]
    with serve(folders, policies=["talker=compute", "crasher=persistent"]) as running:
        yield running


# ---- ps and restart


def test_ps_shows_a_line_for_each_agent(daemon: Daemon) -> None:
    """State, policy, pid, uid, memory of how much, tasks, restarts."""
    status, out, err = run("ps", state=daemon.state_dir)
    assert (status, err) == (0, "")
    header, *lines = out.splitlines()
    columns = ["AGENT", "STATE", "POLICY", "PID", "UID", "UP", "MEMORY", "TASKS", "RESTARTS", "LAST END"]
    assert re.split(r" {2,}", header) == columns
    rows = {cells[0]: cells for cells in (re.split(r" {2,}", line) for line in lines)}
    assert sorted(rows) == ["crasher", "other", "talker"]
    row = daemon.row("talker")
    assert rows["talker"][1:5] == ["ready", "compute", str(row.pid), str(row.uid)]
    assert re.fullmatch(r"\d+/1024 MiB", rows["talker"][6])
    assert rows["other"][2] == "base"
    assert re.fullmatch(r"\d+/256 MiB", rows["other"][6])


def test_ps_as_json_has_the_times_of_each_step(daemon: Daemon) -> None:
    """For scripts and benchmarks."""
    status, out, _ = run("ps", "--json", state=daemon.state_dir)
    listing = json.loads(out)
    assert (status, sorted(listing)) == (0, ["daemons", "instances", "spares", "standbys"])
    assert {row["name"] for row in listing["daemons"]} >= {"supervisor", "zygote"}
    row = next(row for row in listing["instances"] if row["agent_name"] == "talker")
    assert row["ready_ns"] > row["spawn_started_ns"] > 0
    assert {"pivot", "seccomp", "capabilities"} <= {step["step"] for step in row["steps"]}


def test_restart_gives_the_agent_another_instance(daemon: Daemon) -> None:
    """At once, and the others keep theirs."""
    before, other = daemon.row("talker"), daemon.row("other")
    assert run("restart", "talker", state=daemon.state_dir) == (0, "talker: restarting\n", "")
    after = daemon.wait_until_ready("talker", other_than=before.instance, seconds=3)
    assert (after.restarts, after.last_cause) == (before.restarts + 1, "operator")
    assert daemon.row("other").instance == other.instance
    status, out, _ = run("restart", before.agent, "--json", state=daemon.state_dir)
    assert (status, json.loads(out)) == (0, {"restarted": before.agent})
    daemon.wait_until_ready("talker", other_than=after.instance)


def test_restart_ends_the_delay_of_an_agent_that_keeps_crashing(daemon: Daemon) -> None:
    """Who has mended an agent does not want to wait for the next try."""
    assert daemon.call("crasher", "crash_from_now_on")[0] == 502
    deadline = time.monotonic() + 30
    while daemon.row("crasher").restarts < 7:  # by now the delay is 3.2 s
        assert time.monotonic() < deadline
        time.sleep(0.05)
    while (row := daemon.row("crasher")).state != "backoff":
        time.sleep(0.005)
    began = time.monotonic()
    assert run("restart", "crasher", state=daemon.state_dir)[0] == 0
    while daemon.row("crasher").restarts == row.restarts and daemon.row("crasher").state == "backoff":
        assert time.monotonic() - began < 2.5
        time.sleep(0.005)


def test_restart_of_an_agent_that_is_not_there_is_one_sentence(daemon: Daemon) -> None:
    """With where to look."""
    assert run("restart", "no\x1b[31m", state=daemon.state_dir) == (
        1,
        "",
        "runagentctl: no agent has the id or the unique name 'no\\x1b[31m'\nhint: 'runagentctl ps' lists the agents\n",
    )


# ---- logs


def test_logs_shows_what_an_agent_printed(daemon: Daemon) -> None:
    """Both streams, with the time, without a control character; another agent's lines are not among them."""
    assert daemon.call("other", "say", {"text": "for other ears"})[0] == 200
    assert daemon.call("talker", "say", {"text": "red: \x1b[31m"})[0] == 200
    deadline = time.monotonic() + 5
    while "to stderr: red" not in (out := run("logs", "talker", state=daemon.state_dir)[1]):
        assert time.monotonic() < deadline
    time_form = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"
    assert re.search(rf"^{time_form} stdout\| loaded$", out, re.MULTILINE)
    assert re.search(rf"^{time_form} stdout\| red: \\x1b\[31m$", out, re.MULTILINE)
    assert re.search(rf"^{time_form} stderr\| to stderr: red: \\x1b\[31m$", out, re.MULTILINE)
    assert "for other ears" not in out


def test_logs_as_json_is_a_line_an_entry(daemon: Daemon) -> None:
    """Of any instance of the agent's."""
    status, out, _ = run("logs", "talker", "--json", state=daemon.state_dir)
    rows = [json.loads(line) for line in out.splitlines()]
    assert status == 0
    assert rows[0].keys() == {"time", "agent", "instance", "stream", "text"}
    assert {row["agent"] for row in rows} == {daemon.row("talker").agent}


def test_logs_follows_until_ctrl_c(daemon: Daemon) -> None:
    """New lines come within a second; Ctrl+C is an end without a word."""
    command = [sys.executable, "-m", "runagentd.cli.runagentctl", "logs", "-f", "other"]
    process = subprocess.Popen(
        [*command, "--state-dir", str(daemon.state_dir)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        lines: list[str] = []
        reader = threading.Thread(target=_read, args=(process.stdout, lines), daemon=True)
        reader.start()
        _wait_for(lines, "loaded")
        for number in range(3):
            assert daemon.call("other", "say", {"text": f"line {number}"})[0] == 200
            _wait_for(lines, f"stdout| line {number}")
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == 130
        reader.join(5)
        assert process.stderr is not None
        assert process.stderr.read() == ""
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def _read(stream: IO[str], lines: list[str]) -> None:
    for line in stream:
        lines.append(line)


def _wait_for(lines: list[str], text: str) -> None:
    deadline = time.monotonic() + 5
    while not any(text in line for line in lines):
        assert time.monotonic() < deadline, lines
        time.sleep(0.01)


def test_logs_of_an_agent_that_is_not_there_is_one_sentence(daemon: Daemon) -> None:
    """With where to look."""
    assert run("logs", "nobody", state=daemon.state_dir) == (
        1,
        "",
        "runagentctl: agent 'nobody' has printed nothing, or is not known\nhint: 'runagentctl ps' lists the agents\n",
    )


# ---- token


def _claims(token: str) -> Any:
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


def test_token_create_prints_a_token_alone(daemon: Daemon) -> None:
    """So that a script can take it; it opens the agents that it names, and for others there is no such agent."""
    status, out, err = run(
        "token", "create", "--subject", "ada", "--agent", "talker", "--ttl", "15m", state=daemon.state_dir
    )
    assert (status, err) == (0, "")
    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+\n", out)
    claims = _claims(out.strip())
    state_id = (daemon.state_dir / "id").read_text().strip()
    assert (claims["sub"], claims["aud"]) == ("ada", f"urn:runagentd:{state_id}")
    assert claims["exp"] - claims["iat"] == 15 * 60
    for name, expected in (("talker", 200), ("other", 404)):
        path = f"/v1/agents/{name}/entrypoints/say:invoke"
        assert daemon.request("POST", path, body={"text": "hello"}, token=out.strip())[0] == expected


@pytest.mark.parametrize("command", [("token", "create"), ("key", "create", "--name", "x")], ids=" ".join)
def test_an_agent_that_is_not_there_is_pointed_out(daemon: Daemon, command: tuple[str, ...]) -> None:
    """A note and no refusal: it may be deployed later. A pattern names nobody."""
    named = ("--agent", "talker", "--agent", "talkre\n", "--agent", "support-*")
    status, out, err = run(*command, "--subject", "ada", *named, state=daemon.state_dir)
    assert (status, out.count("\n")) == (0, 1)
    assert err.startswith("note: no agent 'talkre\\n' is served here now; 'runagentctl ps' lists the agents\n")
    assert err.count("note: ") == 1


@pytest.mark.parametrize("command", [("token", "create"), ("key", "create", "--name", "x")], ids=" ".join)
def test_a_role_that_is_not_configured_is_pointed_out(daemon: Daemon, tmp_path: Path, command: tuple[str, ...]) -> None:
    """A note and no refusal: it may be configured later. Standard output has the token or key alone."""
    config = tmp_path / "runagentd.toml"
    config.write_text('[roles.support]\nallow = ["agents:read"]\n')
    named = ("--role", "support", "--role", "helpdesk", "--config", config)
    status, out, err = run(*command, "--subject", "ada", *named, state=daemon.state_dir)
    assert (status, out.count("\n")) == (0, 1)
    assert err.startswith(
        f"note: {config} has no role 'helpdesk'; it allows nothing until it is configured, "
        "and --config names the file that 'runagentd serve' reads\n"
    )
    assert err.count("note: ") == 1


def test_roles_of_a_configuration_that_cannot_be_used_are_not_looked_up(daemon: Daemon, tmp_path: Path) -> None:
    """What is wrong with it is said, and the token made."""
    named = ("--role", "support", "--config", tmp_path / "none.toml")
    status, out, err = run("token", "create", "--subject", "ada", *named, state=daemon.state_dir)
    assert (status, out.count("\n")) == (0, 1)
    assert err == (
        "note: which roles there are is not known, and none was looked up\n"
        f"{tmp_path}/none.toml: no such file or directory\n"
    )


def test_token_create_as_json_says_when_it_expires(daemon: Daemon) -> None:
    """Without --agent it is for all of them."""
    status, out, _ = run("token", "create", "--subject", "ada", "--ttl", "30s", "--json", state=daemon.state_dir)
    found = json.loads(out)
    assert (status, sorted(found)) == (0, ["agents", "expires", "scopes", "subject", "tenant", "token"])
    assert (found["subject"], found["agents"]) == ("ada", None)
    path = "/v1/agents/other/entrypoints/say:invoke"
    assert daemon.request("POST", path, body={"text": "hello"}, token=found["token"])[0] == 200


@pytest.mark.parametrize(
    ("ttl", "said"),
    [
        ("1y", '--ttl: "1y" is not a duration\nhint: write a number with s, m, h or d: "15m"\n'),
        ("0s", '--ttl: "0s" is not a duration\nhint: write a number with s, m, h or d: "15m"\n'),
        ("8d", '--ttl: "8d" is longer than a token may live\nhint: at most "7d"\n'),
    ],
)
def test_a_token_lives_a_week_at_most(daemon: Daemon, ttl: str, said: str) -> None:
    """Another form is wrong use: status 2."""
    assert run("token", "create", "--subject", "a", "--ttl", ttl, state=daemon.state_dir) == (2, "", said)


# ---- check


def test_check_of_a_good_folder_shows_what_would_be_served() -> None:
    """And leaves nothing running."""
    status, out, _ = run("check", ROOT / "examples" / "data")
    assert status == 0
    assert out.startswith("data: ok\n")
    assert re.search(r"^  group +\(table: str, by: str, value: str, statistic: Literal\[.*\] = .+\) -> ", out, re.M)
    status, out, _ = run("check", ROOT / "examples" / "data", "--json")
    assert (status, json.loads(out)["ok"]) == (0, True)
    assert json.loads(out)["agents"][0]["tags"] == ["summarise", "group", "quantiles", "mean_of_price"]


def test_check_of_a_broken_folder_names_every_problem(tmp_path: Path) -> None:
    """File, key, value, and what would be right."""
    folder = agent(tmp_path, "broken", "def run(): pass", "run")
    configuration = {
        "agent_name": 7,
        "agent_architecture": {"entrypoints": [{"file": "../outside.py", "module": "run", "tag": "run"}]},
    }
    (folder / "runagent.config.json").write_text(json.dumps(configuration))
    status, out, err = run("check", folder)
    assert (status, out) == (1, "")
    assert "runagent.config.json: agent_name: " in err
    assert "runagent.config.json: agent_architecture.entrypoints[0].file: " in err
    assert err.count("hint: ") >= 2
    status, out, _ = run("check", folder, "--json")
    assert status == 1
    assert json.loads(out)["ok"] is False
    assert len(json.loads(out)["agents"][0]["problems"]) >= 2


def test_check_shows_the_agents_own_traceback_marked_as_such(tmp_path: Path) -> None:
    """Without a terminal's control characters, whatever the agent writes into it."""
    folder = agent(tmp_path, "rude", "def run(): pass\nraise ValueError('\\x1b[31mred')\n", "run")
    status, out, err = run("check", folder)
    assert (status, out) == (1, "")
    assert "the agent's own traceback:\n  | Traceback (most recent call last):\n" in err
    assert "  | ValueError: \\x1b[31mred\n" in err
    assert "\x1b" not in err


def test_check_uses_the_policy_that_it_is_given(tmp_path: Path) -> None:
    """What imports under one need not under another."""
    folder = agent(tmp_path, "starter", "import subprocess\nsubprocess.run(['/bin/true'])\ndef run(): pass\n", "run")
    assert run("check", folder)[0] == 1
    assert run("check", folder, "--policy", "tools")[0] == 0


@pytest.mark.parametrize("folder", ["/no/such/folder", "/etc/passwd"])
def test_check_of_what_is_no_folder_is_one_sentence(folder: str) -> None:
    """With a hint."""
    status, out, err = run("check", folder)
    assert (status, out) == (1, "")
    assert re.search(rf"^runagentctl: {folder}: (no such file or directory|not a directory)$", err, re.MULTILINE)


# ---- policy and doctor


@pytest.mark.parametrize("name", ["base", "compute", "persistent", "tools"])
def test_policy_explain_names_the_key_that_asked_for_each_step(name: str) -> None:
    """Also as JSON, for scripts that compare two policies."""
    status, out, err = run("policy", "explain", name)
    assert (status, err) == (0, "")
    assert out.startswith(f"policy {name}\n")
    assert "resources.memory_max" in out
    assert "(network.mode" in out or "network.mode" in out
    status, out, _ = run("policy", "explain", name, "--json")
    assert (status, sorted(json.loads(out))) == (0, ["keys", "policy", "steps", "syscalls"])


def test_policy_check_says_what_is_wider_than_the_default(tmp_path: Path) -> None:
    """One object with --json; each problem with its key otherwise."""
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text('version = 1\n[resources]\nmemory_max = "512MiB"\n')
    bad.write_text('version = 1\n[resources]\nmemory_max = "512MBit"\n[network]\nmode = "open"\n')
    status, out, _ = run("policy", "check", good)
    assert (status, out.splitlines()[0]) == (0, f"ok: {good} (+ marks what is wider than the default)")
    assert re.search(r'^\+ resources\.memory_max +"512MiB"', out, re.MULTILINE)
    status, out, err = run("policy", "check", bad)
    assert (status, out) == (1, "")
    assert f'{bad}: resources.memory_max: "512MBit" is not a size' in err.replace('"' + str(bad) + '"', str(bad))
    assert "network.mode" in err
    status, out, _ = run("policy", "check", bad, "--json")
    assert (status, json.loads(out)["ok"], len(json.loads(out)["problems"])) == (1, False, 2)


def test_doctor_proves_that_this_machine_can_run_sandboxes() -> None:
    """A line for each thing that is needed, each shipped policy, and what an agent in a sandbox could not do."""
    status, out, _ = run("doctor")
    assert status == 0, out
    assert out.endswith("this machine can run sandboxes\n")
    lines = out.splitlines()[:-1]
    assert all(line.startswith("ok   ") for line in lines)
    for what in (
        "kernel",
        "cgroups",
        "Landlock",
        "libseccomp",
        "policy base",
        "its process",
        "it tries to write to /usr",
    ):
        assert any(line.startswith(f"ok   {what}: ") for line in lines), what
    status, out, _ = run("doctor", "--json")
    assert (status, json.loads(out)["ok"]) == (0, True)


def test_doctor_looks_at_each_runtime_that_is_named(tmp_path: Path) -> None:
    """One that is unfit hides no other."""
    config = tmp_path / "runagentd.toml"
    own = interpreters.find()
    config.write_text(f'[runtimes]\n"{own.version}" = "{own.interpreter}"\n"3.98" = "/nowhere"\n')
    assert list(doctor_commands._runtimes(config)) == [
        doctor_commands.Finding(what=f"Python {own.version}", ok=True, detail=f"{own.release}, {own.interpreter}"),
        doctor_commands.Finding(what="Python 3.98", ok=False, detail="/nowhere: no such file or directory"),
    ]
    assert list(doctor_commands._runtimes(None)) == []


def test_the_sandbox_of_doctor_is_not_configured_as_the_daemon_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under its [tls] doctor ended with a traceback: it is no client of that daemon's, and needs no certificate."""
    read = []

    def look(command: list[str], **_: object) -> NoReturn:
        read.append(Path(command[command.index("--config") + 1]).read_text())
        raise InterruptedError

    monkeypatch.setattr(subprocess, "Popen", look)
    with pytest.raises(InterruptedError):
        list(doctor_commands._throwaway())
    assert read == [""]


# ---- wrong use


def test_version() -> None:
    """Both commands say theirs."""
    assert re.fullmatch(r"runagentctl \d+\.\d+\.\d+\n", run("--version")[1])
    done = subprocess.run(
        [sys.executable, "-m", "runagentd.cli.runagentd", "--version"],
        cwd=ROOT, capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    assert re.fullmatch(r"runagentd \d+\.\d+\.\d+\n", done.stdout)


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("frobnicate",),
        ("logs",),
        ("restart",),
        ("token",),
        ("token", "create"),
        ("policy",),
        ("policy", "explain"),
        ("policy", "explain", "no-such-policy"),
        ("policy", "explain", "/no/such/file.toml"),
        ("check",),
        ("check", "examples/data", "--policy", "no-such-policy"),
        ("check", "examples/data", "--policy", "data=base"),
        ("ps", "--frobnicate"),
        ("scale", "x", "3:2"),
        ("deploy", "examples/data", "--instances", "3:2"),
    ],
    ids=" ".join,
)
def test_wrong_use_is_status_2_and_says_how_it_is_used(words: tuple[str, ...]) -> None:
    """On stderr, with nothing on stdout."""
    status, out, err = run(*words)
    assert (status, out) == (2, "")
    assert err.startswith("usage: runagentctl")
    assert re.search(r"^runagentctl.*: error: ", err, re.MULTILINE)


@pytest.mark.parametrize(
    "words", [("ps",), ("logs", "x"), ("restart", "x"), ("token", "create", "--subject", "x")], ids=" ".join
)
def test_without_a_state_directory_there_is_one_sentence(tmp_path: Path, words: tuple[str, ...]) -> None:
    """And what to do."""
    assert run(*words, state=tmp_path / "none") == (
        1,
        "",
        (
            f"runagentctl: {tmp_path}/none is not a state directory of runagentd\n"
            "hint: give --state-dir, or start 'runagentd serve' first\n"
        ),
    )


@pytest.mark.parametrize("words", [("warm",), ("policy", "check"), ("key", "rotate"), ("apply",)], ids=" ".join)
def test_each_command_says_in_its_help_what_it_does(words: tuple[str, ...]) -> None:
    """And not only in the list of all commands."""
    status, out, err = run(*words, "--help")
    assert (status, err) == (0, "")
    assert re.search(r"\n\n[A-Z][^:]+\.\n\n(positional arguments|options):\n", out)


def test_a_file_in_the_place_of_a_state_directory_is_one_sentence() -> None:
    """As a folder is that is none."""
    status, out, err = run("ps", state=Path("/etc/passwd"))
    assert (status, out) == (1, "")
    assert err.startswith("runagentctl: /etc/passwd is not a state directory of runagentd\nhint: ")


def test_without_a_running_daemon_there_is_one_sentence(tmp_path: Path) -> None:
    """The state directory is there, and nobody serves from it; tokens can be made all the same."""
    folder = agent(tmp_path, "quiet", "def run(): return 1", "run")
    state = tmp_path / "state"
    with serve([folder], options=["--state-dir", str(state)]):
        pass
    for words in (("ps",), ("restart", "quiet")):
        assert run(*words, state=state) == (
            1,
            "",
            (
                f"runagentctl: no daemon answers on {state}/admin.sock\n"
                "hint: is 'runagentd serve' running with this --state-dir?\n"
            ),
        )
    assert run("token", "create", "--subject", "x", state=state)[0] == 0


# ---- standard output


COMMANDS = [
    ("ps",),
    ("ps", "--json"),
    ("events",),
    ("describe", "other"),
    ("logs", "talker"),
    ("versions", "other"),
    ("top", "--once"),
    ("token", "create", "--subject", "x"),
    ("check", "examples/chat"),
    ("policy", "explain", "base"),
    ("schema", "policy"),
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_full_disk_and_a_reader_that_is_gone_are_no_traceback(daemon: Daemon, words: tuple[str, ...]) -> None:
    """What was not written is said in one sentence, and makes the status 1; who went away wants no words."""
    daemon.call("talker", "say", {"text": "hello"})
    wants_state = words[0] not in ("policy", "schema")
    state = ["--state-dir", str(daemon.state_dir)] if wants_state else []
    command = [sys.executable, "-m", "runagentd.cli.runagentctl", *words, *state]

    def ended(out: int) -> tuple[int, str]:
        done = subprocess.run(command, cwd=ROOT, stdout=out, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
        return done.returncode, done.stderr

    with open("/dev/full", "w") as full:
        status, err = ended(full.fileno())
    said = "standard output is not complete: no space left on device\n"
    assert (status, err.removeprefix("runagentctl: ").removeprefix("runagentd: ")) == (1, said)
    reading, writing = os.pipe()
    os.close(reading)
    try:
        assert ended(writing) == (1, "")
    finally:
        os.close(writing)


def test_without_a_standard_output_a_command_does_what_it_is_asked(daemon: Daemon) -> None:
    """As after `>&-`."""
    before = daemon.row("other").instance
    words = f"exec {sys.executable} -m runagentd.cli.runagentctl restart other --state-dir {daemon.state_dir} >&-"
    done = subprocess.run(["/bin/sh", "-c", words], cwd=ROOT, stderr=subprocess.PIPE, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    daemon.wait_until_ready("other", other_than=before)
