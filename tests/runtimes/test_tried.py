"""An agent on another version of CPython: it is that one, all of it works under `base`, and its packages are for it."""

from __future__ import annotations

import json
import os
import socket
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

from runagentd import interpreters
from tests import tried
from tests.system.daemon import Daemon, serve
from tests.system.folders import agent, policy
from tests.system.test_real_index import usual_index

pytestmark = [pytest.mark.root, pytest.mark.kernel, pytest.mark.slow, pytest.mark.timeout(300)]

SOURCE = """
    import os
    import sys

    def tells() -> list:
        return [".".join(map(str, sys.version_info[:2])), os.path.realpath("/proc/self/exe"), sys.base_prefix]

    def everything() -> dict:
        import asyncio, bz2, concurrent.futures, contextlib, csv, ctypes, datetime, decimal, hashlib, io, json, locale
        import lzma, mmap, multiprocessing, pathlib, platform, queue, random, secrets, select
        import selectors, shutil, signal, socket, sqlite3, ssl, statistics, struct, tarfile, tempfile, threading
        import time, tomllib, traceback, unicodedata, uuid, zipfile, zlib, zoneinfo
        done = {}
        async def several():
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(asyncio.sleep(0.001, number)) for number in range(3)]
            inside = await asyncio.to_thread(lambda: 7)
            reader, writer = socket.socketpair()
            reader.setblocking(False)
            loop = asyncio.get_running_loop()
            loop.call_later(0.001, writer.send, b"x")
            got = await loop.sock_recv(reader, 1)
            reader.close(); writer.close()
            return [[task.result() for task in tasks], inside, got.decode()]
        done["asyncio"] = asyncio.run(several())
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            done["threads"] = sum(pool.map(abs, range(-10, 0)))
        pid = os.fork()
        if pid == 0:
            os._exit(7)
        done["fork"] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        context = multiprocessing.get_context("fork")
        with context.Pool(2) as pool:
            done["processes"] = pool.map(abs, [-1, -2])
        database = sqlite3.connect("/tmp/x.db")
        database.execute("create table t (n)"); database.execute("insert into t values (42)"); database.commit()
        done["sqlite3"] = database.execute("select n from t").fetchone()[0]
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "a"); path.write_text("b")
            shutil.copy(path, path.with_name("c")); shutil.copytree(folder, "/tmp/copy")
            done["files"] = sorted(each.name for each in pathlib.Path("/tmp/copy").iterdir())
            with mmap.mmap(os.open(path, os.O_RDWR), 0) as memory:
                done["mmap"] = memory[:1].decode()
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w") as archive:
            archive.writestr("x", "y" * 100)
        done["zip"] = zipfile.ZipFile(data).read("x").decode()[:1]
        done["packed"] = all(each.decompress(each.compress(b"z")) == b"z" for each in (bz2, lzma, zlib))
        done["ssl"] = [len(ssl.create_default_context().get_ca_certs()) >= 0, len(ssl.RAND_bytes(4))]
        done["zone"] = str(datetime.datetime(2026, 7, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")).utcoffset())
        done["ctypes"] = ctypes.CDLL(None).getpid() == os.getpid()
        done["timers"] = [signal.setitimer(signal.ITIMER_REAL, 0), time.sleep(0.001)]
        done["uuid"] = len(str(uuid.uuid4()))
        done["hash"] = hashlib.sha256(b"").hexdigest()[:4] + hashlib.blake2b(b"").hexdigest()[:4]
        done["processors"] = os.cpu_count() >= 1 and len(os.sched_getaffinity(0)) >= 1
        done["pidfd"] = os.close(os.pidfd_open(os.getpid()))
        return done

    def starts() -> list:
        import asyncio, subprocess
        first = subprocess.run(["/bin/sh", "-c", "echo one"], capture_output=True, text=True, check=True).stdout
        async def second():
            process = await asyncio.create_subprocess_exec("/bin/echo", "two", stdout=asyncio.subprocess.PIPE)
            out, _ = await process.communicate()
            return out.decode()
        return [first.strip(), asyncio.run(second()).strip()]

    async def waits() -> str:
        import asyncio
        await asyncio.sleep(0)
        return "waited"
"""
EVERYTHING = {
    "asyncio": [[0, 1, 2], 7, "x"],
    "threads": 55,
    "fork": 7,
    "processes": [1, 2],
    "sqlite3": 42,
    "files": ["a", "c"],
    "mmap": "b",
    "zip": "y",
    "packed": True,
    "ssl": [True, 4],
    "zone": "2:00:00",
    "ctypes": True,
    "timers": [[0.0, 0.0], None],
    "uuid": 36,
    "hash": "e3b0786a",
    "processors": True,
    "pidfd": None,
}
TAGS = ("tells", "everything", "starts", "waits")
KINDS = ("fork", "exec", "call", "tools")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One on the daemon's own, and one for each way of making a process on the version that is tried."""
    assert tried.OTHER, "these are started by `make runtimes`, which says what to try"
    place = tmp_path_factory.mktemp("tried")
    fresh = policy(place, "fresh", '[process]\nspawn = "exec"\n')
    forked = policy(place, "forked", '[calls]\nisolation = "call"\n')
    policies = [f"exec={fresh}", f"call={forked}", "tools=tools"]
    folders = [
        agent(place, "own", SOURCE, *TAGS),
        *(agent(place, name, SOURCE, *TAGS, **tried.asked()) for name in KINDS),
    ]
    with serve(folders, policies=policies, options=tried.options(place)) as running:
        yield running


