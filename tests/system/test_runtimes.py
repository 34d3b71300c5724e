"""Agents on two Python runtimes in one daemon: each is on its own, and what becomes of one is nothing to the other."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runagentd import interpreters, state
from runagentd.supervise import store
from tests import second_python
from tests.packages import made
from tests.second_python import VERSION
from tests.system.ctl import run
from tests.system.daemon import ROOT, Daemon, serve
from tests.system.folders import agent, policy
from tests.system.test_scaling import wait_until

pytestmark = [pytest.mark.root, pytest.mark.kernel, pytest.mark.slow]

SOURCE = """
    import os
    import sys

    def tells() -> dict:
        import json, ssl, sqlite3
        return {
            "version": list(sys.version_info[:3]), "prefix": sys.base_prefix, "stdlib": os.path.dirname(os.__file__),
            "json": json.__file__, "exe": os.readlink("/proc/self/exe"), "random": ssl.RAND_bytes(8).hex(),
        }

    def maps() -> list:
        return sorted({line.split()[-1] for line in open("/proc/self/maps") if line.count("/")})

    def there(paths: list[str]) -> list[str]:
        return [path for path in paths if os.path.exists(path)]

    def leave() -> None:
        os._exit(3)
"""
TAGS = ("tells", "maps", "there", "leave")


@pytest.fixture(scope="module")
def second() -> Iterator[Path]:
    """The interpreter of the other runtime. Not below /tmp: there a sandbox has its own."""
    with tempfile.TemporaryDirectory(prefix="runagentd-test-", dir=state.SCRATCH) as place:
        yield second_python.copy_to(Path(place, "python"))


def configured(place: Path, **interpreters: Path | str) -> list[str]:
    """The options of a daemon with these runtimes."""
    path = place / "runagentd.toml"
    lines = "".join(f"{json.dumps(version)} = {json.dumps(str(file))}\n" for version, file in interpreters.items())
    path.write_text(f"[runtimes]\n{lines}")
    return ["--config", str(path)]


@pytest.fixture(scope="module")
def daemon(second: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Two agents on each runtime, in each way of spawning, and one whose calls have forks of their own."""
    place = tmp_path_factory.mktemp("runtimes")
    fresh = policy(place, "fresh", '[process]\nspawn = "exec"\n')
    forked = policy(place, "forked", '[calls]\nisolation = "call"\n')
    folders = [
        agent(place, "own", SOURCE, *TAGS),
        agent(place, "own fresh", SOURCE, *TAGS),
        agent(place, "other", SOURCE, *TAGS, python=VERSION),
        agent(place, "other fresh", SOURCE, *TAGS, python=VERSION),
        agent(place, "other forked", SOURCE, *TAGS),
    ]
    (folders[-1] / ".python-version").write_text(f"{VERSION}\n")
    policies = [f"own fresh={fresh}", f"other fresh={fresh}", f"other forked={forked}"]
    with serve(folders, policies=policies, options=configured(place, **{VERSION: second})) as running:
        yield running


def prefix_of(second: Path) -> str:
    return str(second.parent.parent)


def another(second: Path, name: str) -> Path:
    """The prefix of one more of the same, by hard links."""
    prefix = second.parent.parent.with_name(name)
    subprocess.run(["cp", "-al", prefix_of(second), str(prefix)], check=True)
    return prefix


def zygotes(daemon: Daemon) -> dict[str, int]:
    return {row.name: row.pid for row in daemon.listing().daemons if row.name.startswith("zygote")}


RELEASE = ".".join(map(str, sys.version_info[:3]))


@pytest.mark.parametrize("name", ["other", "other fresh", "other forked"])
def test_an_agent_runs_on_the_runtime_that_it_asks_for(daemon: Daemon, second: Path, name: str) -> None:
    """By its configuration, or by .python-version."""
    status, told = daemon.call(name, "tells")
    prefix = prefix_of(second)
    assert (status, told["version"]) == (200, list(sys.version_info[:3]))
    assert told["prefix"] == prefix
    assert told["stdlib"] == f"{prefix}/lib/python{VERSION}"
    assert told["json"] == f"{prefix}/lib/python{VERSION}/json/__init__.py"
    assert told["exe"] == str(second)


@pytest.mark.parametrize("name", ["own", "own fresh"])
def test_an_agent_that_asks_for_nothing_runs_on_the_daemons_own(daemon: Daemon, name: str) -> None:
    status, told = daemon.call(name, "tells")
    assert (status, told["prefix"], told["exe"]) == (200, sys.base_prefix, interpreters.own())


