"""`runagentctl apply`: hosts that are managed by files. A real daemon, and files in a folder of root's."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from runagentd.foreman import admin_client
from runagentd.wire import admin
from tests.packages import made
from tests.system.ctl import change, ctl, kill_supervisor, run, states, versions
from tests.system.daemon import ROOT, Daemon, serve
from tests.system.folders import agent, policy

pytestmark = [pytest.mark.root, pytest.mark.slow]

SAY = """
    def say() -> str:
        return "one"
"""
WIDE = 'extends = "base"\n[resources]\nmemory_max = "512MiB"\npids_max = 32\n'


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """The folder of agent files."""
    made = tmp_path / "agents"
    made.mkdir()
    return made


def add(files: Path, name: str, text: str = "", *, source: str = SAY) -> Path:
    """An agent, and the file that has it serve; the agent's folder."""
    folder = agent(files.parent, name, source, "say")
    (files / f"{name}.toml").write_text(f'folder = "../{name}"\n{text}')
    return folder


def apply(daemon: Daemon, files: Path, *words: str) -> tuple[int, str, str]:
    return run("apply", files, *words, state=daemon.state_dir)


def told(daemon: Daemon, files: Path, *words: str) -> dict[str, Any]:
    """What `--json` has, by the names of agents."""
    _, out, err = apply(daemon, files, "--json", *words)
    assert err == ""
    return {row.get("name") or row["file"]: row for row in json.loads(out)["agents"]}


def everything(state: Path) -> dict[str, bytes]:
    """All that agents have in the state directory, with what is deployed as SQLite sees it."""
    found = {
        str(path.relative_to(state)): b"" if path.is_dir() else path.read_bytes()
        for place in ("agents", "environments")
        for path in (state / place).rglob("*")
    }
    script = f"import sqlite3; print(*sqlite3.connect({str(state / 'deployments.db')!r}).iterdump())"
    dump = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    return found | {"deployments.db": dump.stdout}


def test_files_are_applied_once_and_then_there_is_nothing_to_do(daemon: Daemon, files: Path) -> None:
    """New agents serve with what their files say; the second time nothing happens."""
    add(files, "chat", 'aliases = ["stable", "blue"]\n[scaling]\ninstances_max = 1\n')
    add(files, "data", 'name = "data eu"\npolicy = "compute"\n')
    (files / ".hidden.toml").write_text("nonsense")
    (files / "README").write_text("nonsense")
    status, out, err = apply(daemon, files, "--yes")
    assert (status, err) == (0, "")
    assert [line for line in out.splitlines() if line.startswith(("new", "2 new"))] == [
        "new        chat", "new        data eu", "2 new",
    ]  # fmt: skip
    assert "chat: v1 serves\n" in out
    assert daemon.call("chat", "say") == (200, "one")
    assert daemon.call("chat@blue", "say") == (200, "one")
    assert daemon.call("data eu", "say") == (200, "one")
    assert versions(daemon)[1]["aliases"] == ["blue", "stable"]
    assert versions(daemon, "data eu")[1]["policy"] == "compute"
    assert json.loads(ctl(daemon, "describe", "chat", "--json"))["bounds"]["instances_max"] == 1
    assert f"chat is managed by {files}/chat.toml" in ctl(daemon, "versions", "chat")
    before = everything(daemon.state_dir)
    instances = {row.instance for row in daemon.instances()}
    assert apply(daemon, files) == (0, "unchanged  chat\nunchanged  data eu\n2 unchanged\nnothing to do\n", "")
    assert {row.instance for row in daemon.instances()} == instances
    assert everything(daemon.state_dir) == before


