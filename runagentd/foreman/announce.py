"""Say what is served, or what is wrong, so that a person can go on from there.

Runs as: a process of its own that the foreman starts, with no privilege left before the first byte is parsed: what
runners say of their agents is read here. Not a fork: the foreman's memory has held the signing key.
Reads from strangers: yes, the JSON of DESCRIBE and FAILED. Control characters never reach the terminal.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from runagentd import kernel
from runagentd.log import complain, escape, printing
from runagentd.wire import admin, record
from runagentd.wire.manifest import LoadProblem

ANNOUNCEMENT_BYTES_MAX = 64 * 1024 * 1024
_VERSION = version("runagentd")  # now: without privileges the files of an installation may be out of reach
_START = "import sys; sys.path.insert(0, sys.argv[1]); from runagentd.foreman.announce import main; sys.exit(main())"


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """What there is to say."""

    deployed: tuple[admin.Deployed, ...]
    url: str = ""
    token: str = ""
    named: int = 0
    """how many of the agents that are served the token names, the first ones: it must not become too long"""
    certificate_file: str = ""
    """empty without TLS"""
    certificate_name: str = ""
    """by which host name it has to be called; empty where the certificate names the address in `url`"""
    as_json: bool = False
    check_only: bool = False
    reloaded_ms: int = -1
    """how long another version took from the change to serving; -1 where nothing was reloaded"""
    deploy: bool = False
    """whether it is the answer to one deploy by an operator"""
    applied: str = ""
    """what 'runagentctl apply' says of its files, as JSON; `deployed` are the answers for those with a result"""


def show_as_nobody(announcement: Announcement, *, uid: int) -> int:
    """Print the announcement in a process of uid `uid`; 0 where all agents are served, else 1."""
    root = str(Path(__file__).resolve().parent.parent.parent)
    command = [sys.executable, "-I", "-c", _START, root, str(uid)]
    sys.stdout.flush()
    return subprocess.run(command, input=record.encode(announcement), env={}, cwd="/", check=False).returncode


def main() -> int:
    """What `show_as_nobody` starts: argv is uid, standard input the announcement's record."""
    uid = int(sys.argv[2])
    kernel.drop_privileges(uid, uid)
    data = sys.stdin.buffer.read(ANNOUNCEMENT_BYTES_MAX + 1)
    announcement = record.decode(Announcement, data, bytes_max=ANNOUNCEMENT_BYTES_MAX)
    return printing(lambda: show(announcement), name="runagentd")


def show(announcement: Announcement) -> int:
    """Print; the exit status."""
    failed = [row for row in announcement.deployed if not row.ok]
    if announcement.reloaded_ms >= 0:
        return _show_reload(announcement)
    if announcement.applied:
        return _show_applied(announcement)
    if announcement.deploy:
        return _show_deploy(announcement.deployed[0], as_json=announcement.as_json)
    if announcement.as_json:
        print(json.dumps({"ok": not failed, "agents": [_as_json(row) for row in announcement.deployed]}, indent=2))
        return 1 if failed else 0
    for row in failed:
        complain("\n".join(problem_lines(row)))
    if failed:
        return 1
    for line in check_lines(announcement) if announcement.check_only else serving_lines(announcement):
        print(line)
    return 0


def _show_reload(announcement: Announcement) -> int:
    for row in announcement.deployed:
        if row.ok:
            print(f"{escape(row.agent_name)}: reloaded in {announcement.reloaded_ms / 1000:.2f} s", flush=True)
            for line in _wider_lines(row):
                print(line, flush=True)
            for hint in row.hints:
                print(f"  hint: {escape(hint)}", flush=True)
        else:
            after = f"hint: {escape(row.agent_name) or 'the agent'} goes on as it was before the change"
            complain("\n".join([*problem_lines(row), after]))
    return 0


def _show_applied(announcement: Announcement) -> int:
    told = json.loads(announcement.applied)
    answered = (agent for agent in told["agents"] if agent["result"] is not None)
    for agent, row in zip(answered, announcement.deployed, strict=True):
        agent["deployed"] = _as_json(row)
    print(json.dumps(told, indent=2))
    return 0


def _show_deploy(row: admin.Deployed, *, as_json: bool) -> int:
    """What has become of one folder."""
    if as_json:
        print(json.dumps(_as_json(row), indent=2))
    elif row.ok:
        for line in deploy_lines(row):
            print(line)
    else:
        complain("\n".join(problem_lines(row)))
    return 0 if row.ok else 1


def deploy_lines(row: admin.Deployed) -> Iterator[str]:
    """What an operator is told of a deploy that went well."""
    name = escape(row.agent_name)
    if row.unchanged:
        yield f"{name}: v{row.number} serves already; nothing has changed"
        return
    yield f"{name}: v{row.number} serves" + (f", in the place of v{row.before}" if row.before else "")
    yield f"  id       {escape(row.agent)}"
    yield f"  version  {escape(row.version[:12])}"
    yield f"  policy   {escape(row.policy)}"
    if row.before:
        yield f"  changed  {', '.join(map(escape, row.changes))}"
    yield from _wider_lines(row)
    yield from _agent_lines(row)
    if row.warm_seconds:
        yield (
            f"  v{row.before} is kept warm for {row.warm_seconds // 60} min: "
            f"'runagentctl rollback {shlex.quote(name)}' has it serve again at once"
        )


