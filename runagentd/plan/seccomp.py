"""What a policy decides about system calls, as a filter value that libseccomp can compile and a person can read.

Runs as: the supervisor and runagentctl. Pure.
Reads from strangers: nothing.
A filter refuses by default and has rules that allow; a refusing rule never looks at arguments. So an argument
that a rule misreads is refused, whichever half of it is set (CVE-2019-7303, CVE-2019-10063).
"""

from __future__ import annotations

import enum
import errno
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from runagentd.errors import ConfigurationError, Problem
from runagentd.plan.syscalls import UPPER_HALF, Condition, Entry, Newest, SyscallTable
from runagentd.policy.model import Policy


class Verdict(enum.Enum):
    """What the kernel does with a call (seccomp(2)), from the mildest to the hardest."""

    ALLOW = "allow"
    LOG = "log"
    NOTIFY = "notify"
    """ask a supervising process through a descriptor: known to the compiler, not used by any policy yet"""
    ERRNO = "errno"
    TRAP = "trap"
    KILL_PROCESS = "kill-process"


@dataclass(frozen=True, slots=True)
class Action:
    verdict: Verdict
    errno: int = 0

    def describe(self) -> str:
        if self.verdict is Verdict.ERRNO:
            return errno.errorcode[self.errno]
        return str(self.verdict.value)


ALLOW = Action(Verdict.ALLOW)
LOG = Action(Verdict.LOG)
NOTIFY = Action(Verdict.NOTIFY)
TRAP = Action(Verdict.TRAP)
KILL_PROCESS = Action(Verdict.KILL_PROCESS)


def refuse(number: int) -> Action:
    """The call does not happen and answers this errno."""
    return Action(Verdict.ERRNO, number)