def test_what_changes_is_shown_key_by_key_and_then_done(daemon: Daemon, files: Path) -> None:
    """Code, configuration, policy, aliases; a wider policy only where the file allows it."""
    folder = add(files, "chat", 'aliases = ["stable"]\n')
    apply(daemon, files, "--yes")
    change(folder, "two")
    configuration = json.loads((folder / "runagent.config.json").read_text())
    (folder / "runagent.config.json").write_text(json.dumps({**configuration, "description": "another"}))
    policy(files.parent, "wide", WIDE)
    text = 'folder = "../chat"\naliases = ["stable", "blue"]\npolicy = "../wide.toml"\n'
    (files / "chat.toml").write_text(text)
    status, out, err = apply(daemon, files, "--yes")
    assert (status, err) == (1, "")
    assert out.startswith("refused    chat\n")
    where = f"{files}/chat.toml: policy"
    assert f'  {where}: is wider than that of v1: resources.memory_max = "512MiB", was "256MiB"\n' in out
    assert "  hint: allow_widening = true in the file allows it\n" in out
    assert states(daemon) == {1: "serving"}
    (files / "chat.toml").write_text(text + "allow_widening = true\n")
    status, out, err = apply(daemon, files, "--yes")
    assert (status, err) == (0, "")
    assert out.splitlines()[:10] == [
        "changed    chat",
        f"  file     {files}/chat.toml",
        f"  folder   {files}/../chat",
        "  serves   another version, in the place of v1",
        "  changed  code, configuration, policy",
        '  policy   wider     resources.memory_max = "512MiB", was "256MiB"',
        "  policy   narrower  resources.pids_max = 32, was 64",
        "  alias    stable leads to it, and led to v1",
        "  alias    blue leads to it",
        "1 changed",
    ]
    assert "chat: v2 serves, in the place of v1\n" in out
    assert daemon.call("chat@stable", "say") == (200, "two")
    assert versions(daemon)[2]["aliases"] == ["blue", "stable"]


def test_a_dry_run_leaves_nothing(daemon: Daemon, files: Path) -> None:
    """No instance, no snapshot, no row, no event: also where it finds what is wrong."""
    folder = add(files, "chat")
    apply(daemon, files, "--yes")
    change(folder, "two")
    add(files, "other")
    broken = add(files, "broken")
    (broken / "runagent.config.json").write_text("{")
    ctl(daemon, "events")
    before = everything(daemon.state_dir), ctl(daemon, "events"), {row.instance for row in daemon.instances()}
    status, out, err = apply(daemon, files, "--dry-run", "--prune")
    assert (status, err) == (2, "")
    assert re.findall(r"^(\w+) +(\w+)$", out, re.MULTILINE) == [
        ("refused", "broken"), ("changed", "chat"), ("new", "other"),
    ]  # fmt: skip
    assert "broken/runagent.config.json: " in out
    after = everything(daemon.state_dir), ctl(daemon, "events"), {row.instance for row in daemon.instances()}
    assert after == before
    (files / "broken.toml").unlink()
    assert apply(daemon, files, "--dry-run")[0] == 1
    assert daemon.call("chat", "say") == (200, "one")


def test_one_that_is_broken_holds_up_no_other(daemon: Daemon, files: Path) -> None:
    """Whether its file, its folder or its code is wrong; the exit status says that not all is as the files say."""
    add(files, "a-code", source="import nothing_of_that_name\n")
    (files / "b-file.toml").write_text('foldr = "x"\n')
    (files / "c-folder.toml").write_text('folder = "nowhere"\n')
    add(files, "d-policy", 'policy = "bsae"\n')
    add(files, "e-bounds", "[scaling]\ninstances_min = 9\ninstances_max = 999\n")
    add(files, "f-well")
    status, out, err = apply(daemon, files, "--yes")
    assert status == 1
    for words in (
        f"{files}/b-file.toml: foldr: there is no such key",
        f"{files}/c-folder.toml: folder: {files}/nowhere: no such file or directory",
        "no such shipped policy",
        f"{files}/e-bounds.toml: scaling: 9:999 is not within what policy base allows",
    ):
        assert f"  {words}" in out or words in out
    assert f"a-code: not applied ({files}/a-code.toml)" in err
    assert "ModuleNotFoundError: No module named 'nothing_of_that_name'" in err
    assert {row.agent_name for row in daemon.instances()} == {"f-well"}
    found = told(daemon, files, "--yes")
    assert {row["state"] for row in found.values()} == {"new", "refused", "unchanged"}
    assert (found["a-code"]["result"], found["f-well"]["result"]) == ("failed", None)
    assert found["a-code"]["deployed"]["report"][0]["what"].startswith("the import failed: ModuleNotFoundError")


