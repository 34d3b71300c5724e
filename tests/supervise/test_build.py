"""A real builder, with packages that were made to get out of it, to fill it, or to confuse who looks at the result."""

from __future__ import annotations

import ast
import asyncio
import errno
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runagentd.builder import install
from runagentd.errors import ConfigurationError
from runagentd.supervise import snapshot
from runagentd.supervise.build import Bounds, BuildFailed
from runagentd.wire import build, packages
from tests.packages import index, made
from tests.packages.workshop import MIB, RULES, Workshop, opened

pytestmark = [pytest.mark.root, pytest.mark.kernel, pytest.mark.slow]


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    with opened(tmp_path) as shop:
        yield shop


def names(taken: snapshot.Snapshot) -> list[str]:
    return sorted(str(path.relative_to(taken.path)) for path in taken.path.rglob("*") if path.is_file())


def refused(shop: Workshop, requirements: str, **more: object) -> str:
    with pytest.raises(BuildFailed) as caught:
        shop.install(requirements, **more)  # type: ignore[arg-type]  # as they are named there
    assert list(shop.place.iterdir()) == []
    return caught.value.words


def test_a_wheel_and_what_it_requires_are_installed_with_bytecode_and_metadata(workshop: Workshop) -> None:
    made.wheel(workshop.wheels, "one", "1.0", {"one/__init__.py": "X = 1\n"}, requires=["other"])
    made.wheel(workshop.wheels, "other", "2.0", {"other.py": "Y = 2\n"})
    taken = workshop.install("one\n")
    tag = sys.implementation.cache_tag
    assert [name for name in names(taken) if "dist-info" not in name] == [
        f"__pycache__/other.{tag}.pyc", "one/__init__.py", f"one/__pycache__/__init__.{tag}.pyc", "other.py",
    ]  # fmt: skip
    assert {name.partition("/")[2] for name in names(taken) if name.startswith("one-1.0.dist-info")} == {
        "METADATA",
        "RECORD",
        "WHEEL",
    }
    # What a traceback says is where it lies in a sandbox, not where it was made.
    assert b"/env/one/__init__.py" in (taken.path / f"one/__pycache__/__init__.{tag}.pyc").read_bytes()
    assert workshop.told[0].phase == build.Phase.RESOLVING
    assert workshop.told[-1] == build.Progress(phase=build.Phase.COMPILING, packages=2)


def test_all_that_is_kept_is_roots_and_nobody_can_write_to_it(workshop: Workshop) -> None:
    made.wheel(workshop.wheels, "one", "1.0", {"one/__init__.py": ""})
    taken = workshop.install("one")
    found = [path.stat() for path in (taken.path, *taken.path.rglob("*"))]
    assert {(status.st_uid, status.st_gid) for status in found} == {(0, 0)}
    assert {stat.S_IMODE(status.st_mode) for status in found} <= {0o755, 0o644}
    assert {status.st_nlink for status in found if stat.S_ISREG(status.st_mode)} == {1}


def test_the_same_requirements_give_the_same_contents(workshop: Workshop) -> None:
    """Else two builds of one request would be two environments. When a wheel was put there is no part of it."""
    text = "\n".join(f"def f{n}(a=('x', {n})): return {{'k{n}', 'l', {n}}}, frozenset(('p', 'q'))" for n in range(50))
    made.wheel(workshop.wheels, "one", "1.0", {f"one/m{n}.py": f"{text}\n{n}\n" for n in range(20)})
    first = workshop.install("one").digest
    os.utime(workshop.wheels / "one-1.0-py3-none-any.whl", (1, 1))
    assert workshop.install("one").digest == first


