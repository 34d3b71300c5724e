"""What runagentd does, in a few seconds: serve four agents, call them, let one try to get out, leave nothing behind.

Runs as: root, by `make demo`. Everything goes through what users have: two commands, HTTP and WebSocket.
Reads from strangers: what agents answer, one of them hostile; no control character of theirs reaches the terminal.
The exit status is 0 only if every step went as expected; a step that did not says what was expected.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import platform
import re
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp

EXAMPLES = Path(__file__).resolve().parent
COMMANDS = Path(sys.executable).parent
AGENTS = ("chat", "data", "analysis", "hostile")
WIDTH = 96
UP_SECONDS = 30.0
DOWN_SECONDS = 10.0

PRICES = "city,price\nParis,3.20\nOslo,4.10\nParis,2.80\nOslo,\nRome,1.95\n"
ESSAY = (
    "The the kernel is the record of what runs. A limit that lies is worse than none (or so they say. "
    "Every end has its true cause, and whoever called gets to hear of it."
)


class Unexpected(Exception):
    """A step went another way than it should have."""


_TROUBLE = (
    Unexpected, OSError, ValueError, LookupError, TypeError,
    subprocess.SubprocessError, http.client.HTTPException, aiohttp.ClientError,
)  # fmt: skip
"""What a step may meet where the daemon is gone, or answers in a form of its own."""


# ---- the report on the terminal


class Paper:
    """Prints numbered steps, each with the real output and a verdict; remembers whether all were as expected."""

    def __init__(self) -> None:
        self.failed = 0
        self._steps = 0
        self._colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ

    def say(self, text: str = "", *, cut: bool = True, style: str = "") -> None:
        """One line. What is too long for a terminal of 100 columns is cut, never wrapped."""
        shown = "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in text.rstrip())
        if cut and len(shown) > WIDTH:
            shown = shown[: WIDTH - 1] + "…"
        print(f"\x1b[{style}m{shown}\x1b[0m" if style and self._colours else shown, flush=True)

    @contextlib.contextmanager
    def step(self, title: str, *, essential: bool = False) -> Iterator[None]:
        """Print a heading, what the block prints, and `ok` or `FAILED`; an essential step that fails ends the demo."""
        self._steps += 1
        self.say()
        self.say(f"{self._steps}. {title}", style="1")
        began = time.monotonic()
        try:
            yield
        except _TROUBLE as error:
            self.failed += 1
            what = str(error) if isinstance(error, Unexpected) else f"this step to work, not {error!r}"
            for number, line in enumerate(f"expected {what}".splitlines()):
                self.say(f"   {'        ' if number else 'FAILED: '}{line}", cut=False, style="31;1")
            if essential:
                raise SystemExit(1) from None
        else:
            self.say(f"   ok, {_seconds(time.monotonic() - began)}", style="32")


def expect(fact: bool, what: str) -> None:
    """Unexpected where `fact` is false; `what` completes "expected ..."."""
    if not fact:
        raise Unexpected(what)


def _seconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"


# ---- the daemon and its clients


class Daemon:
    """`runagentd serve` on the examples, and calls to it."""

    def __init__(self, place: Path) -> None:
        self.state = place / "state"
        self._place = place
        self._ready = place / "ready.json"
        self._log = place / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self.host, self.port, self.token = "", 0, ""

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    def start(self) -> list[str]:
        """Start it and wait until it serves; gives what it printed. The chat agent may keep its folder, no other."""
        self._ready.unlink(missing_ok=True)
        command: list[str | Path] = [
            COMMANDS / "runagentd", "serve", *(EXAMPLES / agent for agent in AGENTS),
            "--policy", "chat=persistent", "--port", "0", "--state-dir", self.state, "--ready-file", self._ready,
        ]  # fmt: skip
        printed = self._place / "printed"
        with printed.open("wb") as out, self._log.open("ab") as err:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        deadline = time.monotonic() + UP_SECONDS
        while not self._ready.exists():
            if (status := self._process.poll()) is not None:
                raise Unexpected(f"the daemon to come up, not to end with status {status}; its log is below")
            if time.monotonic() > deadline:
                raise Unexpected(f"the daemon to come up within {UP_SECONDS:.0f} s; its log is below")
            time.sleep(0.005)
        ready = json.loads(self._ready.read_text())
        url = re.fullmatch(r"http://([0-9.]+):([0-9]+)", ready["url"])
        expect(url is not None, f"a URL in the ready file, not {ready['url']!r}")
        if url is not None:
            self.host, self.port = url[1], int(url[2])
        self.token = ready["token"]
        expect(stat.S_IMODE(self._ready.stat().st_mode) == 0o600, "the ready file, which has a token, to be private")
        return printed.read_text().splitlines()

    def stop(self) -> float:
        """SIGTERM, as `systemctl stop` would send; gives the seconds until it had ended."""
        began = time.monotonic()
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(DOWN_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
                raise Unexpected(f"an end within {DOWN_SECONDS:.0f} s of SIGTERM") from None
        return time.monotonic() - began

    def log_lines(self) -> list[str]:
        """What the daemon said of its own work."""
        return self._log.read_text(errors="replace").splitlines() if self._log.exists() else []

    def invoke(self, agent: str, tag: str, token: str = "", **arguments: Any) -> tuple[int, Any, float]:
        """One call over the native door: status, JSON, seconds."""
        began = time.monotonic()
        with self._post(agent, tag, arguments, {"Authorization": f"Bearer {token or self.token}"}) as answer:
            return answer.status, json.loads(answer.read()), time.monotonic() - began

    def events(self, agent: str, tag: str, **arguments: Any) -> Iterator[tuple[float, str, Any]]:
        """A stream as server-sent events: seconds since the request, event name, JSON."""
        began = time.monotonic()
        headers = {"Authorization": f"Bearer {self.token}", "Accept": "text/event-stream"}
        with self._post(agent, tag, arguments, headers) as answer:
            expect(answer.status == 200, f"status 200, not {answer.status}")
            name = ""
            for line in answer:
                field, _, value = line.decode().rstrip("\r\n").partition(": ")
                if field == "event":
                    name = value
                elif field == "data":
                    yield time.monotonic() - began, name, json.loads(value)

    async def chunks(self, agent: str, tag: str, **arguments: Any) -> list[tuple[float, str, Any]]:
        """A stream over WebSocket, in RunAgent's protocol: seconds, frame type, and a status or a chunk's value."""
        began, seen = time.monotonic(), []
        url = f"ws://{self.host}:{self.port}/api/v1/agents/{agent}/run-stream?token={self.token}"
        request = {"entrypoint_tag": tag, "input_args": [], "input_kwargs": arguments}
        async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
            await socket.send_json(request)
            while True:
                frame = await socket.receive_json(timeout=10)
                # Values travel twice encoded in this protocol: JSON text of a type and the JSON text of the value.
                value = json.loads(json.loads(frame["content"])["payload"]) if frame["type"] == "data" else frame
                seen.append((time.monotonic() - began, frame["type"], value))
                if frame["type"] == "error" or frame.get("status") == "stream_completed":
                    return seen

    def runagentctl(self, *words: str) -> str:
        """Standard output of an operator's command."""
        command: list[str | Path] = [COMMANDS / "runagentctl", *words, "--state-dir", self.state]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout

    # Any: JSON of the daemon's own, whose form is that of runagentd.wire.admin.Instances.
    def listing(self) -> Any:
        """What the supervisor says runs."""
        return json.loads(self.runagentctl("ps", "--json"))

    @contextlib.contextmanager
    def _post(
        self, agent: str, tag: str, arguments: dict[str, Any], headers: dict[str, str]
    ) -> Iterator[http.client.HTTPResponse]:
        with contextlib.closing(http.client.HTTPConnection(self.host, self.port, timeout=30)) as connection:
            path = f"/v1/agents/{agent}/entrypoints/{tag}:invoke"
            connection.request("POST", path, json.dumps(arguments), {"Content-Type": "application/json", **headers})
            yield connection.getresponse()