def test_what_no_file_names_any_more_goes_only_if_asked_for(daemon: Daemon, files: Path, tmp_path: Path) -> None:
    """And nothing that was deployed by hand, or that files elsewhere manage; nothing while a file is refused."""
    for name in ("chat", "old"):
        add(files, name)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "far.toml").write_text(f'folder = "{agent(tmp_path, "far", SAY, "say")}"\n')
    ctl(daemon, "deploy", agent(tmp_path, "hand", SAY, "say"))
    for place in (files, elsewhere):
        assert apply(daemon, place, "--yes")[0] == 0
    (files / "old.toml").unlink()
    status, out, err = apply(daemon, files, "--yes")
    assert (status, err) == (0, "")
    assert (
        f"gone       old\n  file     {files}/old.toml, no longer in the files\n  stays    --prune removes it\n" in out
    )
    assert out.endswith("nothing to do\n")
    (files / "typo.toml").write_text("foldr = 1\n")
    status, _, err = apply(daemon, files, "--yes", "--prune")
    assert (status, err) == (1, "nothing is removed while a file is refused\n")
    (files / "typo.toml").unlink()
    everybody = {"chat", "old", "far", "hand"}
    assert {row.agent_name for row in daemon.instances()} == everybody
    assert apply(daemon, files, "--dry-run", "--prune")[0] == 1
    status, out, err = apply(daemon, files, "--yes", "--prune")
    assert (status, err) == (0, "")
    assert out.endswith("old: served no more; what it has kept stays\n")
    assert {row.agent_name for row in daemon.instances()} == everybody - {"old"}
    assert apply(daemon, files, "--yes", "--prune")[1].endswith("nothing to do\n")


def test_an_agent_under_another_name_takes_the_place_of_the_one_before(daemon: Daemon, files: Path) -> None:
    """The file makes another one: the one before is gone, and stays while the other does not start."""
    folder = add(files, "chat")
    apply(daemon, files, "--yes")
    (files / "chat.toml").write_text('folder = "../chat"\nname = "talk"\n')
    good = (folder / "agent.py").read_text()
    (folder / "agent.py").write_text("import nothing_of_that_name\n")
    status, _, err = apply(daemon, files, "--yes", "--prune")
    assert status == 1
    assert err.endswith("nothing was removed, for not all else is as the files say\n")
    assert daemon.call("chat", "say") == (200, "one")
    (folder / "agent.py").write_text(good)
    assert apply(daemon, files, "--yes", "--prune")[0] == 0
    assert {row.agent_name for row in daemon.instances()} == {"talk"}


def test_two_files_for_one_agent_are_both_refused(daemon: Daemon, files: Path) -> None:
    """Each names the other."""
    add(files, "chat")
    (files / "again.toml").write_text('folder = "../chat"\n')
    add(files, "other")
    status, out, _ = apply(daemon, files, "--yes")
    assert status == 1
    assert f"{files}/chat.toml: is the same agent as in {files}/again.toml: " in out
    assert f"{files}/again.toml: is the same agent as in {files}/chat.toml: " in out
    assert {row.agent_name for row in daemon.instances()} == {"other"}