def test_files_that_are_included_are_there(workshop: Workshop) -> None:
    made.wheel(workshop.wheels, "one", "1.0", {"one.py": ""})
    job = workshop.job("")
    files = (
        build.RequirementsFile(name="requirements.txt", content=b"-r more/base.txt\n"),
        build.RequirementsFile(name="more/base.txt", content=b"one\n"),
    )

    async def take(site: int) -> snapshot.Snapshot:
        return snapshot.take(site, workshop.place, rules=RULES)

    job = build.BuildJob(**{**{name: getattr(job, name) for name in job.__slots__}, "files": files})
    assert "one.py" in names(workshop.run(job, take, Bounds(size=64 * MIB, files=4000, seconds=60)))


def test_the_resolvers_own_words_say_what_is_wrong(workshop: Workshop) -> None:
    made.wheel(workshop.wheels, "one", "1.0", {"one.py": ""})
    words = refused(workshop, "one>=2\n")
    assert "No solution found" in words
    assert "one>=2" in words


# ---- wheels that want out


@pytest.mark.parametrize("name", ["../outside.py", "../../outside.py", "/outside.py", "one/../../outside.py"])
def test_a_wheel_writes_nothing_beside_the_environment(workshop: Workshop, name: str) -> None:
    made.wheel(workshop.wheels, "one", "1.0", {"one.py": ""}, entries=[(made.entry(name, mode=0o100644), b"")])
    try:
        taken = workshop.install("one")
    except BuildFailed:
        return
    assert "outside.py" not in {Path(each).name for each in names(taken) if each.startswith("..")}
    assert not any(path.name == "outside.py" for path in workshop.place.parent.glob("*"))


def test_the_data_of_a_wheel_does_not_leave_it_either(workshop: Workshop) -> None:
    """PEP 427: NAME.data/data/… goes to the installation's root."""
    files = {"one.py": "", "one-1.0.data/data/../../etc/evil": "x", "one-1.0.data/data/share/fine": "y"}
    made.wheel(workshop.wheels, "one", "1.0", files)
    try:
        taken = workshop.install("one")
    except BuildFailed:
        return
    assert all(".." not in name for name in names(taken))


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../etc/passwd", "one.py"])
def test_a_symbolic_link_in_a_wheel_is_no_link_afterwards(workshop: Workshop, target: str) -> None:
    link = made.entry("one_link", mode=stat.S_IFLNK | 0o777)
    made.wheel(workshop.wheels, "one", "1.0", {"one.py": ""}, entries=[(link, target.encode())])
    try:
        taken = workshop.install("one")
    except (BuildFailed, ConfigurationError):
        return
    found = taken.path / "one_link"
    assert not found.is_symlink()
    assert found.read_text() == target


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK])
def test_a_special_file_in_a_wheel_is_a_plain_one_or_none(workshop: Workshop, kind: int) -> None:
    special = made.entry("one_special", mode=kind | 0o666)
    made.wheel(workshop.wheels, "one", "1.0", {"one.py": ""}, entries=[(special, b"")])
    try:
        taken = workshop.install("one")
    except (BuildFailed, ConfigurationError):
        return
    assert all(stat.S_ISREG(path.lstat().st_mode) or path.is_dir() for path in taken.path.rglob("*"))


def test_a_set_uid_bit_in_a_wheel_sets_none(workshop: Workshop) -> None:
    program = made.entry("one_program", mode=0o106755)
    made.wheel(workshop.wheels, "one", "1.0", {"one.py": ""}, entries=[(program, b"#!/bin/sh\n")])
    taken = workshop.install("one")
    assert stat.S_IMODE((taken.path / "one_program").stat().st_mode) == 0o755


def test_a_bomb_fills_its_own_folder_and_nothing_else(workshop: Workshop) -> None:
    """A gigabyte of zeros is a megabyte in a zip."""
    made.wheel(workshop.wheels, "one", "1.0", {f"one/{n}.bin": bytes(32 * MIB) for n in range(16)})
    with pytest.raises(BuildFailed) as caught:
        workshop.install("one")
    assert caught.value.full