# ---- what the kernel says


class Traces:
    """Everything by which a daemon could be found on this machine: looked up in the kernel, not in the daemon."""

    def __init__(self, state: Path) -> None:
        self._state = str(state)
        self._seen: set[tuple[int, str]] = set()

    def note(self, foreman: int) -> None:
        """Remember the processes below `foreman`, by pid and start time, since a pid alone is used again."""
        self._seen |= {(pid, _started(pid)) for pid in [foreman, *_below(foreman)]}

    def count(self) -> dict[str, int]:
        """How many of each are there now."""
        identity = f"runagentd-{(Path(self._state) / 'id').read_text().strip()}"
        groups = [path for mount in _cgroup_mounts() for path in _directories(mount) if identity in path]
        places = Path("/proc/self/mountinfo").read_text().splitlines()
        return {
            "processes": sum(_started(pid) == started for pid, started in self._seen),
            "cgroups": len(groups),
            "mounts": sum(self._state in line or identity in line for line in places),
            "sockets": Path("/proc/net/unix").read_text().count(self._state),
        }


def status_of(pid: int) -> dict[str, str]:
    """/proc/PID/status, proc_pid_status(5)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _stat(pid: int) -> list[str]:
    """/proc/PID/stat after the name, which may hold spaces and brackets: state, parent, ..."""
    return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()


def _started(pid: int) -> str:
    """When a process started, in ticks since boot; empty where there is none. A zombie is a process."""
    try:
        return _stat(pid)[19]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _below(ancestor: int) -> list[int]:
    """The descendants of a process, parents first."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                children.setdefault(int(_stat(int(entry))[1]), []).append(int(entry))
    found = [ancestor]
    for pid in found:
        found += sorted(children.get(pid, []))
    return found[1:]