def test_what_was_done_by_hand_is_taken_back_and_taken_over(daemon: Daemon, files: Path) -> None:
    """A rollback and a deploy in between; what was deployed by hand becomes its file's once the operator says so."""
    folder = add(files, "chat", 'aliases = ["stable"]\n')
    ctl(daemon, "deploy", folder)
    status, out, _ = apply(daemon, files, "--yes")
    assert status == 1
    assert f"'chat' is taken: it was deployed by hand from '{folder}'\n" in out
    assert "  hint: 'runagentctl apply --take-over' has this file manage it: " in out
    assert "  managed  by this file, and by hand so far\n" in apply(daemon, files, "--dry-run", "--take-over")[1]
    status, out, err = apply(daemon, files, "--yes", "--take-over")
    assert (status, err) == (0, "")
    assert out.endswith("chat: v1 serves as before, stable leads to it\n")
    change(folder, "two")
    hint = f"hint: {files}/chat.toml manages this agent: the next 'runagentctl apply' has serve what that says"
    assert hint in ctl(daemon, "deploy", folder, "--instances", "1:1", "--policy", "compute", "--allow-widening")
    assert "  serves   another version, in the place of v2\n" in apply(daemon, files, "--yes")[1]
    assert daemon.call("chat@stable", "say") == (200, "two")
    ctl(daemon, "promote", "chat", "v2")
    assert "  serves   v3, which is kept, in the place of v2\n" in apply(daemon, files, "--yes")[1]
    assert states(daemon)[3] == "serving"
    assert apply(daemon, files)[1].endswith("nothing to do\n")


def test_it_asks_at_a_terminal_and_nowhere_else(daemon: Daemon, files: Path) -> None:
    """A no, an empty line and an end of input are no; --json never asks."""
    add(files, "chat")
    status, out, err = apply(daemon, files)
    assert (status, out.splitlines()[-1]) == (1, "1 new")
    assert err == "nothing was applied: there is no terminal to ask at\nhint: --yes applies without a question\n"
    assert apply(daemon, files, "--json")[::2] == (
        2, "runagentctl: --json asks nothing: give --dry-run or --yes with it\n",
    )  # fmt: skip
    command = [sys.executable, "-m", "runagentd.cli.runagentctl", "apply", str(files)]
    command += ["--state-dir", str(daemon.state_dir)]
    for answer, expected in ((b"n\n", 1), (b"\n", 1), (b"\x04", 1), (b"y\n", 0)):
        ours, theirs = pty.openpty()
        os.write(ours, answer)
        done = subprocess.run(command, cwd=ROOT, stdin=theirs, capture_output=True, text=True, timeout=60, check=False)
        os.close(ours)
        os.close(theirs)
        assert done.returncode == expected
        assert done.stderr == "apply? [y/N] " + ("" if expected == 0 else "nothing was applied\n")
        assert [row.agent_name for row in daemon.instances()] == (["chat"] if expected == 0 else [])


def test_what_is_not_what_was_shown_is_not_applied(daemon: Daemon, files: Path) -> None:
    """Somebody changes the folder, or has another version serve, while the question is on the screen."""
    folder = add(files, "chat")
    apply(daemon, files, "--yes")
    command = [sys.executable, "-m", "runagentd.cli.runagentctl", "apply", str(files)]
    command += ["--state-dir", str(daemon.state_dir)]

    def asked(between: Any) -> subprocess.CompletedProcess[str]:  # Any: nothing is taken from it
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        assert process.stderr.read(13) == "apply? [y/N] "
        between()
        os.write(ours, b"y\n")
        out, err = process.communicate(timeout=60)
        os.close(ours)
        os.close(theirs)
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    change(folder, "two")
    done = asked(lambda: change(folder, "three"))
    assert done.returncode == 1
    assert "is not what it was when the difference was shown, or what is deployed has changed meanwhile" in done.stderr
    assert daemon.call("chat", "say") == (200, "one")
    done = asked(lambda: ctl(daemon, "deploy", folder, "--policy", "compute", "--allow-widening"))
    assert done.returncode == 1
    assert states(daemon)[2] == "serving"
    assert asked(lambda: None).returncode == 0


