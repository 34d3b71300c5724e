"""What is observed of a weakened agent: attempts inside, two siblings at once, looks from the host; and of egress.

Runs as: root, in the test process.
Reads from strangers: what our own probes answer, and /proc.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from runagentd import kernel
from runagentd.egress.fetch import DISCOVERY
from runagentd.plan.explain import lines
from runagentd.policy.files import find
from tests.issuer import Issuer
from tests.plan.test_build import GOLDEN, plan_of
from tests.protections import egress as process
from tests.protections.traces import SECRET
from tests.protections.trial import Outcome, Refused, Trial
from tests.protections.weakenings import WEAKENINGS
from tests.system.daemon import ROOT

Check = Callable[[Trial, frozenset[str], str], Outcome]
"""Start what is needed without these protections, under this policy, and observe; Refused where it does not start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Test:
    """A check with the name that the table shows."""

    name: str
    check: Check
    alone: bool = False
    """it starts what it observes, and no agent"""


def attempt(name: str) -> Test:
    """An attempt of the escape suite, or one of `probes`."""

    def check(trial: Trial, drops: frozenset[str], policy: str) -> Outcome:
        with trial.agent(drops, policy) as agent:
            return agent.attempt(name)

    return Test(name=name, check=check)


def siblings(name: str) -> Test:
    """One agent leaves something, another looks for it."""

    def check(trial: Trial, drops: frozenset[str], policy: str) -> Outcome:
        with trial.agent(drops, policy) as one, trial.agent(drops, policy) as other:
            planted = one.ask("plant", name=name)
            looked = other.ask("look", name=name)
            return Outcome(word=looked.word, detail=f"{planted.detail}; {looked.detail}", held=looked.held)

    return Test(name=f"siblings: {name}", check=check)


def two_calls(name: str) -> Test:
    """One call leaves something, the next one of the same agent looks for it."""

    def check(trial: Trial, drops: frozenset[str], policy: str) -> Outcome:
        with trial.agent(drops, policy) as agent:
            left = agent.ask("leave", name=name, said="." * 400 + "".join(SECRET))
            found = agent.ask("find", name=name)
            return Outcome(word=found.word, detail=f"{left.detail}; {found.detail}", held=found.held)

    return Test(name=f"two calls: {name}", check=check)


_IN_THE_MODULE = "find_what_a_call_left_in_the_module"


def _two_callers(trial: Trial, drops: frozenset[str], policy: str) -> Outcome:
    with trial.agent(drops, policy) as agent:
        agent.ask("leave", name=_IN_THE_MODULE, said="", token=trial.daemon.token_of("one"))
        return agent.ask("find", name=_IN_THE_MODULE, token=trial.daemon.token_of("another"))


TWO_CALLERS = Test(name="two callers: what one left in the module, another does not find", check=_two_callers)


def _two_gateways(trial: Trial, drops: frozenset[str], policy: str) -> Outcome:
    """The gateway ends between the two calls."""
    with trial.agent(drops, policy) as agent:
        agent.ask("leave", name=_IN_THE_MODULE, said="", token=trial.daemon.token_of("one"))
        os.kill(trial.daemon.gateway_pid(), signal.SIGKILL)
        end = time.monotonic() + _GATEWAY_SECONDS
        while True:
            try:
                return agent.ask("find", name=_IN_THE_MODULE, token=trial.daemon.token_of("another"))
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)


_GATEWAY_SECONDS = 20.0
TWO_GATEWAYS = Test(name="two callers: nor under the gateway after the one that knew the first", check=_two_gateways)

_ZYGOTE_SECONDS = 10.0


def _zygote(trial: Trial) -> int:
    return next(one.pid for one in trial.daemon.listing().daemons if one.name == "zygote")


def _namespace_of_zygote(trial: Trial, kind: str) -> str:
    """Of a zygote that is there; an earlier launch may just have ended the one before."""
    end = time.monotonic() + _ZYGOTE_SECONDS
    while True:
        try:
            return os.readlink(f"/proc/{_zygote(trial)}/ns/{kind}")
        except FileNotFoundError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)


