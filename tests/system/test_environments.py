"""Agents with packages of their own, in a real daemon: installed, shared, found again, and never anybody else's."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import certificates
from tests.packages import index, made, raw
from tests.system import daemon, folders
from tests.system.ctl import run
from tests.system.daemon import ROOT, Daemon

pytestmark = [pytest.mark.root, pytest.mark.kernel, pytest.mark.slow]

USES = """
    import importlib.metadata
    import sys

    import msgspec
    import pydantic


    def versions() -> list:
        return [msgspec.__version__, pydantic.VERSION, importlib.metadata.version("pydantic")]


    def path() -> list:
        return [sys.path[0], sys.path[-1], msgspec.__file__, msgspec.__spec__.cached]


    def tries() -> list:
        import os

        def outcome(what, *arguments):
            try:
                what(*arguments)
            except OSError as error:
                return error.strerror
            return "done"

        return [
            outcome(open, "/env/new.py", "w"),
            outcome(open, "/env/msgspec/__init__.py", "a"),
            outcome(os.unlink, "/env/pydantic.py"),
            outcome(os.chmod, "/env/pydantic.py", 0o777),
            outcome(os.rename, "/env/pydantic.py", "/env/other.py"),
        ]
"""


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """What the daemon itself has in other versions."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    tmp_path.chmod(0o755)
    made.wheel(folder, "msgspec", "99.0", {"msgspec/__init__.py": "__version__ = '99.0'\n"})
    made.wheel(folder, "pydantic", "99.0", {"pydantic.py": "VERSION = '99.0'\n"}, requires=["msgspec"])
    return folder


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def configured(tmp_path: Path, **packages: Any) -> list[str]:
    """The options of a daemon that has this table."""
    path = tmp_path / "runagentd.toml"
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in packages.items())
    path.write_text(f"[packages]\n{lines}")
    return ["--config", str(path)]


def uses(tmp_path: Path, name: str = "uses", requirements: str = "pydantic\n") -> Path:
    folder = folders.agent(tmp_path, name, USES, "versions", "path", "tries")
    (folder / "requirements.txt").write_text(requirements)
    return folder


def trees(state: Path) -> list[str]:
    return sorted(path.name for path in (state / "environments/trees").iterdir())


def not_served(tmp_path: Path, folder: Path, *options: str, variables: dict[str, str] | None = None) -> str:
    """What `serve` says, which does not come up."""
    with pytest.raises(AssertionError) as caught, daemon.serve([folder], options=options, variables=variables):
        pass
    return str(caught.value)


def test_the_agents_version_of_a_library_wins_over_the_daemons(tmp_path: Path, wheels: Path) -> None:
    with daemon.serve([uses(tmp_path)], options=configured(tmp_path, wheels=str(wheels))) as served:
        assert served.call("uses", "versions") == (200, ["99.0", "99.0", "99.0"])


@pytest.mark.parametrize("spawn", ["fork", "exec"])
def test_it_comes_after_the_standard_library_as_site_packages_do(tmp_path: Path, wheels: Path, spawn: str) -> None:
    policy = folders.policy(tmp_path, "policy", f'[process]\nspawn = "{spawn}"\n')
    options = configured(tmp_path, wheels=str(wheels))
    with daemon.serve([uses(tmp_path)], options=options, policies=[policy]) as served:
        tag = sys.implementation.cache_tag
        assert served.call("uses", "path") == (
            200, ["/app", "/env", "/env/msgspec/__init__.py", f"/env/msgspec/__pycache__/__init__.{tag}.pyc"],
        )  # fmt: skip


def test_a_library_cannot_take_the_place_of_the_standard_library(tmp_path: Path, wheels: Path) -> None:
    made.wheel(wheels, "shadow", "1.0", {"json.py": "FAKE = True\n", "sitecustomize.py": "raise SystemExit(3)\n"})
    source = "import json\n\n\ndef run() -> bool:\n    return hasattr(json, 'FAKE')\n"
    folder = folders.agent(tmp_path, "shadowed", source, "run")
    (folder / "requirements.txt").write_text("shadow\n")
    with daemon.serve([folder], options=configured(tmp_path, wheels=str(wheels))) as served:
        assert served.call("shadowed", "run") == (200, False)