def test_only_roots_own_files_are_read(daemon: Daemon, files: Path) -> None:
    """Not what somebody else owns or may write, links, FIFOs or folders, each with its reason; nor such a folder."""
    for name in ("owner", "group", "world"):
        add(files, name)
    os.chown(files / "owner.toml", 1234, 0)
    (files / "group.toml").chmod(0o664)
    (files / "world.toml").chmod(0o646)
    (files / "link.toml").symlink_to("owner.toml")
    os.mkfifo(files / "pipe.toml")
    (files / "folder.toml").mkdir()
    status, out, _ = apply(daemon, files, "--yes")
    assert status == 1
    for name, words in (
        ("owner", "belongs to uid 1234, who could have another agent served"),
        ("group", "others than its owner may write it, and so have another agent served"),
        ("world", "others than its owner may write it, and so have another agent served"),
        ("link", "is a link: name the file that it leads to"),
        ("pipe", "is not a regular file"),
        ("folder", "is not a regular file"),
    ):
        assert f"  {files}/{name}.toml: {words}\n" in out
    assert daemon.instances() == []
    files.chmod(0o777)
    status, out, err = apply(daemon, files, "--yes")
    assert (status, out) == (1, "")
    assert f"{files}: others than its owner may write it" in err
    assert apply(daemon, files, "--dry-run")[0] == 2
    for name in ("link", "pipe", "owner"):
        assert f"  {files}: others than its owner may write it" in apply(daemon, files / f"{name}.toml")[1]
    assert apply(daemon, files / "nothing.toml", "--yes")[0] == 1


def test_a_supervisor_that_is_killed_in_between_knows_all_that_was_applied(daemon: Daemon, files: Path) -> None:
    """Also who manages what: there is nothing to do, and what is gone can be removed."""
    folder = add(files, "chat", 'aliases = ["stable"]\n')
    add(files, "old")
    apply(daemon, files, "--yes")
    kill_supervisor(daemon)
    for name in ("chat", "old"):
        daemon.wait_until_ready(name)
    assert apply(daemon, files) == (0, "unchanged  chat\nunchanged  old\n2 unchanged\nnothing to do\n", "")
    (files / "old.toml").unlink()
    change(folder, "two")
    kill_supervisor(daemon)
    daemon.wait_until_ready("chat")
    assert apply(daemon, files, "--yes", "--prune")[0] == 0
    assert daemon.call("chat@stable", "say") == (200, "two")
    assert {row.agent_name for row in daemon.instances()} == {"chat"}


def test_a_supervisor_that_is_killed_meanwhile_costs_one_agent_its_turn(daemon: Daemon, files: Path) -> None:
    """The command says so and goes on with the others; to apply again is all there is to do."""
    slow = add(files, "a-slow", source="import time\ntime.sleep(20)\n" + textwrap.dedent(SAY))
    add(files, "b-well")
    said: list[tuple[int, str, str]] = []
    command = threading.Thread(target=lambda: said.append(apply(daemon, files, "--yes")))
    command.start()
    end = time.monotonic() + 20
    while not any(row.instance for row in daemon.instances()):
        assert time.monotonic() < end
        time.sleep(0.02)
    kill_supervisor(daemon)
    command.join()
    status, out, err = said[0]
    assert status == 1
    assert f"a-slow: not applied ({files}/a-slow.toml)\n{files}/a-slow.toml: the supervisor " in err
    assert "hint: to apply again does no harm\n" in err
    assert "b-well: v1 serves\n" in out
    (slow / "agent.py").write_text(textwrap.dedent(SAY))
    assert apply(daemon, files, "--yes")[0] == 0
    assert {row.agent_name for row in daemon.instances()} == {"a-slow", "b-well"}