@pytest.mark.parametrize("fresh", ["", " fresh"])
def test_nothing_of_one_runtime_is_in_a_sandbox_of_another(daemon: Daemon, second: Path, fresh: str) -> None:
    """Neither mounted nor mapped."""
    own, other = interpreters.own(), str(second)
    for name, its, foreign in (("own", own, other), ("other", other, own)):
        assert daemon.call(f"{name}{fresh}", "there", {"paths": [its, foreign]}) == (200, [its])
        status, mapped = daemon.call(f"{name}{fresh}", "maps")
        assert status == 200
        assert its in mapped
        assert foreign not in mapped


def test_each_runtime_has_a_zygote_and_the_operator_sees_which_is_whose(daemon: Daemon, second: Path) -> None:
    found = zygotes(daemon)
    assert set(found) == {"zygote", f"zygote {RELEASE}"}
    exes = {name: os.readlink(f"/proc/{pid}/exe") for name, pid in found.items()}
    assert exes == {"zygote": interpreters.own(), f"zygote {RELEASE}": str(second)}
    shown = {row.agent_name: row.python for row in daemon.instances()}
    assert shown == {"own": "", "own fresh": "", **{f"other{kind}": RELEASE for kind in ("", " fresh", " forked")}}


def test_ps_and_describe_name_the_runtime_where_it_is_not_the_daemons_own(daemon: Daemon) -> None:
    _, table, _ = run("ps", state=daemon.state_dir)
    head, *rows = table.splitlines()
    assert head.split()[-1] == "PYTHON"
    assert {row.split("  ")[0]: row.split()[-1] for row in rows}["own"] == "-"
    assert {row.split("  ")[0]: row.split()[-1] for row in rows}["other"] == RELEASE
    assert f"  python     {RELEASE}" in run("describe", "other", state=daemon.state_dir)[1].splitlines()
    assert "  python " not in run("describe", "own", state=daemon.state_dir)[1]


def test_forks_of_either_zygote_never_draw_the_same_random_numbers(daemon: Daemon) -> None:
    drawn = []
    for name in ("own", "other", "own fresh", "other fresh", "other forked") * 2:
        drawn.append(daemon.call(name, "tells")[1]["random"])
    assert len(set(drawn)) == len(drawn)


def test_a_zygote_that_is_killed_is_replaced_and_the_other_ones_agents_notice_nothing(daemon: Daemon) -> None:
    """Instances live on; the next one of each comes from a zygote of its own runtime."""
    before, instances = zygotes(daemon), {row.agent_name: row.instance for row in daemon.instances()}
    other = f"zygote {RELEASE}"
    os.kill(before[other], signal.SIGKILL)
    deadline = time.monotonic() + 20
    while zygotes(daemon)[other] == before[other]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert zygotes(daemon)["zygote"] == before["zygote"]
    assert {row.agent_name: row.instance for row in daemon.instances()} == instances
    for name, prefix in (("own", sys.base_prefix), ("other", None)):
        daemon.restart(name)
        row = daemon.wait_until_ready(name, other_than=instances[name])
        assert row.python == ("" if name == "own" else RELEASE)
        told = daemon.call(name, "tells")[1]
        assert (told["prefix"] == sys.base_prefix) is (prefix is not None)


def test_the_end_of_an_agent_on_one_runtime_is_nothing_to_the_other(daemon: Daemon) -> None:
    instance = daemon.row("own").instance
    daemon.call("other", "leave")
    assert daemon.wait_until_ready("other").python == RELEASE
    assert daemon.row("own").instance == instance


def test_a_runtime_that_is_not_there_is_refused_with_the_line_to_write(tmp_path: Path) -> None:
    folder = agent(tmp_path, "late", SOURCE, *TAGS, python="3.98")
    with pytest.raises(AssertionError) as caught, serve([folder]):
        pass
    assert (
        f"{folder}: it asks for Python 3.98, and there is {VERSION} only\n"
        'hint: name one in the daemon\'s configuration: [runtimes] "3.98" = "/path/to/python3.98"\n'
    ) in str(caught.value)


def test_an_interpreter_of_another_version_than_it_is_named_refuses_the_start(tmp_path: Path) -> None:
    """One sentence, before anything is started: exit status 2, as for every problem of the file."""
    options = configured(tmp_path, **{"3.98": interpreters.own()})
    done = subprocess.run(
        [sys.executable, "-m", "runagentd.cli.runagentd", "serve", "--state-dir", str(tmp_path / "state"), *options],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"runagentd: runagentd.toml: runtimes.3.98: {interpreters.own()} is Python {VERSION}\n"
        f'hint: name it as "{VERSION}"\n'
    )