def test_too_many_files_are_refused_by_the_file_system(workshop: Workshop) -> None:
    made.wheel(workshop.wheels, "one", "1.0", {f"one/{n}.txt": "" for n in range(3000)})
    with pytest.raises(BuildFailed) as caught:
        workshop.install("one", files=2000)
    assert caught.value.full


def test_more_files_than_an_environment_may_have_are_refused_by_name(workshop: Workshop) -> None:
    made.wheel(workshop.wheels, "one", "1.0", {f"one/{n}.txt": "" for n in range(1000)})
    with pytest.raises(ConfigurationError, match="has more than 1,000 files and directories, the most it may have"):
        workshop.install("one")
    assert list(workshop.place.iterdir()) == []


def test_names_that_differ_in_case_alone_are_two_files(workshop: Workshop) -> None:
    made.wheel(workshop.wheels, "one", "1.0", {"one/Data.txt": "A", "one/data.txt": "b"})
    taken = workshop.install("one")
    assert ((taken.path / "one/Data.txt").read_text(), (taken.path / "one/data.txt").read_text()) == ("A", "b")


@pytest.mark.parametrize("name", ["one/new\nline.py", "one/\x1b[2J.py", "one/\u202ecod.py"])
def test_a_name_that_cannot_be_printed_is_refused(workshop: Workshop, name: str) -> None:
    made.wheel(workshop.wheels, "one", "1.0", {"one.py": "", name: ""})
    with pytest.raises((ConfigurationError, BuildFailed)) as caught:
        workshop.install("one")
    if isinstance(caught.value, ConfigurationError):
        assert caught.value.problems[0].where.isprintable()
        assert caught.value.problems[0].what == "has a name with characters that cannot be printed"


def test_pth_files_and_sitecustomize_are_files_like_others(workshop: Workshop) -> None:
    """Nobody runs them: tests/system/test_environments.py."""
    made.wheel(workshop.wheels, "one", "1.0", {"one.pth": "import os; os.abort()\n", "sitecustomize.py": "1/0\n"})
    assert {"one.pth", "sitecustomize.py"} <= set(names(workshop.install("one")))


# ---- code that runs in the builder, where the operator lets packages be built

BACKEND = """
import os, pathlib, zipfile

def probe():
{probe}

def _wheel(folder):
    name = "{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(folder, name), "w") as archive:
        archive.writestr("{name}.py", "FOUND = " + repr(probe()) + "\\n")
        info = "{name}-1.0.dist-info"
        archive.writestr(info + "/METADATA", "Metadata-Version: 2.1\\nName: {name}\\nVersion: 1.0\\n")
        archive.writestr(info + "/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        archive.writestr(info + "/RECORD", "")
    return name

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    return _wheel(wheel_directory)
"""


def backend(probe: str) -> str:
    return BACKEND.format(name="one", probe="".join(f"    {line}\n" for line in probe.strip().splitlines()))


def found_by(shop: Workshop, probe: str, **more: object) -> object:
    """What code that a package runs while it is built finds: it reports in the wheel that it makes."""
    made.source(shop.wheels, "one", "1.0", backend(probe))
    taken = shop.install("one", source=True, **more)  # type: ignore[arg-type]
    return ast.literal_eval((taken.path / "one.py").read_text().partition("=")[2].strip())


def test_nothing_of_a_package_runs_unless_the_operator_says_so(workshop: Workshop) -> None:
    made.source(workshop.wheels, "one", "1.0", backend("return 1"))
    words = refused(workshop, "one")
    assert "one==1.0 has no usable wheels" in words


def test_requirements_cannot_ask_for_a_build_either(workshop: Workshop) -> None:
    """For uv, `--no-binary NAME` in requirements weighs more than the `--no-build` that it was started with."""
    made.source(workshop.wheels, "one", "1.0", backend("return 1"))
    assert "Permission denied" in refused(workshop, "--no-binary one\none")


