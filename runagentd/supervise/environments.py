"""What an agent's requirements ask for becomes an environment: the one that is there already, or one that is built.

Runs as: the supervisor.
Reads from strangers: requirements, as bytes that are digested and handed on, never parsed.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import os
import shutil
import stat
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from runagentd import kernel
from runagentd.errors import ConfigurationError, HostError, Problem
from runagentd.interpreters import program_interpreter
from runagentd.log import Log
from runagentd.plan.model import ENVIRONMENT
from runagentd.supervise import snapshot
from runagentd.supervise.build import Bounds, Builder, BuildFailed, installer
from runagentd.supervise.environment_store import EnvironmentStore, Lease
from runagentd.supervise.teller import Teller
from runagentd.wire import build, record
from runagentd.wire.runtime import PythonRuntime
from runagentd.wire.settings import PackageSettings

FILE_BYTES_MAX = 4 * 1024 * 1024
FILES_BYTES_MAX = 8 * 1024 * 1024
"""All of one agent's; a lock of a thousand packages has two."""
ENTRIES_MAX = 200_000
"""With the bytecode of each module: about twice what is in the wheels."""
PATHS_BYTES_MAX = 64 * 1024**2
"""Of all entries together, as they are held in memory: 335 each, several times what packages have."""
_WHEELS_MAX = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentRequest:
    """All that decides what an environment has in it, but for what an index offers on the day."""

    files: tuple[build.RequirementsFile, ...]
    runtime: str
    """`PythonRuntime.abi`"""
    installer: str
    index: str
    """without credentials"""
    wheels: str
    """a digest of what is in the wheel directory; empty without one"""
    source: bool
    target: str

    def digest(self) -> str:
        """SHA-256 of its record, in hexadecimal."""
        return hashlib.sha256(record.encode(self)).hexdigest()