def test_a_standard_library_that_others_than_root_can_change_is_refused(second: Path) -> None:
    """Its modules are imported by root: when it is asked what it is, and by its zygote."""
    library = second.parent.parent / f"lib/python{VERSION}"
    library.chmod(0o777)
    try:
        with pytest.raises(interpreters.Unfit) as refused:
            interpreters.inspect(VERSION, str(second))
    finally:
        library.chmod(0o755)
    assert str(refused.value) == f"{library} can be changed by others than root, and root runs what is there"


def test_an_interpreter_that_breaks_costs_its_own_agents_alone(second: Path, tmp_path: Path) -> None:
    """Its standard library is gone after it was looked at: no zygote starts, and the deploy says so."""
    prefix = another(second, "broken")
    options = configured(tmp_path, **{VERSION: prefix / f"bin/python{VERSION}"})
    own = agent(tmp_path, "own", SOURCE, *TAGS)
    with serve([own], options=options) as daemon:
        (prefix / f"lib/python{VERSION}/socket.py").unlink()
        broken = agent(tmp_path, "broken agent", SOURCE, *TAGS, python=VERSION)
        status, out, err = run("deploy", broken, state=daemon.state_dir)
        assert status == 1
        assert "did not start" in out + err
        assert daemon.call("own", "tells")[0] == 200
        daemon.restart("own")
        daemon.wait_until_ready("own")


def test_an_interpreter_that_is_gone_for_a_while_is_started_again_when_it_is_back(second: Path, tmp_path: Path) -> None:
    """As while another build takes its place; instances live on meanwhile, and others start."""
    prefix = another(second, "away")
    interpreter = prefix / f"bin/python{VERSION}"
    folders = [agent(tmp_path, "own", SOURCE, *TAGS), agent(tmp_path, "other", SOURCE, *TAGS, python=VERSION)]
    with serve(folders, options=configured(tmp_path, **{VERSION: interpreter})) as daemon:
        before = daemon.row("other").instance
        away = interpreter.rename(prefix / "away")
        os.kill(zygotes(daemon)[f"zygote {RELEASE}"], signal.SIGKILL)
        daemon.wait_for_log("no zygote can be started")
        assert daemon.call("other", "tells")[0] == 200
        daemon.restart("own")
        daemon.wait_until_ready("own")
        away.rename(interpreter)
        daemon.restart("other")
        daemon.wait_until_ready("other", other_than=before)
        assert daemon.call("other", "tells")[1]["prefix"] == str(prefix)


def test_sighup_takes_a_new_runtime_over_and_a_wrong_one_changes_nothing(second: Path, tmp_path: Path) -> None:
    own = agent(tmp_path, "own", SOURCE, *TAGS)
    other = agent(tmp_path, "other", SOURCE, *TAGS, python=VERSION)
    options = configured(tmp_path)
    with serve([own], options=options) as daemon:
        configured(tmp_path, **{VERSION: "/nowhere"})
        os.kill(daemon.process.pid, signal.SIGHUP)
        daemon.wait_for_log("the configuration was not taken over")
        configured(tmp_path, **{VERSION: second})
        os.kill(daemon.process.pid, signal.SIGHUP)
        daemon.wait_for_log("the configuration was read again")
        status, out, err = run("deploy", other, state=daemon.state_dir)
        assert status == 0, out + err
        daemon.token = run("token", "create", "--subject", "test", state=daemon.state_dir)[1].strip()
        assert daemon.call("other", "tells")[1]["prefix"] == prefix_of(second)


def test_after_an_update_in_its_place_new_instances_are_of_the_new_one(second: Path, tmp_path: Path) -> None:
    """And deploying the same folder makes another version, as for any other change."""
    prefix = another(second, "updated")
    options = configured(tmp_path, **{VERSION: prefix / f"bin/python{VERSION}"})
    folder = agent(tmp_path, "other", SOURCE, *TAGS, python=VERSION)
    with serve([], state_dir=tmp_path / "state", options=options) as daemon:
        assert run("deploy", folder, state=daemon.state_dir)[0] == 0
        before = daemon.wait_until_ready("other")
        wait_until(lambda: daemon.listing().standbys == 1)
        module = prefix / f"lib/python{VERSION}/platform.py"
        source = module.read_text()
        module.unlink()  # the file is that of all copies
        module.write_text(source + '\ndef python_version():\n    return "3.99.1"\n')
        os.kill(daemon.process.pid, signal.SIGHUP)
        daemon.wait_for_log("the configuration was read again")
        daemon.restart("other")
        after = daemon.wait_until_ready("other", other_than=before.instance)
        assert (before.python, after.python, after.number) == (RELEASE, "3.99.1", 1)
        # What stood by on the old one has ended, and stands in the way of no other.
        wait_until(lambda: daemon.listing().standbys == 1)
        daemon.restart("other")
        third = daemon.wait_until_ready("other", other_than=after.instance)
        assert (third.python, third.stood_by) == ("3.99.1", True)
        assert set(zygotes(daemon)) >= {"zygote", "zygote 3.99.1"}
        status, out, _ = run("deploy", folder, state=daemon.state_dir)
        rows = json.loads(run("versions", "other", "--json", state=daemon.state_dir)[1])["rows"]
        assert (status, [row["runtime"].split()[0] for row in rows]) == (0, ["3.99.1", RELEASE])
        assert "runtime" in out