def test_an_agent_that_somebody_made_meanwhile_is_not_removed(daemon: Daemon, files: Path) -> None:
    """Between the question and the answer another file can have taken it over, or an operator have made it anew."""
    folder = add(files, "chat")
    apply(daemon, files, "--yes")
    remove = admin.Remove(agent="chat", version="", managed_by=f"{files}/other.toml")
    reply = admin_client.ask(daemon.state_dir / "admin.sock", remove)
    assert reply == admin.Failed(message=f"{files}/other.toml does not manage the agent any more")
    ctl(daemon, "remove", "chat")
    ctl(daemon, "deploy", folder)
    remove = admin.Remove(agent="chat", version="", managed_by=f"{files}/chat.toml")
    assert isinstance(admin_client.ask(daemon.state_dir / "admin.sock", remove), admin.Failed)
    assert daemon.call("chat", "say") == (200, "one")


def test_packages_are_not_installed_to_see_what_would_change(tmp_path: Path, files: Path) -> None:
    """It is said that they will be, and whether another environment comes of it is known only then."""
    (tmp_path / "wheels").mkdir()
    tmp_path.chmod(0o755)
    made.wheel(tmp_path / "wheels", "spam", "1.0", {"spam.py": ""})
    config = tmp_path / "runagentd.toml"
    config.write_text(f'[packages]\nwheels = "{tmp_path}/wheels"\n')
    folder = add(files, "chat")
    with serve([], options=["--config", str(config)]) as served:
        apply(served, files, "--yes")
        (folder / "requirements.txt").write_text("spam\n")
        before = everything(served.state_dir)
        row = told(served, files, "--dry-run")["chat"]
        assert (row["changed"], row["packages"]) == (["code", "environment", "configuration"], True)
        assert everything(served.state_dir) == before
        assert apply(served, files, "--yes")[0] == 0
        assert apply(served, files, "--yes")[1].endswith("nothing to do\n")


def test_a_folder_does_not_become_the_agent_of_another_file_by_saying_so(daemon: Daemon, files: Path) -> None:
    """Its author decides what it calls itself, but not whose calls it gets; the operator's word does."""
    elsewhere = files.parent / "elsewhere"
    elsewhere.mkdir()
    add(files, "bank")
    folder = add(elsewhere, "weather")
    for place in (files, elsewhere):
        assert apply(daemon, place, "--yes")[0] == 0
    change(folder, "stolen")
    configuration = json.loads((folder / "runagent.config.json").read_text())
    (folder / "runagent.config.json").write_text(json.dumps({**configuration, "agent_name": "bank"}))
    status, out, _ = apply(daemon, elsewhere, "--yes", "--prune")
    assert status == 1
    assert f"'bank' is taken: {files}/bank.toml has it serve from '{files.parent}/bank'\n" in out
    assert (daemon.call("bank", "say"), daemon.call("weather", "say")) == ((200, "one"), (200, "one"))
    with (elsewhere / "weather.toml").open("a") as file:
        file.write('name = "bank"\n')
    assert apply(daemon, elsewhere, "--yes")[0] == 1, "to call it so is not to know that there is one"
    assert "  replaces what was served from " in apply(daemon, elsewhere, "--dry-run", "--take-over")[1]
    assert apply(daemon, elsewhere, "--yes", "--take-over")[0] == 0
    assert daemon.call("bank", "say") == (200, "stolen")


def test_a_file_that_was_moved_manages_its_agent_as_before(daemon: Daemon, files: Path) -> None:
    """Under another name or in another folder; but not beside the one that is still there."""
    folder = add(files, "chat")
    apply(daemon, files, "--yes")
    (files / "50-chat.toml").write_text(f'folder = "{folder}"\n')
    status, out, _ = apply(daemon, files / "50-chat.toml", "--yes")
    assert status == 1
    assert f"'chat' is an agent that another file manages: {files}/chat.toml\n" in out
    (files / "chat.toml").unlink()
    assert apply(daemon, files, "--yes")[0] == 0
    assert f"chat is managed by {files}/50-chat.toml" in ctl(daemon, "versions", "chat")
