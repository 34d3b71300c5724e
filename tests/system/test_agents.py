"""What an agent sees of the machine, of its own folder and of the others; what it keeps, and what it does not."""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.daemon import Daemon, serve
from tests.system.folders import agent

pytestmark = [pytest.mark.root, pytest.mark.slow]

CANARY_OF_THE_HOST = "canary-" + "7f3a"
"""What tests.system.daemon puts into the daemon's environment; in two parts, so that no search finds it in ours."""
CANARY_OF_AN_AGENT = "canary-of-an-" + "agent-91c2"

CURIOUS = """
    import os, random, secrets, ssl, statistics, sys, threading, uuid
    from pathlib import Path

    AT_IMPORT = [random.random(), uuid.uuid4().hex]

    def environment() -> dict[str, str]:
        return dict(os.environ)

    def surroundings() -> dict:
        return {"uid": os.getuid(), "gid": os.getgid(), "cwd": os.getcwd(), "home": os.path.expanduser("~"),
                "host": os.uname().nodename, "pid": os.getpid(), "argv": sys.argv,
                "thread": threading.main_thread().native_id}

    def randoms() -> list[str]:
        return [*map(str, AT_IMPORT), str(random.random()), uuid.uuid4().hex, ssl.RAND_bytes(16).hex(),
                os.urandom(16).hex(), secrets.token_hex(16), str(random.SystemRandom().random())]

    def note(folder: str, text: str) -> None:
        Path(folder).mkdir(exist_ok=True)
        (Path(folder) / "note").write_text(text)

    def notes(folder: str) -> str | None:
        path = Path(folder) / "note"
        return path.read_text() if path.exists() else None

    def hold(text: str) -> int:
        globals().setdefault("held", []).append(text)
        return len(text)
"""
TAGS = ("environment", "surroundings", "randoms", "note", "notes", "hold")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    place = tmp_path_factory.mktemp("agents")
    variables = {"FROM_CONFIG": "config", "FROM_BOTH": "config", "OWN_SECRET": CANARY_OF_AN_AGENT}
    folders = [
        agent(place, "first", CURIOUS, *TAGS, env_vars=variables, persistent_folders=["kept"]),
        agent(place, "second", CURIOUS, *TAGS, persistent_folders=["kept"]),
        agent(place, "forgetful", CURIOUS, *TAGS, persistent_folders=["kept"]),
    ]
    (folders[0] / ".env").write_text("FROM_BOTH=dotenv\nFROM_DOTENV='with spaces'\nWITH_DOLLAR=${FROM_CONFIG}\n")
    with serve(folders, policies=["persistent", "forgetful=base"]) as running:
        yield running


def value(daemon: Daemon, name: str, tag: str, **arguments: Any) -> Any:
    status, body = daemon.call(name, tag, arguments)
    assert status == 200, body
    return body


def test_the_environment_is_the_agents_own_and_nothing_of_the_hosts(daemon: Daemon) -> None:
    """env_vars, then .env over them; no substitution, as in RunAgent."""
    found = value(daemon, "first", "environment")
    assert CANARY_OF_THE_HOST not in found.values()
    assert "CANARY_OF_THE_HOST" not in found
    assert {name: found[name] for name in ("FROM_CONFIG", "FROM_BOTH", "FROM_DOTENV", "WITH_DOLLAR")} == {
        "FROM_CONFIG": "config", "FROM_BOTH": "dotenv", "FROM_DOTENV": "with spaces", "WITH_DOLLAR": "${FROM_CONFIG}",
    }  # fmt: skip
    assert sorted(found.keys() - {"FROM_CONFIG", "FROM_BOTH", "FROM_DOTENV", "WITH_DOLLAR", "OWN_SECRET"}) == sorted(
        value(daemon, "second", "environment")
    )


def test_an_agent_is_nobody_in_a_place_of_its_own(daemon: Daemon) -> None:
    """uid 65532 in /app, whatever its uid on the host."""
    found = value(daemon, "first", "surroundings")
    assert (found["uid"], found["gid"], found["cwd"], found["home"]) == (65532, 65532, "/app", "/app")
    assert found["pid"] < 10
    # Not the number of the zygote on the host, of which each instance is a fork.
    assert found["thread"] == found["pid"]
    assert found["host"] != Path("/proc/sys/kernel/hostname").read_text().strip()
    assert daemon.row("first").uid >= 1879048192
    assert daemon.row("first").uid != daemon.row("second").uid


def test_no_two_instances_have_the_same_random_numbers(daemon: Daemon) -> None:
    """They are forks of one process: without a new seed they would draw the same, at import and later."""
    drawn = [value(daemon, name, "randoms") for name in ("first", "second", "forgetful")]
    daemon_row = daemon.row("forgetful")
    daemon.restart("forgetful")
    daemon.wait_until_ready("forgetful", other_than=daemon_row.instance)
    drawn.append(value(daemon, "forgetful", "randoms"))
    every = [number for numbers in drawn for number in numbers]
    assert (len(every), len(set(every))) == (32, 32)


def test_a_persistent_folder_outlives_the_instance_and_nothing_else_does(daemon: Daemon) -> None:
    """Each agent has its own, and only where its policy says so."""
    for name in ("first", "forgetful"):
        for folder in ("kept", "not-kept"):
            value(daemon, name, "note", folder=folder, text=f"{name} was here")
            assert value(daemon, name, "notes", folder=folder) == f"{name} was here"
    assert value(daemon, "second", "notes", folder="kept") is None
    for name in ("first", "forgetful"):
        former = daemon.row(name).instance
        daemon.restart(name)
        daemon.wait_until_ready(name, other_than=former)
    assert value(daemon, "first", "notes", folder="kept") == "first was here"
    assert value(daemon, "first", "notes", folder="not-kept") is None
    assert value(daemon, "forgetful", "notes", folder="kept") is None