def test_another_runtime_is_another_version_and_the_one_before_is_gone_back_to(second: Path, tmp_path: Path) -> None:
    """Also after the daemon was started again; without the runtime the agent is not served, in words."""
    at = tmp_path / "state"
    folder = agent(tmp_path, "moves", SOURCE, *TAGS)
    options = configured(tmp_path, **{VERSION: second})

    def token(daemon: Daemon) -> str:
        return run("token", "create", "--subject", "test", state=at)[1].strip()

    def prefix(daemon: Daemon) -> str:
        told: str = daemon.call("moves", "tells")[1]["prefix"]
        return told

    with serve([], state_dir=at, options=options) as daemon:
        daemon.token = token(daemon)
        assert run("deploy", folder, state=at)[0] == 0
        assert prefix(daemon) == sys.base_prefix
        (folder / ".python-version").write_text(f"{VERSION}\n")
        assert run("deploy", folder, state=at)[0] == 0
        assert prefix(daemon) == prefix_of(second)
        assert "nothing has changed" in run("deploy", folder, state=at)[1]
        rows = json.loads(run("versions", "moves", "--json", state=at)[1])["rows"]
        assert [row["runtime"].split()[0] for row in rows] == [RELEASE, RELEASE]
        assert rows[0]["runtime"] != rows[1]["runtime"]
        assert run("rollback", "moves", state=at)[0] == 0
        assert prefix(daemon) == sys.base_prefix
        assert run("promote", "moves", "v2", state=at)[0] == 0
    with serve([], state_dir=at, options=options) as daemon:
        daemon.token = token(daemon)
        assert prefix(daemon) == prefix_of(second)
    (folder / ".python-version").unlink()


def test_packages_are_installed_and_compiled_by_the_runtime_that_will_import_them(second: Path, tmp_path: Path) -> None:
    """Its builder sees that one, and not the daemon's own."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    tmp_path.chmod(0o755)
    made.wheel(wheels, "one", "1.0", {"one.py": "X = 1\n"})
    source = "import one, sys\n\n\ndef tells() -> list:\n    return [one.__spec__.cached, one.X, sys.base_prefix]\n"
    folder = agent(tmp_path, "uses", source, "tells", python=VERSION)
    (folder / "requirements.txt").write_text("one\n")
    options = configured(tmp_path, **{VERSION: second})
    Path(options[1]).write_text(Path(options[1]).read_text() + f"[packages]\nwheels = {json.dumps(str(wheels))}\n")
    with serve([folder], options=options) as daemon:
        assert daemon.call("uses", "tells") == (
            200, [f"/env/__pycache__/one.{sys.implementation.cache_tag}.pyc", 1, prefix_of(second)],
        )  # fmt: skip


def test_packages_of_another_minor_version_are_not_served_again(tmp_path: Path) -> None:
    """As after the daemon itself was moved to another Python: in words, where an import would fail in none."""
    wheels, at = tmp_path / "wheels", tmp_path / "state"
    wheels.mkdir()
    tmp_path.chmod(0o755)
    made.wheel(wheels, "one", "1.0", {"one.py": "X = 1\n"})
    folder = agent(tmp_path, "uses", "import one\n\n\ndef run() -> int:\n    return one.X\n", "run")
    (folder / "requirements.txt").write_text("one\n")
    (tmp_path / "runagentd.toml").write_text(f"[packages]\nwheels = {json.dumps(str(wheels))}\n")
    options = ["--config", str(tmp_path / "runagentd.toml")]
    with serve([], state_dir=at, options=options):
        status, out, err = run("deploy", folder, state=at)
        assert status == 0, out + err
    with sqlite3.connect(at / store.NAME) as database:
        database.execute("UPDATE versions SET runtime = '3.10.4 0', digest = 'that of another runtime'")
    database.close()
    with serve([], state_dir=at, options=options) as daemon:
        daemon.wait_for_log(f"its packages are for Python 3.10, and it would run on {VERSION}")
        status, out, err = run("deploy", folder, state=at)
        assert status == 0, out + err
        assert (daemon.row("uses").state, daemon.row("uses").number) == ("ready", 2)
