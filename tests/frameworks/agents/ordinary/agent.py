"""What libraries do beside computing: threads, processes, files, programs, sockets. Each does so, or raises."""

import asyncio
import concurrent.futures
import ctypes
import mmap
import multiprocessing
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
from multiprocessing import resource_tracker, shared_memory
from pathlib import Path

# Started by the import, as some libraries do.
_asked, _answered = threading.Event(), threading.Event()


def _wait() -> None:
    _asked.wait()
    _answered.set()


threading.Thread(target=_wait, daemon=True).start()


def a_thread_of_the_import() -> None:
    _asked.set()
    if not _answered.wait(10):
        raise TimeoutError


def a_pool_of_threads() -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        _expect(list(pool.map(abs, range(-8, 0))), [8, 7, 6, 5, 4, 3, 2, 1])


def _threads(number: int) -> None:
    done = threading.Event()
    started = []
    try:
        for _ in range(number):
            thread = threading.Thread(target=done.wait, daemon=True)
            thread.start()
            started.append(thread)
    finally:
        done.set()
        for thread in started:
            thread.join()


def a_hundred_threads() -> None:
    _threads(100)


def a_child_by_fork() -> None:
    child = os.fork()
    if child == 0:
        os._exit(3)
    _expect(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 3)


def multiprocessing_pool() -> None:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        _expect(pool.map(abs, [-1, -2, -3]), [1, 2, 3])


def multiprocessing_queue() -> None:
    queue = multiprocessing.get_context("fork").Queue()
    process = multiprocessing.get_context("fork").Process(target=queue.put, args=("from the child",))
    process.start()
    _expect(queue.get(timeout=10), "from the child")
    process.join()


def process_pool_executor() -> None:
    with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
        _expect(list(pool.map(abs, [-1, -2])), [1, 2])


def multiprocessing_spawn() -> None:
    process = multiprocessing.get_context("spawn").Process(target=os.getpid)
    process.start()
    process.join()
    _expect(process.exitcode, 0)


def a_named_semaphore() -> None:
    with multiprocessing.get_context("fork").Lock():
        pass


def shared_memory_block() -> None:
    block = shared_memory.SharedMemory(create=True, size=1 << 20)
    try:
        block.buf[:4] = b"abcd"
        again = shared_memory.SharedMemory(block.name)
        _expect(bytes(again.buf[:4]), b"abcd")
        again.close()
    finally:
        block.close()
        block.unlink()


def shared_memory_block_without_tracker() -> None:
    """From Python 3.13 on, SharedMemory(track=False) is the same."""
    kept = resource_tracker.register, resource_tracker.unregister
    resource_tracker.register = resource_tracker.unregister = lambda name, kind: None
    try:
        shared_memory_block()
    finally:
        resource_tracker.register, resource_tracker.unregister = kept


def shared_memory_of_64_mib() -> None:
    _write(Path("/dev/shm/large"), 64 << 20)


def a_temporary_file() -> None:
    with tempfile.TemporaryFile() as file:
        file.write(b"abc")
    with tempfile.NamedTemporaryFile() as named, tempfile.TemporaryDirectory() as folder:
        _expect([os.path.dirname(named.name), os.path.dirname(folder)], ["/tmp", "/tmp"])


def temporary_files_of_100_mib() -> None:
    for number in range(4):
        _write(Path(f"/tmp/part{number}"), 25 << 20)


def a_file_of_100_mib() -> None:
    # Of holes: it takes no room, and is as large all the same.
    _sparse(Path("/tmp/large"), 100 << 20)


def sqlite_in_app() -> None:
    _sqlite("notes.db")


def sqlite_in_tmp_with_wal() -> None:
    _sqlite("/tmp/notes.db", "PRAGMA journal_mode=WAL")


def a_file_in_home() -> None:
    cache = Path.home() / ".cache" / "library"
    cache.mkdir(parents=True, exist_ok=True)
    (cache / "one").write_text("x")


def a_file_beside_a_library() -> None:
    library = os.open(os.path.dirname(os.__file__), os.O_RDONLY)
    os.open("cache.txt", os.O_WRONLY | os.O_CREAT, dir_fd=library)


def code_of_ones_own_in_tmp() -> None:
    """As libraries do that compile while they run."""
    library = "/tmp/own.so"
    shutil.copy(sys.modules["_ctypes"].__file__, library)
    ctypes.CDLL(library)


def executable_memory() -> None:
    """As a JIT needs it."""
    with mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as page:
        page[:1] = b"\xc3"


def an_anonymous_file() -> None:
    os.close(os.memfd_create("block"))


def a_program() -> None:
    subprocess.run(["/usr/bin/true"], check=True)


def pinning_to_a_processor() -> None:
    os.sched_setaffinity(0, os.sched_getaffinity(0))


def being_nice() -> None:
    os.nice(1)


def the_number_of_processors() -> None:
    _expect(os.cpu_count() is not None and len(os.sched_getaffinity(0)) > 0, True)


def a_unix_socket() -> None:
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind("/tmp/own.sock")
        server.listen()
        client.connect("/tmp/own.sock")


def a_socket_on_loopback() -> None:
    with socket.socket(socket.AF_INET) as server:
        server.bind(("127.0.0.1", 0))


def looking_a_name_up() -> None:
    socket.getaddrinfo("example.com", 443)


def asyncio_subprocess() -> None:
    async def run() -> int:
        return await (await asyncio.create_subprocess_exec("/usr/bin/true")).wait()

    _expect(asyncio.run(run()), 0)


def five_hundred_descriptors() -> None:
    opened = []
    try:
        for _ in range(500):
            opened.append(os.open("/dev/null", os.O_RDONLY))
    finally:
        for each in opened:
            os.close(each)


def _sqlite(path: str, *first: str) -> None:
    connection = sqlite3.connect(path)
    for statement in first:
        connection.execute(statement)
    with connection:
        connection.execute("CREATE TABLE note (text)")
        connection.execute("INSERT INTO note VALUES ('kept')")
    connection.close()
    _expect(sqlite3.connect(path).execute("SELECT text FROM note").fetchall(), [("kept",)])


def _write(path: Path, size: int) -> None:
    with path.open("wb") as file:
        for _ in range(size >> 20):
            file.write(bytes(1 << 20))


def _sparse(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


def _expect(found: object, expected: object) -> None:
    if found != expected:
        raise AssertionError(f"{found!r} is not {expected!r}")


def attempt(what: str) -> str:
    """ "works", or type and text of what the function of that name raised."""
    try:
        globals()[what]()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        for left in ("/dev/shm/large", "/tmp/large", *(f"/tmp/part{number}" for number in range(4))):
            Path(left).unlink(missing_ok=True)
    return "works"


def do(what: str) -> None:
    """The same without being caught."""
    globals()[what]()