def own_namespace(kind: str) -> Test:
    """Whether the runner shares a namespace with the zygote that it was forked from (namespaces(7))."""

    def check(trial: Trial, drops: frozenset[str], policy: str) -> Outcome:
        # Before the launch: one that mounts in the zygote's own namespace takes its /proc away, and soon its life.
        zygote = _namespace_of_zygote(trial, kind)
        with trial.agent(drops, policy) as agent:
            runner = os.readlink(f"/proc/{agent.row.pid}/ns/{kind}")
        word = "shared" if zygote == runner else "own"
        return Outcome(word=word, detail=f"{runner}, the zygote's is {zygote}", held=word == "own")

    return Test(name=f"every instance has its own {kind} namespace", check=check)


def _reaper_as_its_runner(field: str) -> Check:
    def check(trial: Trial, drops: frozenset[str], policy: str) -> Outcome:
        with trial.agent(drops, policy) as agent:
            row = agent.row
            found = kernel.status_fields(row.reaper_pid)[field]
            expected = kernel.status_fields(row.pid)[field]
        word = "the runner's" if found == expected else found.split("\t")[0] or "(none)"
        return Outcome(word=word, detail=f"the runner's is {expected or '(none)'}", held=found == expected)

    return check


def reaper(field: str) -> Test:
    """Whether pid 1 is as confined as its runner, by one field of /proc/PID/status."""
    return Test(name=f"{field} of the reaper is its runner's", check=_reaper_as_its_runner(field))


def _reaper_in_the_user_namespace(trial: Trial, drops: frozenset[str], policy: str) -> Outcome:
    with trial.agent(drops, policy) as agent:
        row = agent.row
        one, other = (os.readlink(f"/proc/{pid}/ns/user") for pid in (row.reaper_pid, row.pid))
    return Outcome(word="the runner's" if one == other else "another", detail=f"{one}, {other}", held=one == other)


REAPER_IN_USER_NAMESPACE = Test(
    name="the reaper is in the user namespace of its runner", check=_reaper_in_the_user_namespace
)


def _reaper_descriptors(trial: Trial, drops: frozenset[str], policy: str) -> Outcome:
    with trial.agent(drops, policy) as agent:
        folder = f"/proc/{agent.row.reaper_pid}/fd"
        found = [os.readlink(f"{folder}/{name}").partition(":")[0] for name in sorted(os.listdir(folder), key=int)]
    return Outcome(word=f"{len(found)}", detail=", ".join(found), held=len(found) == 3)


REAPER_DESCRIPTORS = Test(
    name="the reaper holds its lifeline, its exit pipe and its signals alone", check=_reaper_descriptors
)


def _zygote_capabilities(trial: Trial, drops: frozenset[str], policy: str) -> Outcome:
    # SETGID, SETUID, SETPCAP, NET_ADMIN, SYS_ADMIN: capability.h.
    five = "00000000002011c0"
    found = {kernel.status_fields(_zygote(trial))[field] for field in ("CapPrm", "CapEff", "CapBnd")}
    return Outcome(word="five" if found == {five} else "more", detail=str(found), held=found == {five})


def _zygote_descriptors(trial: Trial, drops: frozenset[str], policy: str) -> Outcome:
    folder = f"/proc/{_zygote(trial)}/fd"
    places = [os.readlink(f"{folder}/{number}") for number in os.listdir(folder) if int(number) > 2]
    found = [place for place in places if place.startswith("/")]
    return Outcome(word="files" if found else "none", detail=", ".join(found), held=not found)


def _zygote_jail(trial: Trial, drops: frozenset[str], policy: str) -> Outcome:
    with open(f"/proc/{_zygote(trial)}/mountinfo") as file:
        mounts = {line.split()[4]: line.split()[5].split(",") for line in file}
    writable = {point for point, options in mounts.items() if "ro" not in options} - {"/proc"}
    writable -= {"/dev/null", "/dev/urandom"}
    return Outcome(word="writable" if writable else "read-only", detail=", ".join(writable), held=not writable)