def _wider_lines(row: admin.Deployed) -> Iterator[str]:
    for key in row.wider:
        yield f"  its policy is wider: {escape(key)}"


def check_lines(announcement: Announcement) -> Iterator[str]:
    """What `check` says of agents that are fine."""
    for row in announcement.deployed:
        yield f"{escape(row.agent_name)}: ok"
        yield from _agent_lines(row)


def serving_lines(announcement: Announcement) -> Iterator[str]:
    """What `serve` says once all is up."""
    count = len(announcement.deployed)
    if not count:
        yield f"runagentd {_VERSION} serves what is deployed at {announcement.url}"
        yield ""
        yield "'runagentctl ps' lists it, 'runagentctl deploy DIR' adds an agent or another version of one."
        yield "'runagentctl token create --subject NAME --agent AGENT' makes a token."
        yield ""
        yield "Ctrl+C ends it."
        return
    yield f"runagentd {_VERSION} serves {count} agent{'s' if count != 1 else ''} at {announcement.url}"
    for row in announcement.deployed:
        yield ""
        yield f"{escape(row.agent_name)}   id {escape(row.agent)}   policy {escape(row.policy)}"
        yield from _agent_lines(row)
    yield ""
    whom = "these agents" if announcement.named >= count else f"the first {announcement.named} of these agents"
    yield f"token for {whom}, valid for 24 hours:"
    yield f"  {announcement.token}"
    example = _example(announcement.deployed)
    if example is not None:
        yield from _snippets(announcement, *example)
    yield ""
    yield "Ctrl+C ends it."


def problem_lines(row: admin.Deployed) -> Iterator[str]:
    """What is wrong with one folder: ours first, then the agent's own words, marked as such."""
    report = _parse(row.report)
    own = report.get("problems") if isinstance(report.get("problems"), list) else []
    for problem in row.problems if not own else ():
        yield from _problem(problem)
    for entry in own or []:
        if isinstance(entry, dict):
            yield from _agents_own(row, entry)


def _problem(problem: LoadProblem) -> Iterator[str]:
    where = f"{escape(problem.where)}: " if problem.where else ""
    yield f"{where}{escape(problem.what)}"
    for hint in problem.hints:
        yield f"hint: {escape(hint)}"


def _agents_own(row: admin.Deployed, entry: dict[str, Any]) -> Iterator[str]:
    yield f"{escape(row.agent_name)}: {_text(entry.get('where'))}: {_text(entry.get('what'))}"
    traceback = entry.get("traceback")
    if isinstance(traceback, str) and traceback:
        yield "the agent's own traceback:"
        for line in traceback.splitlines():
            yield f"  | {escape(line)}"
    hints = entry.get("hints")
    for hint in hints if isinstance(hints, list) else []:
        # Marked: this comes out of the sandbox, and whoever follows it should know.
        yield f"hint from inside the sandbox: {_text(hint)}"


def _agent_lines(row: admin.Deployed) -> Iterator[str]:
    entrypoints = _entrypoints(row)
    width = max((len(_text(entry.get("tag"))) for entry in entrypoints), default=0)
    for entry in entrypoints:
        streams = "  streams" if entry.get("streams") is True else ""
        yield f"  {_text(entry.get('tag')):{width}}  {_signature(entry)}{streams}"
    for hint in row.hints:
        yield f"  hint: {escape(hint)}"


def _signature(entry: dict[str, Any]) -> str:
    parameters = []
    for parameter in _parameters(entry):
        text = _text(parameter.get("name"))
        text = {"var_positional": "*", "var_keyword": "**"}.get(str(parameter.get("kind")), "") + text
        if parameter.get("type"):
            text += f": {_text(parameter['type'])}"
        if "default" in parameter:
            text += f" = {_default(parameter['default'])}"
        elif parameter.get("required") is False and not text.startswith("*"):
            text += " = …"
        parameters.append(text)
    returns = f" -> {_text(entry['returns'])}" if entry.get("returns") else ""
    return f"({', '.join(parameters)}){returns}"


def _default(told: object) -> str:
    """As Python writes it; what an agent says in place of JSON text is shown as it is."""
    try:
        return escape(repr(json.loads(str(told))))[:200]
    except (ValueError, RecursionError):
        return _text(told)


_SAMPLES = {"str": "hello", "int": 3, "float": 1.5, "bool": True}