_LETTING_IN = frozenset({Verdict.ALLOW, Verdict.LOG, Verdict.NOTIFY})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One call and what happens to it where all conditions hold; several rules for one call are alternatives."""

    call: str
    action: Action
    conditions: tuple[Condition, ...] = ()
    number: int | None = None
    """for names that an older libseccomp does not know; from 424 on the same everywhere"""
    optional: bool = False
    words: str = ""
    origin: str = "always"
    group: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Absence:
    """A call that the table knows and the policy did not grant: only for people to read."""

    call: str
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SyscallFilter:
    """A whole filter. Numbers above `newest` answer ENOSYS, calls of another ABI kill the process: always."""

    default: Action
    newest: Newest
    rules: tuple[Rule, ...]
    absences: tuple[Absence, ...] = ()

    def describe(self) -> list[str]:
        """The filter in words, one line a decision."""
        lines = [
            f"every call that is not named below: {self.default.describe()}",
            f"calls above {self.newest.number} ({self.newest.name}, Linux {self.newest.kernel}): ENOSYS",
            "calls of another ABI (i386, x32, 32-bit ARM): kill-process",
        ]
        plain = [rule for rule in self.rules if rule.action == ALLOW and not rule.conditions]
        for (group, origin), members in itertools.groupby(plain, key=lambda rule: (rule.group, rule.origin)):
            lines.append(f"{group}: {' '.join(sorted(rule.call for rule in members))} ({origin})")
        for call, rules in _by_call(rule for rule in self.rules if rule.action == ALLOW and rule.conditions).items():
            lines.append(f"{call}: only {_either([rule.words for rule in rules])} ({_origins(rules)})")
        for rule in self.rules:
            if rule.action != ALLOW:
                lines.append(f"{rule.call}: {rule.action.describe()} ({rule.origin})")
        lines.extend(f"{absence.call}: {self.default.describe()} ({absence.origin})" for absence in self.absences)
        return lines


def filter_for(policy: Policy, table: SyscallTable) -> SyscallFilter:
    """The filter of one policy; raises ConfigurationError for a group that the table does not have."""
    _refuse_unknown_groups(policy, table)
    rules: list[Rule] = []
    absences: list[Absence] = []
    for group in table.groups:
        if not group.always and group.name not in policy.syscalls.groups:
            continue
        origin = "always" if group.always else "syscalls.groups"
        for entry in group.entries:
            if entry.needs is not None and not _NEEDS[entry.needs](policy):
                absences.append(Absence(call=entry.name, origin=f"{entry.needs} = false"))
                continue
            rules.extend(_rules(entry, entry.needs or entry.key or origin))
    return _checked(
        SyscallFilter(default=refuse(errno.EPERM), newest=table.newest, rules=tuple(rules), absences=tuple(absences))
    )


def reaper_filter(table: SyscallTable) -> SyscallFilter:
    """The filter of pid 1 of every instance, whatever its policy: anything unexpected ends the instance."""
    rules = [rule for entry in table.reaper for rule in _rules(entry, "always")]
    return _checked(SyscallFilter(default=KILL_PROCESS, newest=table.newest, rules=tuple(rules)))


def builder_filter(table: SyscallTable) -> SyscallFilter:
    """The filter of what installs packages: the groups that every agent has, with programs, and its own entries.

    Landlock is in it: an installer that may run no other program is told so by a process that is confined already.
    """
    own = {entry.name: entry for entry in table.builder}
    entries = [entry for group in table.groups if group.always or group.name == "landlock" for entry in group.entries]
    rules = [rule for entry in entries for rule in _rules(own.get(entry.name, entry), "always")]
    return _checked(SyscallFilter(default=refuse(errno.EPERM), newest=table.newest, rules=tuple(rules)))


def lint(filter: SyscallFilter) -> list[str]:
    """What is wrong with a filter, in words; empty for a sound one.

    Each complaint is a way in which filters of other projects let through what they meant to refuse.
    """
    complaints = []
    if filter.default.verdict is Verdict.ALLOW:
        complaints.append("the default action allows what nobody looked at")
    unconditional = {rule.call for rule in filter.rules if not rule.conditions}
    for rule in filter.rules:
        if rule.action == filter.default:
            # libseccomp refuses such a rule, runc skips it silently: a deny rule vanishes (moby#52494's history).
            complaints.append(f"{rule.call}: its action is the default one, so the rule says nothing")
        if rule.conditions and rule.action.verdict not in _LETTING_IN:
            complaints.append(f"{rule.call}: a refusing rule looks at arguments, and lets through what it misreads")
        if rule.conditions and rule.call in unconditional:
            complaints.append(f"{rule.call}: a rule without conditions makes those of another one void")
        for condition in rule.conditions:
            complaints.extend(f"{rule.call}: {complaint}" for complaint in _condition_complaints(condition))
    for call, rules in _by_call(filter.rules).items():
        if len({rule.action for rule in rules}) > 1:
            complaints.append(f"{call}: two rules with different actions")
    return complaints


def _condition_complaints(condition: Condition) -> Iterable[str]:
    if not 0 <= condition.argument <= 5:
        yield f"there is no argument {condition.argument}"
    if condition.mask & UPPER_HALF != UPPER_HALF:
        yield f"argument {condition.argument} is compared without its upper half"
    if condition.value & ~condition.mask:
        yield f"argument {condition.argument} can never equal a value outside its mask"


# The boolean policy keys that an entry of the table may need.
_NEEDS: Mapping[str, Callable[[Policy], bool]] = {"process.exec": lambda policy: policy.process.exec}


def _refuse_unknown_groups(policy: Policy, table: SyscallTable) -> None:
    known = {group.name: group for group in table.groups}
    problems = []
    for index, name in enumerate(policy.syscalls.groups):
        where = f"policy {policy.name}: syscalls.groups[{index}]"
        if name not in known:
            hint = f"write one of: {', '.join(sorted(table.selectable()))}"
            problems.append(Problem(where, f'"{name}" is not a group of system calls', (hint,)))
        elif known[name].always:
            problems.append(Problem(where, f'"{name}" is in every filter already', ("leave it out",)))
    for entry in (entry for group in table.groups for entry in group.entries):
        if entry.needs is not None and entry.needs not in _NEEDS:
            problems.append(
                Problem(f"syscalls.toml: {entry.group}.{entry.name}", f'"{entry.needs}" is not a boolean key')
            )
    if problems:
        raise ConfigurationError(*problems)


def _rules(entry: Entry, origin: str) -> list[Rule]:
    action = ALLOW if entry.errno is None else refuse(entry.errno)
    alternatives: Sequence[tuple[str, tuple[Condition, ...]]] = [("", ())]
    if entry.alternatives:
        alternatives = [(alternative.words, alternative.when) for alternative in entry.alternatives]
    return [
        Rule(
            call=entry.name, action=action, conditions=conditions, number=entry.number, optional=entry.optional,
            words=words, origin=origin, group=entry.group,
        )
        for words, conditions in alternatives
    ]  # fmt: skip


def _checked(filter: SyscallFilter) -> SyscallFilter:
    complaints = lint(filter)
    if complaints:
        raise ConfigurationError(*(Problem("syscalls.toml", complaint) for complaint in complaints))
    return filter


def _by_call(rules: Iterable[Rule]) -> dict[str, list[Rule]]:
    found: dict[str, list[Rule]] = {}
    for rule in rules:
        found.setdefault(rule.call, []).append(rule)
    return found


def _either(words: Sequence[str]) -> str:
    if len(words) == 1:
        return words[0]
    return f"{', '.join(words[:-1])} or {words[-1]}"


def _origins(rules: Sequence[Rule]) -> str:
    return ", ".join(dict.fromkeys(rule.origin for rule in rules))
