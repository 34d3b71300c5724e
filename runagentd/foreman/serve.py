"""`runagentd serve`: bind the sockets, start the daemons, deploy the folders, watch over all of it until told to stop.

Runs as: root, one thread. Stands in for systemd: one code path, two ways to start it.
Reads from strangers: nothing. What an agent says of itself is passed on as bytes to a process without privileges.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import select
import signal
import socket
import stat
import struct
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from runagentd import kernel, signing, state
from runagentd.errors import UNFIT_STATUS, ConfigurationError, HostError
from runagentd.foreman import admin_client, announce, gateway_folder
from runagentd.foreman.daemons import Daemon
from runagentd.foreman.progress import ProgressLine
from runagentd.foreman.reload import Reloader
from runagentd.foreman.settings_link import Recipient, SettingsLink
from runagentd.foreman.worker_links import WorkerLinks
from runagentd.log import Form, Level, Log, complain
from runagentd.uids import Leases
from runagentd.wire import admin

_DEPLOY_SECONDS = 60.0
DEPLOYS_AT_ONCE = 32
"""Half of the connections that the supervisor takes from operators: their commands have room, too."""
_STOP_SECONDS = 9.0
_GATEWAY_STOP_SECONDS = 0.5
_SWEEP_SECONDS = 5.0
"""It takes a tenth of that, and only after a supervisor that was killed."""
_SILENT_SECONDS = 0.5
_NOTE_SECONDS = 1.0
_POLL_SECONDS = 0.005
_TOKEN_SECONDS = 24 * 3600
_SIGNAL = struct.Struct("=I4xiI")  # signalfd(2): ssi_signo, ssi_errno, ssi_code, ssi_pid
_SIGNAL_BYTES = 128
_SI_KERNEL = 0x80  # sigaction(2)
_MAIN = "import sys; sys.path.insert(0, %r); from runagentd.%s.__main__ import main; sys.exit(main())"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """What `serve` was asked to do."""

    folders: tuple[Path, ...]
    host: str
    port: int
    policies: tuple[admin.PolicyChoice, ...]
    state_dir: Path
    ready_file: Path | None
    log_format: str
    verbose: bool
    spares: int
    standbys: int
    config: Path | None = None
    check_only: bool = False
    as_json: bool = False
    reload: bool = False


class Interrupted(Exception):
    """The operator wants an end."""


class Foreman:
    """The daemons of one `serve`, and the signals that concern them."""

    def __init__(self, options: ServeOptions, directory: state.StateDirectory, log: Log) -> None:
        self._options = options
        self._directory = directory
        self._log = log
        signals = [signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        self._signals = kernel.signal_descriptor(signals)
        self._leases = Leases.open(directory.id)
        self._gateway_uid = self._leases.lease()
        self._loader_uid = self._leases.lease()
        self._egress_uid = self._leases.lease()
        # Every daemon watches the reading end, and ends with the foreman, however that ends.
        self._lifeline, self._lifeline_writer = os.pipe()
        self._http = _bind(options.host, options.port)
        self._control = _listen(directory.control_socket)
        self._admin = _listen(directory.admin_socket)
        self._settings = SettingsLink(options.config, log)
        # One pair for all their lives: neither of the two has to know when the other starts again.
        self._keys = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._builders = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._supervisor = Daemon(
            "supervisor", self._supervisor_command, self._supervisor_descriptors(), self._renew_supervisor
        )
        self._gateway = Daemon("gateway", self._gateway_command, self._gateway_descriptors(), self._renew_gateway)
        self._worker_links = WorkerLinks()
        self._workers = [self._worker(number) for number in self._worker_numbers]
        self._egress = Daemon("egress process", self._egress_command, self._egress_descriptors(), self._renew_egress)
        self._daemons = [self._supervisor, self._gateway, *self._workers]
        self._reloader: Reloader | None = None
        self._progress = ProgressLine(sys.stderr, log.info)
        self._up = False
        """whether all was there once: from then on, whatever ends is started again for ever"""

    @property
    def _worker_numbers(self) -> range:
        """Where one process is enough, the gateway reads HTTP itself."""
        return range(1, self._settings.workers + 1 if self._settings.workers > 1 else 1)

    def _worker(self, number: int) -> Daemon:
        uid = self._leases.lease()
        descriptors = {"http": self._http.fileno(), "lifeline": self._lifeline}

        def renew() -> None:
            descriptors["settings"] = self._settings.renew(Recipient.WORKER, number)
            descriptors["gateway"] = self._worker_links.renew_worker(number)

        command = functools.partial(self._worker_command, number, uid)
        return Daemon(f"gateway worker {number}", command, descriptors, renew)

    def _renew_gateway(self) -> None:
        self._gateway.descriptors["settings"] = self._settings.renew(Recipient.GATEWAY)
        if self._workers:
            self._gateway.descriptors["workers"] = self._worker_links.renew_gateway()

    def _renew_supervisor(self) -> None:
        self._supervisor.descriptors["settings"] = self._settings.renew(Recipient.SUPERVISOR)

    def _renew_egress(self) -> None:
        self._egress.descriptors["settings"] = self._settings.renew(Recipient.EGRESS)

    def _want_egress(self) -> None:
        """Where neither an issuer nor a package index is configured, nothing that can connect is there."""
        wanted = self._settings.document.egress
        if (wanted.issuers or wanted.package_hosts) and self._egress not in self._daemons:
            self._daemons.append(self._egress)
            self._egress.start()

    @property
    def url(self) -> str:
        host, port = self._http.getsockname()[:2]
        shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        scheme = "http" if self._settings.document.tls is None else "https"
        return f"{scheme}://[{shown}]:{port}" if ":" in shown else f"{scheme}://{shown}:{port}"

    @property
    def certificate_file(self) -> str:
        """Where a client on this machine finds the certificate; empty without TLS."""
        tls = self._settings.document.tls
        return "" if tls is None else str(tls.certificate_file)

    @property
    def certificate_name(self) -> str:
        """By which name a client verifies it; empty where the certificate names the address, and without TLS."""
        tls = self._settings.document.tls
        return "" if tls is None else tls.name_at(urlsplit(self.url).hostname or "")

    def start(self) -> None:
        for daemon in self._daemons:
            daemon.start()
        self._want_egress()

    def deploy(self) -> list[admin.Deployed]:
        """Deploy every folder, some at the same time; the answers in the order of the folders."""
        waiting: deque[socket.socket] = deque()
        deployed: list[admin.Deployed] = []
        try:
            for folder in self._options.folders:
                if len(waiting) == DEPLOYS_AT_ONCE:
                    deployed.append(self._answer(waiting[0]))
                    waiting.popleft().close()
                connection = admin_client.connect(self._directory.admin_socket)
                waiting.append(connection)
                descriptor = _open_folder(folder)
                try:
                    request = admin.Deploy(folder=str(folder), policies=self._options.policies, progress=True)
                    admin_client.send(connection, request, [descriptor])
                finally:
                    os.close(descriptor)
            deployed += [self._answer(connection) for connection in waiting]
            self._say_that_all_is_deployed()
            return deployed
        finally:
            for connection in waiting:
                connection.close()

    def _say_that_all_is_deployed(self) -> None:
        with admin_client.connect(self._directory.admin_socket) as connection:
            admin_client.send(connection, admin.AllDeployed())
            self._wait(connection, _DEPLOY_SECONDS)
            # A supervisor that was started again meanwhile knows from its store what there is.
            with contextlib.suppress(HostError):
                admin_client.receive(connection)

    def watch(self, deployed: Sequence[admin.Deployed]) -> None:
        """Restart what ends, and serve what changes anew where that is wanted, until Interrupted."""
        self._up = True
        if self._options.reload:
            self._reloader = Reloader(
                dict(zip(self._options.folders, deployed, strict=True)),
                policies=self._options.policies,
                admin_socket=self._directory.admin_socket,
                nobody=self.nobody,
                log=self._log,
            )
        while True:
            due = [daemon.restart_at for daemon in self._daemons if not daemon.pid]
            self._wait(None, max(0.0, min(due) - time.monotonic()) if due else None)

    def stop(self) -> None:
        """Let the calls end, then end everything, within ten seconds."""
        began = time.monotonic()
        deadline = began + _STOP_SECONDS
        self._supervisor.signal(signal.SIGTERM)
        told = False
        while self._supervisor.pid and time.monotonic() < deadline and not self._ended(self._supervisor):
            if not told and time.monotonic() > began + _SILENT_SECONDS:
                told = True
                self._log.info("waiting for open calls to end, 8 s at most; Ctrl+C again ends them now")
            if self._told_again():
                self._supervisor.signal(signal.SIGTERM)
            time.sleep(_POLL_SECONDS)
        self._end(self._supervisor, deadline)
        for daemon in (self._gateway, self._egress):
            daemon.signal(signal.SIGTERM)
        for daemon in (self._gateway, self._egress):
            self._end(daemon, min(deadline, time.monotonic() + _GATEWAY_STOP_SECONDS))
        # They have heard from the gateway that it was the end, and write out what it has answered.
        for daemon in self._workers:
            daemon.signal(signal.SIGTERM)
        until = min(deadline, time.monotonic() + _GATEWAY_STOP_SECONDS)
        for daemon in self._workers:
            self._end(daemon, until)
        self._sweep()
        for path in (self._directory.control_socket, self._directory.admin_socket):
            path.unlink(missing_ok=True)
        if self._options.ready_file is not None:
            self._options.ready_file.unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Remove what a supervisor that was killed has left: perhaps no other ever starts with this state directory.

        Its instances have ended with it; their cgroups are empty, and stay until somebody removes them.
        """
        if not self._supervisor.starts or self._supervisor.status in (0, UNFIT_STATUS):
            return
        sweeper = Daemon("sweeper", lambda first: [*self._supervisor_command(False), "--sweep"], {})
        sweeper.start()
        self._end(sweeper, time.monotonic() + _SWEEP_SECONDS)

    def _answer(self, connection: socket.socket) -> admin.Deployed:
        while True:
            self._wait(connection, _DEPLOY_SECONDS)
            reply = admin_client.receive(connection)
            if not isinstance(reply, admin.Progress):
                break
            self._progress.show(reply.text)
        self._progress.over()
        return admin_client.told(reply, admin.Deployed)

    def _wait(self, connection: socket.socket | None, seconds: float | None) -> None:
        """Wait until `connection` has something to read, minding the daemons; without one, for one event at most."""
        until = None if seconds is None else time.monotonic() + seconds
        while True:
            for daemon in self._daemons:
                if not daemon.pid and daemon.starts and daemon.restart_at <= time.monotonic():
                    daemon.start()
            due = [daemon.restart_at for daemon in self._daemons if not daemon.pid]
            reloader = self._reloader
            changed = reloader.due if reloader is not None else None
            limits = [moment for moment in (*due, until, changed) if moment is not None]
            timeout = max(0.0, min(limits) - time.monotonic()) if limits else None
            watched: list[int] = [self._signals, *([connection.fileno()] if connection is not None else [])]
            watched += reloader.descriptors() if reloader is not None else []
            readable, _, _ = select.select(watched, [], [], timeout)
            if self._signals in readable:
                self._mind_signals()
            if reloader is not None:
                reloader.mind(set(readable))
            if connection is not None and connection.fileno() in readable:
                return
            if until is not None and time.monotonic() >= until:
                if connection is not None:
                    raise HostError("the supervisor did not answer in time", "its log says why")
                return
            if connection is None:
                return

    def _mind_signals(self) -> None:
        try:
            number, code, sender = _SIGNAL.unpack_from(os.read(self._signals, _SIGNAL_BYTES))
        except BlockingIOError:
            return
        if number == signal.SIGCHLD:
            self._reap()
        elif number == signal.SIGHUP and code != _SI_KERNEL and sender != os.getsid(0):
            taken = self._settings.reload()
            self._want_egress()
            with contextlib.suppress(HostError, OSError):  # one that is just being started again is not told
                admin_client.ask(
                    self._directory.admin_socket, admin.SettingsChanged(taken=taken), seconds=_NOTE_SECONDS
                )
        else:
            # Also a terminal's hangup, which the kernel sends, or a shell that ends and leads our session.
            raise Interrupted

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for daemon in self._daemons:
                if daemon.pid == pid:
                    daemon.status = os.waitstatus_to_exitcode(status)
                    if daemon.status == UNFIT_STATUS:
                        daemon.pid = 0
                        raise HostError(f"the {daemon.name} cannot run on this machine; its message is above")
                    self._log.error(f"the {daemon.name} ended and is started again", status=daemon.status)
                    daemon.ended()
                    if not self._up and daemon.failures > 3 and daemon.starts == daemon.failures:
                        raise HostError(f"the {daemon.name} does not start on this machine; its message is above")

    def _told_again(self) -> bool:
        """Whether one more signal asks for an end. One that merely says that a daemon ended is taken, too."""
        try:
            number, *_ = _SIGNAL.unpack_from(os.read(self._signals, _SIGNAL_BYTES))
        except BlockingIOError:
            return False
        return number in (signal.SIGINT, signal.SIGTERM)

    def _ended(self, daemon: Daemon) -> bool:
        if daemon.pid:
            pid, status = os.waitpid(daemon.pid, os.WNOHANG)
            if pid:
                daemon.pid, daemon.status = 0, os.waitstatus_to_exitcode(status)
        return not daemon.pid

    def _end(self, daemon: Daemon, deadline: float) -> None:
        while not self._ended(daemon):
            if time.monotonic() > deadline:
                daemon.signal(signal.SIGKILL)
                os.waitpid(daemon.pid, 0)
                daemon.pid, daemon.status = 0, -signal.SIGKILL
            else:
                time.sleep(_POLL_SECONDS)

    def _supervisor_command(self, first: bool) -> Sequence[str]:
        return [
            *_python("supervise"),
            "--state-dir", str(self._directory.path),
            "--loader-uid", str(self._loader_uid),
            "--spares", str(self._options.spares),
            "--standbys", str(self._options.standbys),
            *(["--fresh"] if first else []),
            *self._log_options(),
        ]  # fmt: skip

    def _gateway_command(self, first: bool) -> Sequence[str]:
        return [
            *_python("gateway"),
            "--uid", str(self._gateway_uid),
            "--gid", str(self._gateway_uid),
            "--audience", self._directory.audience,
            "--issuer", self._directory.issuer,
            "--state-id", self._directory.id,
            *self._log_options(),
        ]  # fmt: skip

    def _egress_command(self, first: bool) -> Sequence[str]:
        uid = str(self._egress_uid)
        return [*_python("egress"), "--uid", uid, "--gid", uid, *self._log_options()]

    def _worker_command(self, number: int, uid: int, first: bool) -> Sequence[str]:
        options = ["--number", str(number), "--uid", str(uid), "--gid", str(uid)]
        return [*_python("worker"), *options, *self._log_options()]

    def _log_options(self) -> list[str]:
        level = ["-v"] if self._options.verbose else ["-q"] if self._options.check_only else []
        return ["--log-format", self._options.log_format, *level]

    def _supervisor_descriptors(self) -> dict[str, int]:
        return {"admin": self._admin.fileno(), "lifeline": self._lifeline, "egress": self._builders[0].fileno()}

    def _gateway_descriptors(self) -> dict[str, int]:
        gateway_folder.own(self._directory.gateway, self._gateway_uid)
        http = {"http": self._http.fileno()} if self._settings.workers == 1 else {}
        return {
            **http,
            "lifeline": self._lifeline,
            "control": self._control.fileno(),
            "egress": self._keys[0].fileno(),
            "data": os.open(self._directory.gateway, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC),
        }

    def _egress_descriptors(self) -> dict[str, int]:
        return {
            "lifeline": self._lifeline,
            "gateway": self._keys[1].fileno(),
            "supervisor": self._builders[1].fileno(),
        }

    @property
    def nobody(self) -> int:
        """The uid for what has to read what agents wrote."""
        return self._loader_uid