def _example(deployed: tuple[admin.Deployed, ...]) -> tuple[str, str, dict[str, object]] | None:
    """An entrypoint whose required arguments can be made up: agent, tag, arguments."""
    for row in deployed:
        for entry in _entrypoints(row):
            required = [parameter for parameter in _parameters(entry) if parameter.get("required") is True]
            if entry.get("streams") is True or any(p.get("type", "") not in ("", *_SAMPLES) for p in required):
                continue
            arguments = {_text(p.get("name")): _SAMPLES.get(str(p.get("type") or "str"), "hello") for p in required}
            return row.agent, _text(entry.get("tag")), arguments
    return None


def _snippets(announcement: Announcement, agent: str, tag: str, arguments: dict[str, object]) -> Iterator[str]:
    path = f"/v1/agents/{quote(agent, safe='')}/entrypoints/{quote(tag, safe='')}:invoke"
    yield ""
    yield "a call with curl:"
    yield from _with_curl(announcement, path, arguments)
    yield ""
    yield "and with Python:"
    # Not indented: it shall work when pasted, and an indented line of Python does not.
    if announcement.certificate_name:
        yield from _with_python_by_name(announcement, path, arguments)
    else:
        yield from _with_python(announcement, path, arguments)


def _with_curl(announcement: Announcement, path: str, arguments: dict[str, object]) -> Iterator[str]:
    url, options = announcement.url, ""
    if announcement.certificate_file:
        options = f" --cacert {shlex.quote(announcement.certificate_file)}"
    if name := announcement.certificate_name:
        # Nobody's resolver needs to know the name, nor lead it to this machine.
        address, port = _place(announcement)
        bracketed = f"[{address}]" if ":" in address else address
        url = f"https://{name}:{port}"
        options += f" --resolve {shlex.quote(f'{name}:{port}:{bracketed}')}"
    body = json.dumps(arguments).replace("'", "\\u0027")
    yield f"curl -sS{options} -X POST '{url}{path}' -H 'Authorization: Bearer {announcement.token}' \\"
    yield f"  -H 'Content-Type: application/json' -d '{body}'"


def _with_python(announcement: Announcement, path: str, arguments: dict[str, object]) -> Iterator[str]:
    yield "import json, urllib.request"
    yield f"request = urllib.request.Request({announcement.url + path!r},"
    yield f"    data=json.dumps({arguments!r}).encode(),"
    yield f"    headers={{'Authorization': 'Bearer {announcement.token}', 'Content-Type': 'application/json'}})"
    if announcement.certificate_file:
        yield from _context(announcement)
        yield "print(json.load(urllib.request.urlopen(request, context=context)))"
    else:
        yield "print(json.load(urllib.request.urlopen(request)))"


def _with_python_by_name(announcement: Announcement, path: str, arguments: dict[str, object]) -> Iterator[str]:
    """As `--resolve` of curl, for which urllib has no word: a connection to the address, verified by the name."""
    name, (address, port) = announcement.certificate_name, _place(announcement)
    yield "import http.client, json, socket"
    yield from _context(announcement)
    yield f"connection = http.client.HTTPSConnection({name!r}, {port})"
    yield f"plain = socket.create_connection(({address!r}, {port}))"
    yield f"connection.sock = context.wrap_socket(plain, server_hostname={name!r})"
    yield f"connection.request('POST', {path!r},"
    yield f"    body=json.dumps({arguments!r}).encode(),"
    yield f"    headers={{'Authorization': 'Bearer {announcement.token}', 'Content-Type': 'application/json'}})"
    yield "print(json.load(connection.getresponse()))"


def _context(announcement: Announcement) -> Iterator[str]:
    yield "import ssl"
    yield f"context = ssl.create_default_context(cafile={announcement.certificate_file!r})"
    # The file holds no root as a rule; curl takes what it is given for one, Python only since 3.13.
    yield "context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN"


def _place(announcement: Announcement) -> tuple[str, int]:
    parts = urlsplit(announcement.url)
    return parts.hostname or "", parts.port or 0


def _entrypoints(row: admin.Deployed) -> list[dict[str, Any]]:
    entries = _parse(row.describe).get("entrypoints")
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _parameters(entry: dict[str, Any]) -> list[dict[str, Any]]:
    told = entry.get("parameters")
    return [parameter for parameter in told if isinstance(parameter, dict)] if isinstance(told, list) else []


# Any: a runner's JSON, whose every value is looked at before it is used.
def _parse(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data) if data else {}
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return escape(value if isinstance(value, str) else json.dumps(value))[:2000]


def _as_json(row: admin.Deployed) -> dict[str, object]:
    report = _parse(row.report)
    return {
        "ok": row.ok,
        "id": row.agent or None,
        "name": row.agent_name or None,
        "policy": row.policy or None,
        "tags": list(row.tags),
        "hints": list(row.hints),
        "problems": [{"where": p.where, "what": p.what, "hints": list(p.hints)} for p in row.problems],
        "report": report.get("problems", []),
        "entrypoints": _entrypoints(row),
        **(
            {
                "number": row.number,
                "version": row.version,
                "before": row.before or None,
                "changed": list(row.changes),
                "unchanged": row.unchanged,
                "wider": list(row.wider),
            }
            if row.number
            else {}
        ),
    }