def test_code_that_runs_in_a_builder_is_nobody(workshop: Workshop) -> None:
    found = found_by(
        workshop,
        """
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
wanted = ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb", "NoNewPrivs", "Seccomp", "Groups")
return {name: status[name].strip() for name in wanted}, os.getuid() >= 1_000_000, os.getuid() == os.getgid()
""",
    )
    nothing = "0" * 16
    capabilities = dict.fromkeys(("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb"), nothing)
    assert found == ({**capabilities, "NoNewPrivs": "1", "Seccomp": "2", "Groups": ""}, True, True)


def test_code_that_runs_in_a_builder_sees_its_jail_and_nothing_of_the_host(workshop: Workshop) -> None:
    secret = workshop.place.parent / "secret"
    secret.write_text("canary")
    secret.chmod(0o666)
    found = found_by(
        workshop,
        f"""
def can(what, *arguments):
    try:
        return what(*arguments)
    except OSError as error:
        return error.strerror
processes = [name for name in os.listdir("/proc") if name.isdigit()]
return (
    can(open, {str(secret)!r}), can(os.listdir, {str(workshop.place)!r}), can(open, "/etc/shadow"),
    can(os.listdir, "/sys"), can(os.listdir, "/home"), can(open, "/x", "w"), can(open, "/usr/x", "w"),
    len(processes) < 10, sorted(os.listdir("/etc")), sorted(os.listdir("/dev")),
)
""",
    )
    missing = "No such file or directory"
    assert found == (
        *[missing] * 5, "Read-only file system", "Read-only file system",
        True, ["alternatives", "hosts", "nsswitch.conf", "passwd", "ssl"], ["null", "urandom", "zero"],
    )  # fmt: skip


def test_what_a_builder_needs_no_code_in_it_may_do(workshop: Workshop) -> None:
    """Each attempt of the probe fails with EPERM."""
    found = found_by(
        workshop,
        """
import ctypes, socket
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    if getattr(libc, name)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), name)
attempts = {
    "user namespace": lambda: call("unshare", 0x10000000),
    "mount": lambda: call("mount", b"x", b"/stage", b"tmpfs", 0, None),
    "namespace": lambda: call("setns", 0, 0),
    "trace": lambda: call("ptrace", 16, 1, 0, 0),
    "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0),
    "alg": lambda: socket.socket(38, socket.SOCK_SEQPACKET, 0),
    "packet": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0),
    "vsock": lambda: socket.socket(40, socket.SOCK_STREAM, 0),
    "inet6": lambda: socket.socket(socket.AF_INET6),
    "device": lambda: os.mknod("/stage/device", 0o20666, os.makedev(1, 1)),
    "pipe": lambda: os.mkfifo("/stage/pipe"),
    "set-uid": lambda: os.chmod("/stage/tmp", 0o4755),
    "owner": lambda: os.chown("/stage/tmp", 0, 0),
    "uid": lambda: os.setuid(0),
    "root": lambda: os.chroot("/stage"),
}
outcomes = {}
for name, attempt in attempts.items():
    try:
        attempt()
        outcomes[name] = "done"
    except OSError as error:
        outcomes[name] = error.errno
return {name for name, outcome in outcomes.items() if outcome != 1}, len(outcomes)
""",
    )
    assert found == (set(), 15)


def test_code_that_runs_in_a_builder_connects_to_nothing(workshop: Workshop) -> None:
    """Without an index there is nobody on lo, and nothing else is there."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        found = found_by(
            workshop,
            f"""
import socket
found = []
for address in (("127.0.0.1", {port}), ("10.0.0.1", 80), ("192.0.2.1", 443), ("169.254.169.254", 80)):
    try:
        socket.create_connection(address, 2).close()
        found.append("open")
    except OSError as error:
        found.append(error.strerror)
return found
""",
        )
    assert found == ["Connection refused", *["Network is unreachable"] * 3]


def test_what_code_left_running_is_dead_before_the_result_is_looked_at(workshop: Workshop) -> None:
    probe = """