def test_nothing_in_an_environment_runs_by_itself(tmp_path: Path, wheels: Path) -> None:
    """`.pth` files, whose lines `site` would run, and the modules that it would import."""
    writes = "import sys; sys.ran = True"
    files = {"one.py": "", "one.pth": f"{writes}\n", "sitecustomize.py": writes, "usercustomize.py": writes}
    made.wheel(wheels, "one", "1.0", files)
    source = "import sys\n\nimport one\n\n\ndef run() -> bool:\n    return hasattr(sys, 'ran')\n"
    folder = folders.agent(tmp_path, "quiet", source, "run")
    (folder / "requirements.txt").write_text("one\n")
    for spawn in ("fork", "exec"):
        policy = folders.policy(tmp_path, spawn, f'[process]\nspawn = "{spawn}"\n')
        with daemon.serve([folder], options=configured(tmp_path, wheels=str(wheels)), policies=[policy]) as served:
            assert served.call("quiet", "run") == (200, False)


def test_an_agent_cannot_change_its_environment(tmp_path: Path, wheels: Path) -> None:
    with daemon.serve([uses(tmp_path)], options=configured(tmp_path, wheels=str(wheels))) as served:
        status, found = served.call("uses", "tries")
        assert status == 200
        read_only = "Read-only file system"
        assert found == [read_only, "Permission denied", read_only, read_only, read_only]
        assert served.call("uses", "versions") == (200, ["99.0", "99.0", "99.0"])


def test_agents_with_the_same_requirements_share_one_and_build_it_once(
    tmp_path: Path, wheels: Path, state: Path
) -> None:
    agents = [uses(tmp_path, name) for name in ("one", "two", "three")]
    with daemon.serve(agents, options=configured(tmp_path, wheels=str(wheels)), state_dir=state) as served:
        for name in ("one", "two", "three"):
            assert served.call(name, "versions") == (200, ["99.0", "99.0", "99.0"])
        assert served.log.read_text().count("an environment was built") == 1
        assert len(trees(state)) == 1


def test_other_requirements_with_the_same_result_share_one(tmp_path: Path, wheels: Path, state: Path) -> None:
    agents = [uses(tmp_path, "one"), uses(tmp_path, "two", "# the same\nmsgspec\npydantic==99.0\n")]
    with daemon.serve(agents, options=configured(tmp_path, wheels=str(wheels)), state_dir=state) as served:
        built = served.log.read_text().count("an environment was built")
    assert (built, len(trees(state))) == (2, 1)


def test_a_second_start_builds_nothing(tmp_path: Path, wheels: Path, state: Path) -> None:
    folder, options = uses(tmp_path), configured(tmp_path, wheels=str(wheels))
    with daemon.serve([folder], options=options, state_dir=state) as served:
        first = served.log.read_text()
    with daemon.serve([folder], options=options, state_dir=state) as served:
        second = served.log.read_text()
        assert served.call("uses", "versions") == (200, ["99.0", "99.0", "99.0"])
    assert ("an environment was built" in first, "an environment was built" in second) == (True, False)


def test_it_is_served_again_after_the_supervisor_was_killed(tmp_path: Path, wheels: Path, state: Path) -> None:
    with daemon.serve([uses(tmp_path)], options=configured(tmp_path, wheels=str(wheels)), state_dir=state) as served:
        before = served.row("uses").instance
        os.kill(supervisor_of(served), signal.SIGKILL)
        served.wait_until_ready("uses", other_than=before)
        assert served.call("uses", "versions") == (200, ["99.0", "99.0", "99.0"])
        assert served.log.read_text().count("an environment was built") == 1


def test_what_nothing_uses_any_more_is_removed(tmp_path: Path, wheels: Path, state: Path) -> None:
    folder = uses(tmp_path)
    options = configured(tmp_path, wheels=str(wheels), keep="0")
    with daemon.serve([folder], options=options, state_dir=state):
        old = trees(state)
    made.wheel(wheels, "pydantic", "98.0", {"pydantic.py": "VERSION = '98.0'\n"}, requires=["msgspec"])
    (folder / "requirements.txt").write_text("pydantic==98.0\n")
    with daemon.serve([folder], options=options, state_dir=state) as served:
        assert served.call("uses", "versions") == (200, ["99.0", "98.0", "98.0"])
        assert len(trees(state)) == 1
        assert trees(state) != old


