"""What a principal may do: scopes that allow, scopes that deny, and deny wins.

Runs as: the gateway. Pure.
Reads from strangers: scopes of signed tokens; what is not a scope of ours is passed over and allows nothing.

    agents:invoke:AGENT/TAG    call; AGENT is an id or a unique name, percent-encoded (RFC 3986, section 2.1)
    agents:read                see every agent, without calling it
    role:NAME                  all that the role allows and denies (runagentd.toml, [roles.NAME])

A `*` may stand at the end of AGENT and of TAG, and nowhere else.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

PLAIN_SCOPES = frozenset({"agents:read", "agents:deploy", "policies:write", "keys:admin", "audit:read", "metrics:read"})
_REMEMBERED_MAX = 256
_INVOKE = re.compile(r"agents:invoke:([^/ *]*\*?)/([^/ *]*\*?)")
_ROLE = re.compile(r"role:([A-Za-z0-9_.-]{1,64})")


@dataclass(frozen=True, slots=True)
class Pattern:
    """A text, or with `prefix` every text that begins with it."""

    text: str
    prefix: bool

    def matches(self, text: str) -> bool:
        return text.startswith(self.text) if self.prefix else text == self.text

    @property
    def everything(self) -> bool:
        return self.prefix and not self.text


@dataclass(frozen=True, slots=True)
class Invoke:
    """One `agents:invoke:AGENT/TAG`."""

    agent: Pattern
    tag: Pattern


@dataclass(frozen=True, slots=True)
class Role:
    """A named set of scopes."""

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Grants:
    """Everything that one principal may do. `names` below are an agent's id, and its name where only it has that."""

    invoke: tuple[Invoke, ...] = ()
    deny: tuple[Invoke, ...] = ()
    plain: frozenset[str] = frozenset()
    _found: set[tuple[tuple[str, ...], str | None]] = field(default_factory=set, compare=False, repr=False)
    """what was allowed before: a caller asks the same again and again, and each answer costs two microseconds.

    A refusal is never remembered, or its time would say whether somebody has asked for all that there is in between.
    """

    def sees(self, names: tuple[str, ...]) -> bool:
        """Whether at least one entrypoint of the agent may be callable: else there is no such agent for them."""
        return (names, None) in self._found or self._remember((names, None), self._sees(names))

    def may_invoke(self, names: tuple[str, ...], tag: str) -> bool:
        """Whether this entrypoint may be called."""
        return (names, tag) in self._found or self._remember((names, tag), self._may_invoke(names, tag))

    def _remember(self, question: tuple[tuple[str, ...], str | None], answer: bool) -> bool:
        if answer:
            if len(self._found) >= _REMEMBERED_MAX:
                self._found.clear()
            self._found.add(question)
        return answer

    def _sees(self, names: tuple[str, ...]) -> bool:
        if any(rule.tag.everything and _any(rule.agent, names) for rule in self.deny):
            return False
        return any(_any(rule.agent, names) for rule in self.invoke)

    def _may_invoke(self, names: tuple[str, ...], tag: str) -> bool:
        if any(rule.tag.matches(tag) and _any(rule.agent, names) for rule in self.deny):
            return False
        return any(rule.tag.matches(tag) and _any(rule.agent, names) for rule in self.invoke)

    def has(self, scope: str) -> bool:
        """Whether a scope that names no agent is granted."""
        return scope in self.plain


def grants(scopes: Iterable[str], roles: Mapping[str, Role]) -> Grants:
    """What these scopes allow, roles taken apart; an unknown role or scope allows nothing.

    A role's denials hold against everything the principal has, wherever that came from.
    """
    allow: list[str] = []
    deny: list[str] = []
    for scope in scopes:
        role = _ROLE.fullmatch(scope)
        if role is None:
            allow.append(scope)
        elif role[1] in roles:
            allow += roles[role[1]].allow
            deny += roles[role[1]].deny
    denied = frozenset(deny)
    return Grants(
        invoke=tuple(invoke for scope in allow if (invoke := parse_invoke(scope)) is not None),
        deny=tuple(invoke for scope in deny if (invoke := parse_invoke(scope)) is not None),
        plain=frozenset(scope for scope in allow if scope in PLAIN_SCOPES) - denied,
    )


def parse_invoke(scope: str) -> Invoke | None:
    """The two patterns of an `agents:invoke:AGENT/TAG`; None for anything else."""
    match = _INVOKE.fullmatch(scope)
    if match is None or not match[1] or not match[2]:
        return None
    return Invoke(_pattern(match[1]), _pattern(match[2]))


def _pattern(text: str) -> Pattern:
    # The star is told from one in a name before unquoting: there it is %2A.
    prefix = text.endswith("*")
    return Pattern(urllib.parse.unquote(text.removesuffix("*") if prefix else text), prefix)


def _any(pattern: Pattern, names: tuple[str, ...]) -> bool:
    return any(pattern.matches(name) for name in names)