import subprocess, sys
null = {"stdin": -3, "stdout": -3, "stderr": -3}
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True, **null)
return 1
"""
    made.source(workshop.wheels, "one", "1.0", backend(probe))
    left: list[bool] = []

    async def take(site: int) -> snapshot.Snapshot:
        left.append(workshop.host.groups() != [])  # a cgroup goes when nobody is in it
        return snapshot.take(site, workshop.place, rules=RULES)

    workshop.run(workshop.job("one", source=True), take, Bounds(size=64 * MIB, files=4000, seconds=60))
    assert left == [False]


@pytest.mark.parametrize(
    ("left", "words"),
    [
        ("os.symlink('/etc/passwd', '/stage/site/link')", "link: is a symbolic link"),
        ("os.symlink('..', '/stage/site/up')", "up: is a symbolic link"),
        ("import socket; socket.socket(socket.AF_UNIX).bind('/stage/site/door')", "door: is a socket"),
        ("pathlib.Path('/stage/site/new\\\\nline').touch()", "has a name with characters that cannot be printed"),
        ("os.makedirs('/stage/site/' + 'd/' * 70)", "lies more than 64 directories deep"),
    ],
)
def test_what_no_wheel_can_hold_is_refused_by_name(workshop: Workshop, left: str, words: str) -> None:
    """A builder that was captured leaves whatever it likes."""
    made.source(workshop.wheels, "one", "1.0", backend(f"{left.replace(chr(92) * 2, chr(92))}\nreturn 1"))
    with pytest.raises(ConfigurationError) as caught:
        workshop.install("one", source=True)
    assert words in str(caught.value)
    assert list(workshop.place.iterdir()) == []


def test_a_builder_that_leaves_a_link_for_a_folder_leads_nowhere(workshop: Workshop) -> None:
    probe = "os.rename('/stage/site', '/stage/away'); os.symlink('/etc', '/stage/site'); return 1"
    made.source(workshop.wheels, "one", "1.0", backend(probe))
    with pytest.raises(BuildFailed):
        workshop.install("one", source=True)


# ---- bounds


def test_a_build_that_takes_too_long_is_ended(workshop: Workshop) -> None:
    made.source(workshop.wheels, "one", "1.0", backend("import time; time.sleep(600)"))
    began = time.monotonic()
    assert refused(workshop, "one", source=True, seconds=3) == "installing took more than 3 s and was ended"
    assert time.monotonic() - began < 15


def test_a_fork_bomb_stays_within_its_number(workshop: Workshop) -> None:
    probe = """
import time
while True:
    if os.fork() == 0:
        os.closerange(0, 1024)
        time.sleep(600)