def test_a_wheel_that_was_put_there_later_is_seen(tmp_path: Path, wheels: Path, state: Path) -> None:
    folder, options = uses(tmp_path), configured(tmp_path, wheels=str(wheels))
    with daemon.serve([folder], options=options, state_dir=state) as served:
        assert served.call("uses", "versions") == (200, ["99.0", "99.0", "99.0"])
    made.wheel(wheels, "pydantic", "99.1", {"pydantic.py": "VERSION = '99.1'\n"}, requires=["msgspec"])
    with daemon.serve([folder], options=options, state_dir=state) as served:
        assert served.call("uses", "versions") == (200, ["99.0", "99.1", "99.1"])


def test_a_change_of_requirements_is_reloaded_and_a_broken_one_changes_nothing(tmp_path: Path, wheels: Path) -> None:
    made.wheel(wheels, "pydantic", "98.0", {"pydantic.py": "VERSION = '98.0'\n"}, requires=["msgspec"])
    folder = uses(tmp_path)
    options = [*configured(tmp_path, wheels=str(wheels)), "--reload"]
    with daemon.serve([folder], options=options) as served:
        assert served.call("uses", "versions") == (200, ["99.0", "99.0", "99.0"])
        (folder / "requirements.txt").write_text("pydantic==1.0\n")
        served.wait_for_log("the agent goes on as it was before the change")
        assert f"{folder}/requirements.txt: error: No solution found" in served.log.read_text()
        assert served.call("uses", "versions") == (200, ["99.0", "99.0", "99.0"])
        (folder / "requirements.txt").write_text("pydantic==98.0\n")
        served.wait_for_log("uses: reloaded in")
        assert served.call("uses", "versions") == (200, ["99.0", "98.0", "98.0"])


def test_a_project_and_a_lock_are_taken_too(tmp_path: Path, wheels: Path) -> None:
    project = '[project]\nname = "uses"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["pydantic"]\n'
    folder = uses(tmp_path)
    (folder / "requirements.txt").unlink()
    (folder / "pyproject.toml").write_text(project)
    options = configured(tmp_path, wheels=str(wheels))
    with daemon.serve([folder], options=options) as served:
        assert served.call("uses", "versions") == (200, ["99.0", "99.0", "99.0"])
    with index.serve(wheels) as served_index:
        locked = subprocess.run(
            [Path(sys.executable).parent / "uv", "lock", "--quiet", "--no-config"],
            cwd=folder, check=False, capture_output=True, text=True, timeout=60,
            env={"HOME": str(tmp_path), "UV_PYTHON": sys.executable, "UV_DEFAULT_INDEX": served_index.address},
        )  # fmt: skip
        assert locked.returncode == 0, locked.stderr
        made.wheel(wheels, "pydantic", "99.1", {"pydantic.py": "VERSION = '99.1'\n"}, requires=["msgspec"])
        with daemon.serve([folder], options=configured(tmp_path, index=served_index.address)) as served:
            assert served.call("uses", "versions") == (200, ["99.0", "99.0", "99.0"])
        # The same version with other contents is not what was locked.
        made.wheel(wheels, "pydantic", "99.0", {"pydantic.py": "VERSION = 'evil'\n"}, requires=["msgspec"])
        said = not_served(tmp_path, folder, *configured(tmp_path, index=served_index.address))
        assert "uv.lock: error: " in said
        assert "Hash mismatch for `pydantic==99.0`" in said


# ---- the index


def test_packages_come_through_the_egress_process(tmp_path: Path, wheels: Path) -> None:
    with index.serve(wheels, login="alice:hunter2secret") as served_index:
        address = served_index.address.replace("://", "://alice:hunter2secret@")
        with daemon.serve([uses(tmp_path)], options=configured(tmp_path, index=address)) as served:
            assert served.call("uses", "versions") == (200, ["99.0", "99.0", "99.0"])
            assert served.egress_pid() > 0
            assert "hunter2secret" not in served.log.read_text()
            status, found = served.call("uses", "path")
            assert (status, found[1]) == (200, "/env")


def test_a_password_of_an_index_is_in_no_refusal(tmp_path: Path, wheels: Path) -> None:
    with index.serve(wheels, login="alice:hunter2secret") as served_index:
        address = served_index.address.replace("://", "://alice:hunter2secreX@")
        said = not_served(tmp_path, uses(tmp_path), *configured(tmp_path, index=address))
    assert "hunter2secreX" not in said
    assert "requirements.txt: error: " in said