def serve(options: ServeOptions) -> int:
    """Run until SIGINT or SIGTERM; the exit status. Problems are printed, one clear text each."""
    program = "runagentctl" if options.check_only else "runagentd"
    try:
        _require_root()
        directory = state.create_or_open(options.state_dir)
        lock = state.lock(directory)
        signing_key = signing.create_or_open(str(directory.keys))
        log = Log(sys.stderr, source="foreman", form=Form(options.log_format), level=Level.INFO)
        foreman = Foreman(options, directory, log)
    except ConfigurationError as error:
        complain(f"{program}: {error}")
        return 2
    except HostError as error:
        complain(f"{program}: {error}")
        return 1
    try:
        foreman.start()
        deployed = foreman.deploy()
        _check_policies_used(options.policies, deployed)
        served = signing.that_fit([row.agent for row in deployed if row.ok])
        token = (
            ""
            if not served
            else signing.mint(
                signing_key,
                issuer=directory.issuer,
                audience=directory.audience,
                subject="serve",
                agents=served,
                ttl_seconds=_TOKEN_SECONDS,
            )
        )
        announcement = announce.Announcement(
            url=foreman.url,
            token=token,
            named=len(served),
            deployed=tuple(deployed),
            certificate_file=foreman.certificate_file,
            certificate_name=foreman.certificate_name,
            as_json=options.as_json,
            check_only=options.check_only,
        )
        status = announce.show_as_nobody(announcement, uid=foreman.nobody)
        if status == 0 and not options.check_only:
            if options.ready_file is not None:
                _write_ready_file(options.ready_file, foreman.url, token, deployed)
            foreman.watch(deployed)
        return status
    except Interrupted:
        return 0
    except HostError as error:
        complain(f"{program}: {error}")
        return 1
    finally:
        foreman.stop()
        os.close(lock)