def test_a_persistent_folder_outlives_the_daemon(tmp_path: Path) -> None:
    """The state directory holds it, under the agent's id."""
    folder = agent(tmp_path, "keeper", CURIOUS, *TAGS, persistent_folders=["kept"])
    state = tmp_path / "state"
    for expected in (None, "written"):
        with serve([folder], policies=["persistent"], options=["--state-dir", str(state)]) as running:
            assert value(running, "keeper", "notes", folder="kept") == expected
            value(running, "keeper", "note", folder="kept", text="written")


def test_an_agent_never_runs_from_the_live_folder(tmp_path: Path) -> None:
    """It was copied when it was served: later changes are for the next time."""
    folder = agent(tmp_path, "steady", "def run() -> int:\n    return 1\n", "run")
    with serve([folder]) as running:
        (folder / "agent.py").write_text("def run() -> int:\n    return 2\n")
        former = running.row("steady").instance
        running.restart("steady")
        running.wait_until_ready("steady", other_than=former)
        assert value(running, "steady", "run") == 1


# ---- secrets in the memory of others


def memory_holds(pid: int, needle: bytes) -> bool:
    """Whether any readable page of a process holds `needle` (proc_pid_mem(5))."""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in maps:
            begin, end, mode = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+)", line).groups()  # type: ignore[union-attr]  # the kernel's form
            if mode[0] != "r" or line.rstrip().endswith(("[vvar]", "[vsyscall]", "[vvar_vclock]")):
                continue
            try:
                memory.seek(int(begin, 16))
                if needle in memory.read(int(end, 16) - int(begin, 16)):
                    return True
            except (OSError, OverflowError):
                continue
    return False


def test_the_zygote_holds_no_secret_that_its_children_could_find(daemon: Daemon) -> None:
    """Neither the host's environment nor anything of an agent's; both are found where they have to be."""
    argument = "canary-of-a-call-" + "55d0"
    value(daemon, "first", "hold", text=argument)
    zygote = next(row.pid for row in daemon.listing().daemons if row.name == "zygote")
    first, second = daemon.row("first").pid, daemon.row("second").pid
    host, own, call = CANARY_OF_THE_HOST.encode(), CANARY_OF_AN_AGENT.encode(), argument.encode()
    assert memory_holds(daemon.process.pid, host)
    assert memory_holds(first, own)
    assert memory_holds(first, call)
    for needle in (host, own, call):
        assert not memory_holds(zygote, needle)
        assert not memory_holds(second, needle)
    assert not memory_holds(first, host)


def test_an_agents_environment_never_reaches_the_gateway(tmp_path: Path) -> None:
    """Its variables may be keys, and the gateway reads the network. It does hold the agent's name, of course."""
    secret = "canary-of-the-" + "keys-3d17"
    source = "def length() -> int:\n    import os\n    return len(os.environ['KEY'])\n"
    folder = agent(tmp_path, "keyholder", source, "length", env_vars={"KEY": secret})
    with serve([folder]) as daemon:
        assert daemon.call("keyholder", "length") == (200, len(secret))
        gateway = daemon.gateway_pid()
        assert memory_holds(daemon.row("keyholder").pid, secret.encode())
        assert memory_holds(gateway, b"keyholder")
        assert not memory_holds(gateway, secret.encode())


# ---- packages


def test_packages_of_the_folders_own_environment_can_be_imported(tmp_path: Path) -> None:
    """Plain ones, and ones with native parts: that mount alone may hold code to execute."""
    folder = agent(
        tmp_path, "packed",
        """
        import msgspec, plain_package

        def run() -> list[str]:
            return [plain_package.WHO, msgspec.json.encode({"a": 1}).decode(), msgspec.__file__, msgspec._core.__file__]
        """,
        "run",
    )  # fmt: skip
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    packages = folder / ".venv" / "lib" / f"python{version}" / "site-packages"
    (packages / "plain_package").mkdir(parents=True)
    (packages / "plain_package" / "__init__.py").write_text("WHO = 'the one in .venv'\n")
    native = importlib.util.find_spec("msgspec")
    assert native is not None
    assert native.origin is not None
    shutil.copytree(Path(native.origin).parent, packages / "msgspec")
    (folder / ".venv" / "pyvenv.cfg").write_text(f"home = /usr/bin\nversion = {version}.2\n")
    with serve([folder]) as running:
        found = value(running, "packed", "run")
    assert found[:2] == ["the one in .venv", '{"a":1}']
    inside = f"/app/.venv/lib/python{version}/site-packages/msgspec/"
    assert [path.startswith(inside) for path in found[2:]] == [True, True]
    assert found[3].endswith(".so")


def test_an_agents_own_module_wins_over_one_of_the_same_name(tmp_path: Path) -> None:
    """Also where the standard library's is imported already, before the agent is."""
    folder = agent(
        tmp_path, "shadow",
        """
        import json, statistics, uuid

        def run() -> list[str]:
            return [statistics.WHO, json.dumps(1), uuid.WHO]
        """,
        "run",
    )  # fmt: skip
    (folder / "statistics.py").write_text("WHO = 'the agent'\n")
    (folder / "uuid.py").write_text("WHO = 'the agent too'\n")
    with serve([folder]) as running:
        assert value(running, "shadow", "run") == ["the agent", "1", "the agent too"]