def test_an_index_with_a_certificate_of_its_own_authority(tmp_path: Path, wheels: Path) -> None:
    """TLS is between uv and the index; who has not signed for it is not believed."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "other").mkdir()
    certificates.write(tmp_path / "theirs")
    certificates.write(tmp_path / "other")
    certificates.write_server(tmp_path, "server", authority=tmp_path / "theirs")
    folder = uses(tmp_path)
    with index.serve(wheels, certificate=tmp_path / "server.pem") as served_index:
        told = configured(tmp_path, index=served_index.address, ca=str(tmp_path / "theirs/certificate.pem"))
        with daemon.serve([folder], options=told) as served:
            assert served.call("uses", "versions") == (200, ["99.0", "99.0", "99.0"])
        told = configured(tmp_path, index=served_index.address, ca=str(tmp_path / "other/certificate.pem"))
        assert "invalid peer certificate" in not_served(tmp_path, folder, *told)


def test_the_index_of_the_operators_environment_is_taken(tmp_path: Path, wheels: Path) -> None:
    with index.serve(wheels) as served_index:
        with daemon.serve([uses(tmp_path)], variables={"PIP_INDEX_URL": served_index.address}) as served:
            assert served.call("uses", "versions") == (200, ["99.0", "99.0", "99.0"])


def test_without_an_index_it_is_said_what_to_write_where(tmp_path: Path) -> None:
    folder = uses(tmp_path)
    assert (
        f"{folder}/requirements.txt: has to be installed, and no package index is configured\n"
        'hint: write [packages] index = "https://…", or wheels = "DIR", to the daemon\'s configuration\n'
        "hint: or set UV_DEFAULT_INDEX or PIP_INDEX_URL for 'runagentd serve'\n"
    ) in not_served(tmp_path, folder)


def test_a_host_that_is_not_configured_is_named_with_what_to_do(tmp_path: Path, wheels: Path) -> None:
    with index.serve(wheels, elsewhere="http://files.example.com") as served_index:
        said = not_served(tmp_path, uses(tmp_path), *configured(tmp_path, index=served_index.address))
    assert "files.example.com" in said
    assert "hint: a builder reaches the index alone: name the other host in packages.hosts of the configuration" in said


# ---- ends


@contextlib.contextmanager
def building(tmp_path: Path, wheels: Path, state: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A `serve` that waits for a build which waits for an index."""
    silent = threading.Event()
    with index.serve(wheels, silent=silent) as served_index, (tmp_path / "log").open("wb") as output:
        command = [sys.executable, "-m", "runagentd.cli.runagentd", "serve", str(uses(tmp_path)), "--port", "0"]
        process = subprocess.Popen(
            [*command, "--state-dir", str(state), *configured(tmp_path, index=served_index.address)],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
        try:
            end = time.monotonic() + 30
            while not served_index.asked:
                assert process.poll() is None and time.monotonic() < end, (tmp_path / "log").read_text()
                time.sleep(0.02)
            yield process
        finally:
            process.kill()
            process.wait()


def builders() -> list[int]:
    """Processes that run uv in a builder's jail."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cmdline").read_bytes().startswith(b"/uv\0"):
                found.append(int(process.name))
    return found


def no_builder_is_left() -> bool:
    end = time.monotonic() + 5
    while builders():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def supervisor_of(served: Daemon) -> int:
    return child(served.process.pid)


def child(foreman: int) -> int:
    for pid in Path(f"/proc/{foreman}/task/{foreman}/children").read_text().split():
        if b"runagentd.supervise.__main__" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return int(pid)
    raise AssertionError("there is no supervisor")


def groups_of(state: Path) -> list[str]:
    name = f"runagentd-{(state / 'id').read_text().strip()}"
    return [path for path, folders, _ in os.walk("/sys/fs/cgroup") if name in folders]


def test_ctrl_c_ends_a_build_and_leaves_nothing(tmp_path: Path, wheels: Path, state: Path) -> None:
    with building(tmp_path, wheels, state) as process:
        assert builders()
        process.send_signal(signal.SIGINT)
        process.wait(12)
        assert no_builder_is_left()
        assert list((state / "environments/incoming").iterdir()) == []
        assert groups_of(state) == []


@pytest.mark.parametrize("who", ["supervisor", "foreman"])
def test_a_builder_ends_with_who_has_started_it(tmp_path: Path, wheels: Path, state: Path, who: str) -> None:
    with building(tmp_path, wheels, state) as process:
        assert builders()
        os.kill(child(process.pid) if who == "supervisor" else process.pid, signal.SIGKILL)
        assert no_builder_is_left()
        process.wait(15)
    with daemon.serve([tmp_path / "uses"], options=configured(tmp_path, wheels=str(wheels)), state_dir=state) as served:
        assert served.call("uses", "versions") == (200, ["99.0", "99.0", "99.0"])
        assert list((state / "environments/incoming").iterdir()) == []


def test_a_builder_that_is_killed_is_a_refusal_in_words(tmp_path: Path, wheels: Path, state: Path) -> None:
    with building(tmp_path, wheels, state) as process:
        for pid in builders():
            os.kill(pid, signal.SIGKILL)
        assert process.wait(30) == 1
    assert "uses/requirements.txt: uv was ended by signal 9" in (tmp_path / "log").read_text()


def test_a_builder_reads_nothing_of_the_daemons(tmp_path: Path, wheels: Path, state: Path) -> None:
    """Seen from outside, while it runs: whose it is, where it is, and what it could open."""
    with building(tmp_path, wheels, state):
        (pid, *_) = builders()
        status = dict(
            line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
        )
        assert int(status["Uid"].split()[0]) >= 1879048192
        assert {status[name] for name in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb")} == {"0" * 16}
        assert (status["NoNewPrivs"], status["Seccomp"], status["Groups"].strip()) == ("1", "2", "")
        for namespace in ("cgroup", "ipc", "mnt", "net", "pid", "uts"):
            assert os.readlink(f"/proc/{pid}/ns/{namespace}") != os.readlink(f"/proc/self/ns/{namespace}")
        mounts = [line.split()[4:6] for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
        writable = [
            point for point, options in mounts if options.split(",")[0] == "rw" and not point.startswith("/dev/")
        ]
        assert writable == ["/stage"]
        assert not Path(f"/proc/{pid}/root{state}").exists()


def test_a_version_goes_back_to_its_own_packages(tmp_path: Path, wheels: Path, state: Path) -> None:
    """After a rollback, and after the daemon was started anew; an environment of a kept version is never collected."""
    made.wheel(wheels, "msgspec", "98.0", {"msgspec/__init__.py": "__version__ = '98.0'\n"})
    made.wheel(wheels, "pydantic", "98.0", {"pydantic.py": "VERSION = '98.0'\n"}, requires=["msgspec"])
    options = configured(tmp_path, wheels=str(wheels), keep="0")
    folder = uses(tmp_path, requirements="msgspec==98.0\npydantic==98.0\n")
    with daemon.serve([], state_dir=state, options=options) as served:
        _with_token(served)
        _ctl(state, "deploy", folder)
        assert served.call("uses", "versions") == (200, ["98.0", "98.0", "98.0"])
        (folder / "requirements.txt").write_text("msgspec==99.0\npydantic==99.0\n")
        _ctl(state, "deploy", folder)
        assert served.call("uses", "versions") == (200, ["99.0", "99.0", "99.0"])
        assert "nothing has changed" in _ctl(state, "deploy", folder)
    with daemon.serve([], state_dir=state, options=options) as served:
        _with_token(served)
        assert served.call("uses", "versions") == (200, ["99.0", "99.0", "99.0"])
        # Collects; no instance of the first version has run since the start.
        _ctl(state, "deploy", folder)
        assert len(trees(state)) == 2
        _ctl(state, "rollback", "uses")
        assert served.call("uses", "versions") == (200, ["98.0", "98.0", "98.0"])
    with daemon.serve([], state_dir=state, options=options) as served:
        _with_token(served)
        assert served.call("uses", "versions") == (200, ["98.0", "98.0", "98.0"])
        _ctl(state, "remove", "uses", "v2")
        # The next deploy of anything collects what nobody needs any more.
        _ctl(state, "deploy", folders.agent(tmp_path, "plain", PLAIN, "one"))
        assert len(trees(state)) == 1


@pytest.mark.parametrize("removed", [False, True])
def test_while_packages_are_installed_the_agent_can_be_rolled_back_and_removed(
    tmp_path: Path, wheels: Path, state: Path, removed: bool
) -> None:
    """The index says nothing; the commands of the agent, and its calls, do not wait for it."""
    silent = threading.Event()
    plain = folders.agent(tmp_path, "uses", PLAIN, "one")
    with index.serve(wheels, silent=silent) as served_index:
        options = configured(tmp_path, index=served_index.address)
        with daemon.serve([], state_dir=state, options=options) as served:
            _with_token(served)
            _ctl(state, "deploy", plain)
            (plain / "agent.py").write_text(textwrap.dedent(PLAIN.replace("1", "2")))
            _ctl(state, "deploy", plain)
            (plain / "requirements.txt").write_text("pydantic\n")
            said: list[tuple[int, str, str]] = []
            deploy = threading.Thread(target=lambda: said.append(run("deploy", plain, state=state)))
            deploy.start()
            while not served_index.asked:
                time.sleep(0.02)
            assert "v1 serves, in the place of v2" in _ctl(state, "rollback", "uses")
            assert served.call("uses", "one") == (200, 1)
            assert _ctl(state, "remove", "uses", "v2") == "uses: v2 is forgotten\n"
            if removed:
                _ctl(state, "remove", "uses")
            assert deploy.is_alive(), "nothing has come of the index yet"
            silent.set()
            deploy.join()
            [(status, out, err)] = said
            if removed:
                assert (status, out) == (1, "")
                assert "the agent was removed while its packages were installed" in err
                assert served.instances() == []
            else:
                assert (status, out.splitlines()[0]) == (0, "uses: v3 serves, in the place of v1")
                assert served.call("uses", "one") == (200, 2)


def test_a_wheel_that_does_harm_is_refused_and_others_go_on(tmp_path: Path, wheels: Path, state: Path) -> None:
    """A bomb, in a daemon that serves another agent meanwhile; nothing of it stays."""
    bombs = [raw.Entry(name=b"b%d" % n, content=bytes(32 * 1024**2), method=raw.DEFLATED) for n in range(4)]
    raw.wheel(wheels, bombs)
    folder = uses(tmp_path, requirements="one\n")
    options = configured(tmp_path, wheels=str(wheels), size="64MiB")
    with daemon.serve([folders.agent(tmp_path, "plain", PLAIN, "one")], state_dir=state, options=options) as served:
        _with_token(served)
        status, out, err = run("deploy", folder, state=state)
        assert (status, out) == (1, "")
        assert "uses/requirements.txt: error: Failed to download `one==1.0`" in err
        assert "hint: an environment may have 64 MiB and 200,000 files: packages.size in the configuration" in err
        assert served.call("plain", "one") == (200, 1)
        (folder / "requirements.txt").write_text("pydantic\n")
        _ctl(state, "deploy", folder)
        assert served.call("uses", "versions") == (200, ["99.0", "99.0", "99.0"])
        assert list((state / "environments/incoming").iterdir()) == []
        assert len(trees(state)) == 1


def test_what_is_removed_last_takes_its_packages_with_it(tmp_path: Path, wheels: Path, state: Path) -> None:
    """Without any deploy; as long as an instance runs from them they are there."""
    with daemon.serve([], state_dir=state, options=configured(tmp_path, wheels=str(wheels), keep="0")) as served:
        _with_token(served)
        _ctl(state, "deploy", uses(tmp_path, "one"))
        _ctl(state, "deploy", uses(tmp_path, "two"))
        _ctl(state, "remove", "one")
        assert served.call("two", "versions") == (200, ["99.0", "99.0", "99.0"])
        assert len(trees(state)) == 1
        _ctl(state, "remove", "two")
        end = time.monotonic() + 5
        while trees(state):
            assert time.monotonic() < end
            time.sleep(0.02)


PLAIN = """

    def one() -> int:
        return 1
"""


def test_a_missing_environment_stops_its_own_agent_alone(tmp_path: Path, wheels: Path, state: Path) -> None:
    """In words, and deploying it again makes it whole."""
    options = configured(tmp_path, wheels=str(wheels))
    folder = uses(tmp_path)
    with daemon.serve([], state_dir=state, options=options) as served:
        _with_token(served)
        _ctl(state, "deploy", folder)
        _ctl(state, "deploy", folders.agent(tmp_path, "plain", PLAIN, "one"))
    [tree] = trees(state)
    shutil.rmtree(state / "environments/trees" / tree)
    with daemon.serve([], state_dir=state, options=options) as served:
        _with_token(served)
        assert served.call("plain", "one") == (200, 1)
        assert "its environment is not there any more" in served.log.read_text()
        _ctl(state, "deploy", folder)
        assert served.call("uses", "versions") == (200, ["99.0", "99.0", "99.0"])


def _with_token(served: Daemon) -> None:
    """`serve` without folders has made no token."""
    served.token = _ctl(served.state_dir, "token", "create", "--subject", "test").strip()


def _ctl(state: Path, *words: str | Path) -> str:
    status, out, err = run(*words, state=state)
    assert status == 0, err
    return out