@pytest.mark.parametrize("name", KINDS)
def test_it_is_that_version(daemon: Daemon, name: str) -> None:
    status, (version, exe, prefix) = daemon.call(name, "tells")
    runtime = interpreters.inspect(tried.VERSION, tried.PYTHON)
    assert (status, version, exe, prefix) == (200, tried.VERSION, runtime.interpreter, runtime.prefix)


def test_the_daemons_own_is_there_beside_it(daemon: Daemon) -> None:
    assert daemon.call("own", "tells")[1][1] == interpreters.own()


@pytest.mark.parametrize("name", ["own", *KINDS])
def test_the_standard_library_works_in_a_sandbox(daemon: Daemon, name: str) -> None:
    """Newer versions use newer system calls: none is missing, or what replaces it works."""
    assert daemon.call(name, "everything") == (200, EVERYTHING)


def test_programs_are_started_where_the_policy_allows_it(daemon: Daemon) -> None:
    assert daemon.call("tools", "starts") == (200, ["one", "two"])


@pytest.mark.parametrize("name", KINDS)
def test_coroutines_work(daemon: Daemon, name: str) -> None:
    assert daemon.call(name, "waits") == (200, "waited")


@pytest.mark.parametrize("spawn", ["fork", "exec"])
def test_a_package_with_native_parts_is_the_one_for_this_version(tmp_path: Path, spawn: str) -> None:
    """From the index that this machine's own pip uses: a wheel of another version would not even load."""
    assert tried.OTHER, "these are started by `make runtimes`, which says what to try"
    address, hosts = usual_index()
    parts = urllib.parse.urlsplit(address)
    socket.create_connection((parts.hostname or "", parts.port or 443), timeout=10).close()
    source = """
        import msgspec._core

        def run() -> list:
            return [msgspec._core.__file__.rpartition("/")[2], msgspec.json.decode(b"[1]")]
    """
    folder = agent(tmp_path, "native", source, "run", **tried.asked())
    (folder / "requirements.txt").write_text("msgspec\n")
    options = tried.options(tmp_path)
    with Path(options[1]).open("a") as file:
        file.write(f"[packages]\nindex = {json.dumps(address)}\nhosts = {json.dumps(hosts)}\n")
    chosen = policy(tmp_path, "chosen", f'[process]\nspawn = "{spawn}"\n')
    with serve([folder], policies=[chosen], options=options) as served:
        status, found = served.call("native", "run")
    tag = f"cpython-{tried.VERSION.replace('.', '')}-{os.uname().machine}-linux-gnu"
    assert (status, found) == (200, [f"_core.{tag}.so", [1]])
