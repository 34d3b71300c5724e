"""Limits do not lie: each is exceeded once, from inside, and holds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.system.daemon import Daemon, serve
from tests.system.folders import agent, policy

pytestmark = [pytest.mark.root, pytest.mark.slow]

GREEDY = """
    import errno, os, resource, threading, time

    def start_threads() -> int:
        stop, threads = threading.Event(), []
        try:
            while len(threads) < 500:
                thread = threading.Thread(target=stop.wait)
                thread.start()
                threads.append(thread)
        except RuntimeError:
            pass
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        return len(threads)

    def start_processes() -> tuple[int, str]:
        children = []
        try:
            while len(children) < 500:
                child = os.fork()
                if child == 0:
                    time.sleep(60)
                    os._exit(0)
                children.append(child)
        except OSError as error:
            return len(children), errno.errorcode[error.errno]
        finally:
            for child in children:
                os.kill(child, 9)
                os.waitpid(child, 0)
        return len(children), ""

    def burn(seconds: float) -> float:
        began, used = time.monotonic(), time.process_time()
        while time.monotonic() - began < seconds:
            pass
        return (time.process_time() - used) / (time.monotonic() - began)

    def open_files() -> tuple[int, str]:
        opened = []
        try:
            while len(opened) < 5000:
                opened.append(os.open("/dev/null", os.O_RDONLY))
        except OSError as error:
            return len(opened), errno.errorcode[error.errno]
        finally:
            for descriptor in opened:
                os.close(descriptor)
        return len(opened), ""

    def fill(folder: str, mebibytes: int, files: int = 1) -> tuple[int, str]:
        written = 0
        names = [f"{folder}/fill-{number}" for number in range(files)]
        try:
            for name in names:
                with open(name, "wb", buffering=0) as file:
                    for _ in range(mebibytes):
                        written += file.write(bytes(1 << 20))
        except OSError as error:
            return written >> 20, errno.errorcode[error.errno]
        finally:
            for name in names:
                if os.path.exists(name):
                    os.unlink(name)
        return written >> 20, ""

    def make_files(folder: str, number: int) -> tuple[int, str]:
        made = []
        try:
            for each in range(number):
                os.close(os.open(f"{folder}/made-{each}", os.O_WRONLY | os.O_CREAT))
                made.append(each)
        except OSError as error:
            return len(made), errno.errorcode[error.errno]
        finally:
            for each in made:
                os.unlink(f"{folder}/made-{each}")
        return len(made), ""

    def raise_limit(name: str) -> str:
        number = getattr(resource, name)
        soft, hard = resource.getrlimit(number)
        try:
            resource.setrlimit(number, (hard + 1, hard + 1))
        except (ValueError, OSError) as error:
            return str(error)
        return "raised"
"""
TAGS = (
    "start_threads", "start_processes", "burn", "open_files", "fill", "make_files", "raise_limit",
)  # fmt: skip


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    place = tmp_path_factory.mktemp("limits")
    folders = [agent(place, name, GREEDY, *TAGS) for name in ("base", "slow")]
    slow = policy(place, "slow", "[resources]\ncpu_max = 0.2\n")
    with serve(folders, policies=[f"slow={slow}"]) as running:
        yield running


def test_pids_max_bounds_threads(daemon: Daemon) -> None:
    """64 tasks: the reaper, the runner's and the agent's."""
    status, threads = daemon.call("base", "start_threads")
    assert status == 200
    assert 50 <= threads <= 62


def test_pids_max_bounds_processes(daemon: Daemon) -> None:
    """fork(2) fails with EAGAIN, and the instance lives on."""
    status, (processes, error) = daemon.call("base", "start_processes")
    assert (status, error) == (200, "EAGAIN")
    assert 50 <= processes <= 62


def test_cpu_max_bounds_processor_time(daemon: Daemon) -> None:
    """A fifth of a core is a fifth of a core, however busy the loop; a first period may be fuller."""
    status, share = daemon.call("slow", "burn", {"seconds": 2})
    assert status == 200
    assert 0.02 < share < 0.3


def test_nofile_bounds_descriptors(daemon: Daemon) -> None:
    """256 for all, those of the runner's included."""
    status, (files, error) = daemon.call("base", "open_files")
    assert (status, error) == (200, "EMFILE")
    assert 230 <= files <= 253


@pytest.mark.parametrize(("folder", "size"), [("/tmp", 64), ("/dev/shm", 16), ("/app", 64)], ids=["tmp", "shm", "app"])
def test_every_writable_folder_has_a_size(daemon: Daemon, folder: str, size: int) -> None:
    """ENOSPC at the size that the policy gives."""
    status, (mebibytes, error) = daemon.call("base", "fill", {"folder": folder, "mebibytes": 10, "files": 30})
    assert (status, error) == (200, "ENOSPC")
    assert size - 2 <= mebibytes <= size


@pytest.mark.parametrize(
    ("folder", "number"), [("/tmp", 4096), ("/dev/shm", 256), ("/app", 8192)], ids=["tmp", "shm", "app"]
)
def test_every_writable_folder_has_a_number_of_files(daemon: Daemon, folder: str, number: int) -> None:
    """ENOSPC too: small files cost the kernel memory as large ones do."""
    status, (made, error) = daemon.call("base", "make_files", {"folder": folder, "number": 20_000})
    assert (status, error) == (200, "ENOSPC")
    assert number - 20 <= made <= number


def test_fsize_bounds_one_file(daemon: Daemon) -> None:
    """64 MiB; the signal that goes with it does not end the instance."""
    status, (mebibytes, error) = daemon.call("base", "fill", {"folder": "/tmp", "mebibytes": 100})
    assert status == 200
    assert (mebibytes, error) in ((64, "EFBIG"), (63, "EFBIG"), (64, "ENOSPC"), (63, "ENOSPC"))


@pytest.mark.parametrize("name", ["RLIMIT_NOFILE", "RLIMIT_FSIZE", "RLIMIT_CORE", "RLIMIT_MEMLOCK"])
def test_no_limit_can_be_raised(daemon: Daemon, name: str) -> None:
    """Not by one."""
    status, said = daemon.call("base", "raise_limit", {"name": name})
    assert status == 200
    assert "not allowed" in said or "not permitted" in said