ZYGOTE_CAPABILITIES = Test(name="the zygote has five capabilities", check=_zygote_capabilities)
ZYGOTE_DESCRIPTORS = Test(name="the zygote holds no file of the host's", check=_zygote_descriptors)
ZYGOTE_JAIL = Test(name="the zygote can write to no mount but /proc", check=_zygote_jail)

_MOUNT = """
import os, sys
sys.path.insert(0, sys.argv[1])
from runagentd import kernel
kernel.setns(os.open(f"/proc/{sys.argv[2]}/ns/mnt", os.O_RDONLY), kernel.CLONE_NEWNS)
kernel.mount("late", sys.argv[3], "tmpfs", 0, "size=64k,mode=0755")
with open(sys.argv[3] + "/file", "w") as file:
    file.write("came later")
"""


def _late_mount(trial: Trial, drops: frozenset[str], policy: str) -> Outcome:
    """The host mounts something below the bait while the agent runs; then the agent looks."""
    foreman, late = str(trial.daemon.process.pid), str(trial.place.bait / "late")
    with trial.agent(drops, policy) as agent:
        subprocess.run([sys.executable, "-I", "-c", _MOUNT, str(ROOT), foreman, late], check=True, timeout=20)
        return agent.attempt("see_a_mount_that_came_later")


LATE_MOUNT = Test(name="see_a_mount_that_came_later", check=_late_mount)


def _code_before_the_look(trial: Trial, drops: frozenset[str], policy: str) -> Outcome:
    """The look takes its time and notes whether the process already calls itself what a probe does."""
    try:
        with trial.agent(drops | {"bait: slow look"}, policy):
            raise AssertionError("a look that finds something must refuse the launch")
    except Refused as refused:
        text = str(refused)
    held = "code of the agent did not run before the look" in text
    return Outcome(word="did not run" if held else "ran", detail=text, held=held)


CODE_BEFORE_THE_LOOK = Test(
    name="no code of the agent's runs before the look from outside", check=_code_before_the_look
)


def _same_random_numbers(trial: Trial, drops: frozenset[str], policy: str) -> Outcome:
    with trial.agent(drops, policy) as one, trial.agent(drops, policy) as other:
        drawn = [trial.call(agent.id, "draw", {})[1] for agent in (one, other)]
    same = sorted(key for key in drawn[0] if drawn[0][key] == drawn[1].get(key))
    return Outcome(word="the same" if same else "different", detail=f"{', '.join(same) or 'none'} equal", held=not same)


SAME_RANDOM_NUMBERS = Test(name="two agents never draw the same random numbers", check=_same_random_numbers)


def _same_seeds(trial: Trial, drops: frozenset[str], policy: str) -> Outcome:
    with trial.agent(drops, policy) as one, trial.agent(drops, policy) as other:
        drawn = [trial.call(agent.id, "seeds", {})[1] for agent in (one, other)]
    same = sorted(key for key in drawn[0] if drawn[0][key] == drawn[1].get(key))
    return Outcome(word="the same" if same else "different", detail=f"{', '.join(same) or 'none'} equal", held=not same)


SAME_SEEDS = Test(name="two fresh interpreters have neither hash seed nor layout in common", check=_same_seeds)


def _wider_version(trial: Trial, drops: frozenset[str], policy: str) -> Outcome:
    """An operator deploys another version with a policy that grants more, and does not say that this is meant."""
    with trial.agent(drops, policy) as agent:
        reply = trial.deploy_again(agent, "bait")
    words = "; ".join(problem.what for problem in reply.problems)
    return Outcome(word="open" if reply.ok else "refused", detail=words, held="is wider than that of v" in words)