"""
    made.source(workshop.wheels, "one", "1.0", backend(probe))
    assert "Resource temporarily unavailable" in refused(workshop, "one", source=True)


def test_memory_is_bounded(workshop: Workshop) -> None:
    """The kernel ends who takes too much: code of a package, here, and the installer says so."""
    probe = "x = [bytes(range(256)) * 4096 * 256 for _ in range(64)]; return 1"
    made.source(workshop.wheels, "one", "1.0", backend(probe))
    assert "`backend.build_wheel` failed (signal: 9 (SIGKILL))" in refused(workshop, "one", source=True)


def test_a_builder_that_is_killed_is_a_failure_in_words(workshop: Workshop) -> None:
    made.source(workshop.wheels, "one", "1.0", backend("import signal; os.kill(os.getppid(), signal.SIGKILL)"))
    assert "uv was ended by signal 9" in refused(workshop, "one", source=True)


def test_a_cancelled_build_leaves_nothing(workshop: Workshop) -> None:
    made.source(workshop.wheels, "one", "1.0", backend("import time; time.sleep(600)"))

    async def main() -> None:
        wheels = os.open(workshop.wheels, os.O_RDONLY | os.O_DIRECTORY)
        running = asyncio.Event()

        async def take(site: int) -> None:
            raise AssertionError("there is nothing to take")

        task = asyncio.create_task(
            workshop.builder.install(
                workshop.job("one", source=True),
                runtime=workshop.python,
                wheels=wheels,
                bounds=Bounds(size=64 * MIB, files=4000, seconds=60),
                progress=lambda far: running.set(),
                take=take,
            )
        )
        await running.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        os.close(wheels)

    asyncio.run(main())
    assert workshop.host.groups() == []


# ---- an index


def test_packages_come_from_the_index_alone(workshop: Workshop, tmp_path: Path) -> None:
    made.wheel(workshop.wheels, "one", "1.0", {"one.py": ""})
    with index.serve(workshop.wheels) as served:
        taken = workshop.install("one", at=served.address, hosts=[("127.0.0.1", served.port)])
    assert "one.py" in names(taken)
    assert workshop.relayed == [packages.Relay(targets=(packages.Target(host="127.0.0.1", port=served.port),))]


def test_a_file_on_another_host_cannot_be_had(workshop: Workshop) -> None:
    made.wheel(workshop.wheels, "one", "1.0", {"one.py": ""})
    with (
        index.serve(workshop.wheels) as other,
        index.serve(workshop.wheels, elsewhere=f"http://127.0.0.1:{other.port}") as served,
    ):
        words = refused(workshop, "one", at=served.address, hosts=[("127.0.0.1", served.port)])
    assert "Failed to fetch" in words or "error sending request" in words
    assert other.asked == []


@pytest.mark.parametrize("line", ["--index-url", "--extra-index-url", "--find-links"])
def test_requirements_lead_to_no_other_index(workshop: Workshop, line: str) -> None:
    made.wheel(workshop.wheels, "one", "1.0", {"one.py": ""})
    with index.serve(workshop.wheels) as other, index.serve(workshop.place) as served:
        refused(workshop, f"{line} {other.address}\none", at=served.address, hosts=[("127.0.0.1", served.port)])
    assert other.asked == []


@pytest.mark.parametrize(
    "line", ["-e .", "./one", "-r /etc/passwd", "one @ file:///etc/passwd", "git+https://example.com/one.git"]
)
def test_requirements_read_no_file_and_start_no_program(workshop: Workshop, line: str) -> None:
    words = refused(workshop, line)
    assert "root:" not in words


def test_a_password_is_sent_to_the_index_and_stays_out_of_the_tree(workshop: Workshop) -> None:
    made.wheel(workshop.wheels, "one", "1.0", {"one.py": ""})
    with index.serve(workshop.wheels, login="alice:hunter2secret") as served:
        address = served.address.replace("://", "://alice:hunter2secret@")
        taken = workshop.install("one", at=address, hosts=[("127.0.0.1", served.port)])
    assert not any(b"hunter2secret" in path.read_bytes() for path in taken.path.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "line",
    [
        "one @ {other}/one-1.0-py3-none-any.whl?${{UV_DEFAULT_INDEX}}",
        "one @ {other}/one-1.0-py3-none-any.whl?${{UV_INDEX_PASSWORD}}",
        "--extra-index-url {other}/?a=${{UV_DEFAULT_INDEX}}\none",
        "--find-links {other}/?a=${{UV_DEFAULT_INDEX}}\none",
        "-r {other}/more.txt?a=${{UV_DEFAULT_INDEX}}",
        "-r /proc/self/environ",
    ],
)
def test_requirements_send_a_password_to_no_other_host_and_have_it_told_to_nobody(
    workshop: Workshop, line: str
) -> None:
    """uv writes variables in requirements out. In words a password would not look as it does in the address."""
    made.wheel(workshop.wheels, "two", "1.0", {"two.py": ""})
    with index.serve(workshop.wheels, login='alice:hunter2{se"cret}') as served, index.serve(workshop.wheels) as other:
        address = served.address.replace("://", '://alice:hunter2{se"cret}@')
        hosts = [("127.0.0.1", served.port), ("127.0.0.1", other.port)]
        words = refused(workshop, line.format(other=f"http://127.0.0.1:{other.port}"), at=address, hosts=hosts)
    assert not any("hunter2" in path for path in (*other.asked, *served.asked))
    # The one form that it is known in is what the supervisor leaves out.
    assert "hunter2" not in words.replace('hunter2{se"cret}', "****")


def test_an_index_that_says_nothing_is_given_up(workshop: Workshop) -> None:
    began = time.monotonic()
    with index.serve(workshop.wheels, silent=threading.Event()) as served:
        words = refused(workshop, "one", at=served.address, hosts=[("127.0.0.1", served.port)], seconds=3)
    assert words == "installing took more than 3 s and was ended"
    assert time.monotonic() - began < 60


# ---- what it says


def test_how_many_packages_are_there_is_told_while_others_come(workshop: Workshop) -> None:
    """Here the last of three is on its way until the first two have been told."""
    for name in ("one", "two", "three"):
        made.wheel(workshop.wheels, name, "1.0", {f"{name}.py": ""})
    far = build.Progress(phase=build.Phase.FETCHING, packages=3, there=2)

    def until(path: str) -> None:
        end = time.monotonic() + 20
        while path.startswith("/files/three") and workshop.fetching and far not in workshop.told:
            assert time.monotonic() < end
            time.sleep(0.02)

    with index.serve(workshop.wheels, until=until) as served:
        workshop.install("one\ntwo\nthree\n", at=served.address, hosts=[("127.0.0.1", served.port)])
    assert far in workshop.told
    assert workshop.told[-1] == build.Progress(phase=build.Phase.COMPILING, packages=3)


def test_words_are_cut_where_no_password_is_cut() -> None:
    """The supervisor leaves out of them what it knows to be secret, and would not know half of it."""
    assert install._end_of("short") == "short"
    cut = install._end_of(f"begin https://alice:hunter2secret@host/{'x' * (build.WORDS_MAX - 10)} at the end")
    assert cut == "… at the end"
    assert len(install._end_of("word " * build.WORDS_MAX)) <= build.WORDS_MAX


def test_a_line_that_is_too_long_is_cut_at_a_space_too() -> None:
    line = f"{'x' * 1990} https://alice:hunter2secret@host/"
    process = subprocess.Popen(
        [sys.executable, "-c", f"import sys; print({line!r}, file=sys.stderr); print('next', file=sys.stderr)"],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert list(install._lines(process)) == [f"{'x' * 1990} …", "next"]
    process.wait()
    if process.stderr is not None:
        process.stderr.close()


def test_the_longest_words_of_a_builder_can_be_sent() -> None:
    answer = build.NotBuilt(words="\U0001f40d" * build.WORDS_MAX, full=False)
    assert build.parse(build.pack(answer)) == answer


def test_a_builder_that_cannot_write_its_first_file_says_so(workshop: Workshop) -> None:
    made.wheel(workshop.wheels, "one", "1.0", {"one.py": ""})
    job = workshop.job("one")
    twice = (*job.files, *job.files)
    job = build.BuildJob(**{**{name: getattr(job, name) for name in job.__slots__}, "files": twice})

    async def take(site: int) -> snapshot.Snapshot:
        raise AssertionError("there is nothing to take")

    with pytest.raises(BuildFailed, match="File exists"):
        workshop.run(job, take, Bounds(size=64 * MIB, files=4000, seconds=60))


def test_without_a_cgroup_no_uid_is_lost(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    released: list[int] = []

    def fails(name: str) -> None:
        raise OSError(errno.ENOSPC, name)

    monkeypatch.setattr(workshop.host, "create", fails)
    monkeypatch.setattr(workshop.uids, "release", released.append)
    with pytest.raises(OSError, match="build-"):
        workshop.install("one")
    assert len(released) == 1