class Environments:
    """Makes environments, one at a time, and keeps them."""

    def __init__(
        self, *, store: EnvironmentStore, builder: Builder, installer_version: Callable[[], str], log: Log
    ) -> None:
        self.settings = PackageSettings()
        self._store = store
        self._builder = builder
        self._installer_version = installer_version
        self._log = log
        self._one = asyncio.Lock()
        """a build takes memory and processors: one at a time, and of two equal requests the second finds the first's"""

    def discard_unfinished(self) -> None:
        """What an earlier supervisor was at when it ended."""
        self._store.discard_unfinished()

    def lease(self, digest: str) -> Lease | None:
        """Of the environment of a deployment; None where it has none. OSError where it is not there."""
        return self._store.lease(digest) if digest else None

    async def provide(
        self,
        folder: int,
        names: Sequence[str],
        runtime: PythonRuntime,
        tell: Callable[[str], None],
        *,
        build_it: bool = True,
    ) -> Lease | None:
        """The environment for these files of a folder, the first of which is the main one; None for no file.

        Without `build_it` also None where it would have to be built first, and could be.

        `tell` is called with what a person who waits would like to know, every few seconds. ConfigurationError is
        located in the file; HostError.
        """
        if not names:
            return None
        settings = self.settings
        files = _files(folder, names)
        wheels = _open_wheels(settings.wheels)
        teller = Teller(tell)
        try:
            request = EnvironmentRequest(
                files=files,
                runtime=runtime.abi,
                installer=self._installer_version(),
                index=settings.index_shown,
                wheels="" if wheels is None else _wheels_digest(wheels, settings.wheels),
                source=settings.source,
                target=ENVIRONMENT,
            ).digest()
            found = self._store.answer(request)
            if found is not None:
                return found
            if not settings.index and wheels is None:
                raise ConfigurationError(_no_index(names[0], settings.not_taken))
            if not build_it:
                return None
            teller.say("waiting for another environment to be built" if self._one.locked() else "starting a builder")
            async with self._one:
                return self._store.answer(request) or await self._build(
                    request, files, settings, runtime, wheels, teller
                )
        finally:
            teller.close()
            if wheels is not None:
                os.close(wheels)

    async def _build(
        self,
        request: str,
        files: tuple[build.RequirementsFile, ...],
        settings: PackageSettings,
        runtime: PythonRuntime,
        wheels: int | None,
        teller: Teller,
    ) -> Lease:
        hosts = tuple(
            build.Host(name=host.host, port=host.port, address=address)
            for host, address in zip(settings.hosts, _addresses([host.host for host in settings.hosts]))
        )
        uv = installer()
        job = build.BuildJob(
            files=files,
            index=settings.index,
            hosts=hosts,
            authorities=settings.authorities,
            wheels=wheels is not None,
            source=settings.source,
            installer=uv,
            loader=program_interpreter(uv),
            interpreter=runtime.interpreter,
            target=ENVIRONMENT,
        )
        made: list[Lease] = []
        given = False
        try:
            lease = await self._builder.install(
                job,
                runtime=runtime,
                wheels=wheels,
                # A wheel's files are in uv's cache and, by hard links, in the environment; its folders are in both.
                bounds=Bounds(size=settings.size, files=2 * ENTRIES_MAX, seconds=settings.seconds),
                progress=lambda far: teller.say(_told(far)),
                take=functools.partial(self._take, request, files[0].name, settings.size, made),
            )
            given = True
            return lease
        except BuildFailed as failed:
            words = settings.redacted(failed.words)
            hints = _hints(failed, settings, runtime)
            raise ConfigurationError(Problem(files[0].name, _words(words), hints)) from failed
        except OSError as error:
            raise HostError(f"no builder of environments can be made: {error}") from error
        finally:
            for each in () if given else made:
                each.release()

    async def _take(self, request: str, file: str, size: int, made: list[Lease], site: int) -> Lease:
        """Copy what a builder made for `file`, and make it an environment."""
        rules = snapshot.Rules(
            what="the environment",
            entries_max=ENTRIES_MAX,
            entries_hint="name fewer packages",
            path_bytes_max=PATHS_BYTES_MAX,
            path_bytes_hint="name fewer packages",
            bytes_max=size,
            bytes_hint="raise packages.size in the daemon's configuration",
            owner=0,
            left_out=frozenset(),
            strict=True,
        )
        stop = threading.Event()
        copying = asyncio.ensure_future(asyncio.to_thread(_copy, site, self._store.incoming, rules, stop))
        try:
            taken = await asyncio.shield(copying)
        except ConfigurationError as error:
            # Where it says that something is, is in the environment, and the author sees the file that asked for it.
            found = (
                Problem(file, f"what was installed is refused: {p.where}: {p.what}", p.hints) for p in error.problems
            )
            raise ConfigurationError(*found) from error
        except asyncio.CancelledError:
            stop.set()
            with contextlib.suppress(Exception):
                snapshot.discard((await copying).path)
            raise
        self._log.info("an environment was built", digest=taken.digest[:12], files=taken.files, bytes=taken.size)
        try:
            lease = self._store.adopt(taken.path, taken.digest, request)
        except OSError as error:
            await asyncio.to_thread(shutil.rmtree, taken.path, ignore_errors=True)
            raise _not_kept(self._store.incoming, error) from error
        made.append(lease)
        await asyncio.to_thread(shutil.rmtree, taken.path, ignore_errors=True)  # where its like was there
        return lease


_TEXTS = {
    build.Phase.RESOLVING: "resolving the requirements",
    build.Phase.FETCHING: "fetching {}",
    build.Phase.INSTALLING: "installing {}",
    build.Phase.COMPILING: "compiling {}",
}


def _told(far: build.Progress) -> str:
    if far.phase is build.Phase.FETCHING and far.there:
        return f"fetched {far.there} of {_counted(far.packages)}"
    return _TEXTS[far.phase].format(_counted(far.packages))


def _counted(packages: int) -> str:
    return "packages" if not packages else "1 package" if packages == 1 else f"{packages} packages"