WIDER_VERSION = Test(name="a version with a wider policy is deployed without a word", check=_wider_version)


def limit(name: str, number: int) -> Test:
    """An attempt that only an rlimit stops; where no limit could be inherited at all, the golden plan of base."""
    inside = attempt(name)

    def check(trial: Trial, drops: frozenset[str], policy: str) -> Outcome:
        if resource.prlimit(trial.daemon.process.pid, number)[1] != 0:
            return inside.check(trial, drops, policy)
        return _golden(drops)

    return Test(name=f"{name}, or the golden plan where the host's own limit is 0", check=check)


def _golden(drops: frozenset[str]) -> Outcome:
    """Whether the limits of a plan without `drops` are still those of tests/plans/base.txt."""
    plan = plan_of(find("base"))
    for drop in drops:
        plan = dataclasses.replace(plan, steps=WEAKENINGS[drop].steps(plan.steps))
    reviewed = [line.split()[1:] for line in (GOLDEN / "base.txt").read_text().splitlines() if " rlimit " in line]
    found = [line.split()[1:] for line in lines((), (), plan) if " rlimit " in line]
    missing = [" ".join(words) for words in reviewed if words not in found]
    return Outcome(word="as reviewed" if not missing else "a visible diff", detail="; ".join(missing), held=not missing)


_EGRESS_UIDS = itertools.cycle(range(1879179263 - 64, 1879179263 - 32))
"""One for each process, for RLIMIT_NPROC counts all of a uid's; the foreman's own are higher."""
_EGRESS_SECONDS = 60.0


def egress(name: str, refusal: str, *, host: str = "127.0.0.1") -> Test:
    """One attempt of `tests.protections.egress`, which must be answered with `refusal`.

    `host` is where our issuer's discovery document says that its keys are.
    """

    def check(trial: Trial, drops: frozenset[str], policy: str) -> Outcome:
        with tempfile.TemporaryDirectory(prefix="runagentd-egress-", dir="/var/tmp") as place:
            folder = Path(place)
            folder.chmod(0o755)
            (folder / "file").touch(mode=0o600)
            issuer = Issuer(folder / "issuer")
            listening = socket.socket(socket.AF_UNIX)
            try:
                listening.bind(str(folder / "socket"))
                (folder / "socket").chmod(0o777)
                listening.listen()
                document = {"issuer": issuer.url, "jwks_uri": f"https://{host}:{issuer.port}/keys"}
                issuer.answers[f"/realm{DISCOVERY}"] = (200, {}, json.dumps(document).encode())
                return _tried(name, drops, issuer, folder, refusal)
            finally:
                listening.close()
                issuer.close()

    return Test(name=f"egress: {name}", check=check, alone=True)


def _tried(name: str, drops: frozenset[str], issuer: Issuer, folder: Path, refusal: str) -> Outcome:
    uid = str(next(_EGRESS_UIDS))
    files = [str(path) for path in (issuer.ca, folder / "file", folder / "socket")]
    command = [sys.executable, "-m", "tests.protections.egress", uid, uid, issuer.url, *files, name, *sorted(drops)]
    return _said(command, refusal, "by the egress process itself")


def worker(name: str, refusal: str) -> Test:
    """One attempt of `tests.protections.worker`, which must be answered with `refusal`."""

    def check(trial: Trial, drops: frozenset[str], policy: str) -> Outcome:
        uid = str(next(_EGRESS_UIDS))
        command = [sys.executable, "-m", "tests.protections.worker", uid, uid, name, *sorted(drops)]
        return _said(command, refusal, "by the worker itself")

    return Test(name=f"worker: {name}", check=check, alone=True)


def _said(command: Sequence[str], refusal: str, refused: str) -> Outcome:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=_EGRESS_SECONDS, check=False)
    if done.returncode == process.NOT_STARTED:
        raise Refused(refused)
    word = done.stdout.strip() or "broken"
    return Outcome(word=word, detail=done.stderr[-300:], held=word == refusal)