def _check_policies_used(policies: Sequence[admin.PolicyChoice], deployed: Sequence[admin.Deployed]) -> None:
    """A policy for an agent that is not there is most likely a misspelled name, and another agent runs too freely."""
    known = {name for row in deployed for name in (row.agent, row.agent_name)}
    for choice in policies:
        if choice.agent and choice.agent not in known and all(row.ok for row in deployed):
            raise HostError(
                f"--policy {choice.agent}={choice.policy}: no served agent has that id or name",
                f"served are: {', '.join(sorted(row.agent_name for row in deployed))}",
            )


def _require_root() -> None:
    if os.geteuid() != 0:
        raise HostError("runagentd must be started as root", "it makes sandboxes; the parts that listen give root up")
    if sys.platform != "linux" or sys.version_info < (3, 11):
        raise HostError("runagentd needs Linux and Python 3.11 or newer")


def _python(package: str) -> list[str]:
    """This interpreter, isolated, with the packages of this installation."""
    root = str(Path(__file__).resolve().parent.parent.parent)
    return [sys.executable, "-I", "-c", _MAIN % (root, package)]


def _bind(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
    except OSError as error:
        reason = error.strerror or str(error)
        raise HostError(
            f"cannot listen on {host} port {port}: {reason.lower()}", "choose another --host or --port"
        ) from error
    return listener


def _listen(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)  # we hold the lock: it is what a killed daemon left
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(path))
    os.chmod(path, 0o600)
    listener.listen(64)
    return listener


def _open_folder(folder: Path) -> int:
    try:
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise HostError(f"{folder}: {(error.strerror or '').lower()}", "give the folder of an agent") from error


def _write_ready_file(path: Path, url: str, token: str, deployed: Sequence[admin.Deployed]) -> None:
    agents = [{"id": row.agent, "name": row.agent_name, "tags": list(row.tags)} for row in deployed]
    content = json.dumps({"url": url, "token": token, "agents": agents}) + "\n"
    unfinished = path.with_name(path.name + ".new")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, stat.S_IRUSR | stat.S_IWUSR)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(content)
    unfinished.rename(path)