def _cgroup_mounts() -> list[str]:
    lines = (line.split(" - ") for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return [left.split()[4] for left, right in lines if right.split()[0] in ("cgroup", "cgroup2")]


def _directories(top: str) -> Iterator[str]:
    for path, _, _ in os.walk(top):
        yield path


# ---- the steps


def serve(paper: Paper, daemon: Daemon) -> None:
    """What `runagentd serve` prints."""
    paper.say(f"   $ runagentd serve {' '.join(f'examples/{agent}' for agent in AGENTS)} --policy chat=persistent")
    for line in daemon.start():
        paper.say(f"   | {line}")


def cold_starts(paper: Paper, daemon: Daemon) -> None:
    """How long it took to make each sandbox, from the supervisor's own clock."""
    rows = daemon.listing()["instances"]
    paper.say("   all four at the same time:")
    paper.say("   agent     ready after  sandbox       its longest steps, in ms")
    for row in rows:
        _show_cold_start(paper, row)
    expect(len(rows) == len(AGENTS), f"one sandbox for each of {len(AGENTS)} agents")
    paper.say("   and one alone, after $ runagentctl restart data")
    former = next(row for row in rows if row["agent_name"] == "data")
    daemon.runagentctl("restart", "data")
    deadline = time.monotonic() + UP_SECONDS
    while True:
        row = next(row for row in daemon.listing()["instances"] if row["agent_name"] == "data")
        if row["state"] == "ready" and row["instance"] != former["instance"]:
            break
        expect(time.monotonic() < deadline, "data to be ready again")
    _show_cold_start(paper, row)


def _show_cold_start(paper: Paper, row: dict[str, Any]) -> None:
    spawned = (row["ready_ns"] - row["spawn_started_ns"]) / 1e9
    longest = sorted(row["steps"], key=lambda step: -step["microseconds"])[:3]
    steps = ", ".join(f"{step['step']} {step['microseconds'] / 1000:.1f}" for step in longest)
    origin = "at its gate" if row["stood_by"] else "from a spare" if row["from_spare"] else "on demand"
    paper.say(f"   {row['agent_name']:9} {_seconds(spawned):11}  {origin:12}  {steps}")
    expect(row["state"] == "ready" and 0 < spawned < 5, f"{row['agent_name']} to be ready within 5 s")


def call(paper: Paper, daemon: Daemon) -> None:
    """A function of the data agent's, once, and then often enough to see what a warm call takes."""
    paper.say("   POST /v1/agents/data/entrypoints/group:invoke   CSV in, means out")
    status, groups, first = daemon.invoke("data", "group", table=PRICES, by="city", value="price")
    paper.say(f"   {status} after {_seconds(first)}  {json.dumps(groups)}")
    expect(status == 200, "status 200")
    means = {group["key"]: (group["rows"], group["value"]) for group in groups}
    expect(means == {"Oslo": (1, 4.1), "Paris": (2, 3.0), "Rome": (1, 1.95)}, "the means of 4.1, 3.0 and 1.95")
    times = sorted(daemon.invoke("data", "group", table=PRICES, by="city", value="price")[2] for _ in range(50))
    paper.say(f"   fifty more, a connection each: median {_seconds(times[25])}, slowest {_seconds(times[-1])}")


def stream_over_websocket(paper: Paper, daemon: Daemon) -> None:
    """RunAgent's own protocol: its clients work unchanged."""
    paper.say("   ws …/api/v1/agents/chat/run-stream   chat_stream(message, pause=0.05)")
    message = "My name is Ada. Remember that the build runs at noon."
    frames = asyncio.run(daemon.chunks("chat", "chat_stream", message=message, pause=0.05))
    for seconds, kind, value in frames:
        paper.say(f"   {_seconds(seconds):>9}  {kind:6}  {value['status'] if kind == 'status' else json.dumps(value)}")
    words = "".join(value for _, kind, value in frames if kind == "data")
    expect(words == "Pleased to meet you, Ada.", "the words of “Pleased to meet you, Ada.”")
    expect(frames[0][2]["status"] == "stream_started", "“stream_started” as the first frame")
    arrivals = [seconds for seconds, kind, _ in frames if kind == "data"]
    expect(arrivals[-1] - arrivals[0] > 0.1, "the words one by one, as the function yields them")


def stream_over_sse(paper: Paper, daemon: Daemon) -> None:
    """The native door: the same path as a call, with another Accept header."""
    paper.say("   POST /v1/agents/analysis/entrypoints/analyse_stream:invoke   Accept: text/event-stream")
    events = []
    for seconds, name, value in daemon.events("analysis", "analyse_stream", text=ESSAY, pause=0.05):
        paper.say(f"   {_seconds(seconds):>9}  {name:6}  {json.dumps(value, ensure_ascii=False)}")
        events.append((name, value))
    expect([name for name, _ in events[:1] + events[-1:]] == ["start", "done"], "“start” first and “done” last")
    rules = [value["finding"]["rule"] for name, value in events if name == "chunk" and "finding" in value]
    expect(rules == ["doubled word", "brackets"], "a doubled word and an open bracket to be found")


def wrong_calls(paper: Paper, daemon: Daemon) -> None:
    """Refusals tell the caller what to do, and nothing about the daemon."""
    header, payload, signature = daemon.token.split(".")
    forged = ".".join([header, payload, signature[:20] + ("A" if signature[20] != "A" else "B") + signature[21:]])
    status, problem, took = daemon.invoke("data", "group", token=forged, table=PRICES, by="city", value="price")
    paper.say(f"   a letter of the token's signature changed: {status} after {_seconds(took)}")
    _show_problem(paper, problem)
    expect((status, problem["code"]) == (401, "AUTHENTICATION_ERROR"), "401 and AUTHENTICATION_ERROR")
    status, problem, took = daemon.invoke("data", "group", table=PRICES, by="city", value=["price"])
    paper.say(f"   a list where the function's signature says text: {status} after {_seconds(took)}")
    _show_problem(paper, problem)
    expect((status, problem["code"]) == (422, "VALIDATION_ERROR"), "422 and VALIDATION_ERROR")
    expect(problem["errors"][0]["pointer"] == "/value", "a pointer to the wrong argument")


def _show_problem(paper: Paper, problem: dict[str, Any]) -> None:
    problem["pointer"] = problem["errors"][0]["pointer"] if "errors" in problem else None
    for key in ("title", "detail", "pointer", "code", "hint"):
        if problem.get(key):
            paper.say(f"     {key:7}  {problem[key]}")


def restart(paper: Paper, daemon: Daemon, traces: Traces) -> None:
    """What an agent keeps in a persistent folder outlives it; everything else is gone with its sandbox."""
    traces.note(daemon.pid)
    paper.say(f"   the daemon stopped within {_seconds(daemon.stop())}")
    began = time.monotonic()
    daemon.start()
    paper.say(f"   started again, all agents ready, in {_seconds(time.monotonic() - began)}")
    for question, expected in (
        ("Who am I?", "You are Ada; you told me."),
        ("What do you know about the build?", "You told me: the build runs at noon."),
    ):
        status, answer, _ = daemon.invoke("chat", "chat", message=question)
        paper.say(f"   {question:35} → {answer if isinstance(answer, str) else json.dumps(answer)}")
        expect(status == 200 and answer == expected, f"{expected!r}")


def processes(paper: Paper, daemon: Daemon) -> None:
    """Who runs as what, from /proc."""
    listing = daemon.listing()
    names = {daemon.pid: "foreman"} | {row["pid"]: row["name"] for row in listing["daemons"]}
    gateways = [pid for pid in _below(daemon.pid) if int(_stat(pid)[1]) == daemon.pid and pid not in names]
    names |= dict.fromkeys(gateways, "gateway")
    for row in listing["instances"]:
        names |= {row["reaper_pid"]: f"{row['agent_name']}: reaper", row["pid"]: f"{row['agent_name']}: runner"}
    # The others wait for the next agent, their runner as root until it has its plan; one may end while we look.
    for pid in _below(daemon.pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            names.setdefault(pid, f"spare: {status_of(pid)['Name']}")
    paper.say("   process             pid  uid         CapEff            NoNewPrivs  Seccomp")
    for pid, name in names.items():
        try:
            found = status_of(pid)
        except (FileNotFoundError, ProcessLookupError):
            if not name.startswith("spare: "):
                raise
            continue  # it has ended since: what makes a spare does
        cells = f"{found['Uid'].split()[0]:10}  {found['CapEff']}  {found['NoNewPrivs']:10}  {found['Seccomp']}"
        paper.say(f"   {name:16}  {pid:5}  {cells}")
    if any(name.startswith("spare: ") for name in names.values()):
        paper.say("   A spare waits for an agent and has seen none: its runner gives up root, and gets its filter,")
        paper.say("   before it reads anything of one.")
    expect(len(gateways) == 1, "one gateway")
    _expect_powerless("the gateway", status_of(gateways[0]), seccomp=None)
    for row in listing["instances"]:
        for pid in (row["reaper_pid"], row["pid"]):
            _expect_powerless(names[pid], status_of(pid), seccomp="2")
    uids = {status_of(row["pid"])["Uid"] for row in listing["instances"]}
    expect(len(uids) == len(AGENTS), "a uid of its own for each agent")


def _expect_powerless(name: str, found: dict[str, str], *, seccomp: str | None) -> None:
    expect("0" not in found["Uid"].split() + found["Gid"].split(), f"{name} not to be root")
    for group in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        expect(int(found[group], 16) == 0, f"{name} to have an empty {group}")
    expect(found["NoNewPrivs"] == "1", f"{name} to have NoNewPrivs")
    expect(seccomp in (None, found["Seccomp"]), f"{name} to have a system-call filter")


def hostile(paper: Paper, daemon: Daemon) -> None:
    """Every attempt is made for real, by code inside the sandbox, and reported by the agent itself."""
    reports = []
    for _, name, value in daemon.events("hostile", "try_to_escape_stream"):
        if name == "error":
            raise Unexpected(f"reports to the end, not {value.get('detail')!r}")
        if name == "chunk":
            reports.append(value)
            how = value["errno"] or ("" if value["outcome"] == "open" else "-")
            text = f"   {value['outcome']:8} {how:7} {value['attempt'].replace('_', ' '):40} {value['detail']}"
            paper.say(text, style="31" if value["outcome"] == "open" else "")
    open_ones = [report["attempt"] for report in reports if report["outcome"] == "open"]
    tried = (EXAMPLES / "hostile" / "ways.py").read_text().count("\n@way(")
    paper.say(f"   {len(reports)} attempts, {len(reports) - len(open_ones)} without success")
    expect(not open_ones, f"no way out, not {', '.join(open_ones)}")
    expect(len(reports) == tried, f"{tried} reports")
    status, _, took = daemon.invoke("data", "group", table=PRICES, by="city", value="price")
    paper.say(f"   meanwhile the others serve on: a call to data, {status} after {_seconds(took)}")
    expect(status == 200, "the data agent to answer")
    for line in daemon.runagentctl("ps").splitlines():
        paper.say(f"   | {line}")


def stop(paper: Paper, daemon: Daemon, traces: Traces) -> None:
    """The same questions to the kernel, before and after."""
    traces.note(daemon.pid)
    before = traces.count()
    paper.say(f"   the daemon stopped within {_seconds(daemon.stop())}")
    after = traces.count()
    paper.say("                 while serving   now")
    for what, number in before.items():
        paper.say(f"   {what:12} {number:15} {after[what]:5}")
    expect(min(before["processes"], before["cgroups"], before["sockets"]) > 0, "something to be there before the end")
    expect(not any(after.values()), "nothing to be left")
    with contextlib.suppress(ConnectionRefusedError):
        daemon.invoke("chat", "history")
        raise Unexpected(f"port {daemon.port} to be closed")


def main() -> int:
    """The exit status."""
    paper = Paper()
    began = time.monotonic()
    paper.say("runagentd: Python agents in sandboxes, behind an authenticated API", style="1")
    paper.say(f"Linux {platform.release()}, Python {platform.python_version()}, {os.cpu_count()} processors")
    with tempfile.TemporaryDirectory(prefix="runagentd-demo-", dir="/var/tmp") as place:
        daemon = Daemon(Path(place))
        traces = Traces(daemon.state)
        try:
            with paper.step("Serve four folders with agents", essential=True):
                serve(paper, daemon)
            with paper.step("Cold start: what it took to make each sandbox and import the agent in it"):
                cold_starts(paper, daemon)
            with paper.step("A call"):
                call(paper, daemon)
            with paper.step("A stream over WebSocket, in RunAgent's protocol"):
                stream_over_websocket(paper, daemon)
            with paper.step("A stream of server-sent events"):
                stream_over_sse(paper, daemon)
            with paper.step("A wrong token, and a wrong argument"):
                wrong_calls(paper, daemon)
            with paper.step("The chat agent remembers, even across a restart of the daemon", essential=True):
                restart(paper, daemon, traces)
            with paper.step("Who runs as what"):
                processes(paper, daemon)
            with paper.step("The hostile agent tries to get out"):
                hostile(paper, daemon)
            with paper.step("Stop, and look for anything that is left"):
                stop(paper, daemon, traces)
        finally:
            with contextlib.suppress(Unexpected):
                daemon.stop()
            if paper.failed:
                paper.say("the daemon's log:")
                for line in daemon.log_lines()[-20:]:
                    paper.say(f"   | {line}", cut=False)
    paper.say()
    if paper.failed:
        paper.say(f"{paper.failed} of these steps did not go as expected", style="31;1")
        return 1
    paper.say(f"All of it as expected, in {_seconds(time.monotonic() - began)}.", style="32;1")
    paper.say("Now with an agent of your own: .venv/bin/runagentd serve DIR   (README.md shows one)")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