def _copy(site: int, parent: Path, rules: snapshot.Rules, stop: threading.Event) -> snapshot.Snapshot:
    taken = snapshot.take(site, parent, rules=rules, stopped=stop.is_set)
    # Other files of this process are written and forgotten; an environment outlives a crash of the machine, or a
    # half-written module would be named by the digest of a whole one.
    try:
        directory = os.open(taken.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            kernel.syncfs(directory)
        finally:
            os.close(directory)
    except OSError as error:
        shutil.rmtree(taken.path, ignore_errors=True)
        raise _not_kept(parent, error) from error
    return taken


def _not_kept(folder: Path, error: OSError) -> HostError:
    return HostError(f"{folder}: an environment cannot be kept: {error.strerror}")


def _files(folder: int, names: Sequence[str]) -> tuple[build.RequirementsFile, ...]:
    """ConfigurationError where they are too large, one or all, and before all of them are in memory."""
    files: list[build.RequirementsFile] = []
    left = FILES_BYTES_MAX
    for name in names:
        content = _content(folder, name)
        left -= len(content)
        if left < 0:
            what = f"with what it includes is larger than {FILES_BYTES_MAX // 1024**2} MiB"
            raise ConfigurationError(Problem(names[0], what))
        files.append(build.RequirementsFile(name=name, content=content))
    return tuple(files)


def _content(folder: int, name: str) -> bytes:
    try:
        descriptor = kernel.openat2(
            folder, name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, resolve=kernel.RESOLVE_WITHIN
        )
    except OSError as error:
        # The loader has just said that it is there: the loader may be captured.
        raise ConfigurationError(Problem(name, f"cannot be read: {error.strerror}")) from error
    with open(descriptor, "rb") as file:
        content = file.read(FILE_BYTES_MAX + 1)
    if len(content) > FILE_BYTES_MAX:
        raise ConfigurationError(Problem(name, f"is larger than {FILE_BYTES_MAX // 1024**2} MiB"))
    return content


def _open_wheels(path: str) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if path else None
    except OSError as error:
        raise HostError(f"packages.wheels: {path}: {(error.strerror or 'cannot be opened').lower()}") from error


def _wheels_digest(folder: int, path: str) -> str:
    """Another one where a file came, went or was changed."""
    found = []
    if os.fstat(folder).st_mode & 0o005 != 0o005:
        raise _unreadable(path, "")
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                status = entry.stat()
            except OSError as error:  # most often a link that leads nowhere
                reason = (error.strerror or "is not there").lower()
                what = f"packages.wheels: {os.path.join(path, entry.name)}: {reason}"
                raise HostError(what, "remove it, or put a wheel there") from error
            if not status.st_mode & stat.S_IROTH:
                raise _unreadable(path, entry.name)
            found.append(f"{entry.name}\0{status.st_size}\0{status.st_mtime_ns}\n")
            if len(found) > _WHEELS_MAX:
                raise HostError(f"packages.wheels: {path} has more than {_WHEELS_MAX:,} files")
    return hashlib.sha256("".join(sorted(found)).encode("utf-8", "surrogateescape")).hexdigest()


def _unreadable(path: str, name: str) -> HostError:
    what = f"packages.wheels: {os.path.join(path, name)} is not readable by everybody, and a builder is nobody"
    return HostError(what, f"chmod -R a+rX {path}")


def _addresses(names: Sequence[str]) -> list[str]:
    """Where a builder finds each host: an address of its own for each name, and an address is what it is."""
    known: dict[str, str] = {}
    for name in names:
        number = len(known) + 1
        own = "127.0.0.1" if name == "localhost" else f"127.1.0.{number}"
        known.setdefault(name, name if _is_address(name) else own)
    return [known[name] for name in names]


def _is_address(name: str) -> bool:
    return name.replace(".", "").isdigit()


def _words(text: str) -> str:
    """What can be shown: the lines of a program that has read strangers' files, in one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "; ".join("".join(c if c.isprintable() else "?" for c in line) for line in lines)[: build.WORDS_MAX]


def _hints(failed: BuildFailed, settings: PackageSettings, runtime: PythonRuntime) -> tuple[str, ...]:
    words = failed.words.lower()
    if failed.full:
        most = settings.size // 1024**2
        return (f"an environment may have {most} MiB and {ENTRIES_MAX:,} files: packages.size in the configuration",)
    if "failed to lookup address" in words or "dns error" in words:
        return ("a builder reaches the index alone: name the other host in packages.hosts of the configuration",)
    if "requires python" in words or "python implementation tag" in words or "python abi tag" in words:
        return (f'the agent runs on Python {runtime.version}: "python" in runagent.config.json asks for another one',)
    if "no-build" in words or "permission denied" in words or "no usable wheels" in words:
        return ("only wheels are installed: packages.source = true in the configuration lets code run to build others",)
    return ()


def _no_index(name: str, not_taken: str) -> Problem:
    return Problem(
        name,
        "has to be installed, and no package index is configured",
        (
            'write [packages] index = "https://…", or wheels = "DIR", to the daemon\'s configuration',
            not_taken or "or set UV_DEFAULT_INDEX or PIP_INDEX_URL for 'runagentd serve'",
        ),
    )
