"""What the agent says: the first rule that fits a message answers it.

A rule is a pattern and a function of the match and of all that was said before. Nothing here is clever, and
the agent says so when asked; what it knows, it knows because it was told.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from memory import Line

Past = Sequence[Line]
Answer = Callable[["re.Match[str]", Past], "str | None"]

_NAME = re.compile(r"\bmy name is ([\w'-]+)|\bcall me ([\w'-]+)", re.IGNORECASE)
_FACT = re.compile(r"\bremember(?: that)? (.+)", re.IGNORECASE)
_WORD = re.compile(r"[a-z0-9']+")
_COMMON = frozenset(
    _WORD.findall(
        "a about an and are at be by do does for from has have i in is it know me my of on or "
        "that the this to was what when where which who why will with you your"
    )
)
_REFLECTED = {
    "i": "you", "me": "you", "my": "your", "mine": "yours", "myself": "yourself", "am": "are", "i'm": "you are",
    "you": "I", "your": "my", "yours": "mine", "yourself": "myself",
}  # fmt: skip


def reply_to(message: str, past: Past) -> str:
    """The answer to `message`, given what was said before."""
    text = " ".join(message.split())
    if not text:
        return "You said nothing, so I will wait."
    for pattern, answer in _RULES:
        found = pattern.search(text)
        if found and (said := answer(found, past)) is not None:
            return said
    return _from_memory(text, past) or f"I have no rule for that. Why do you say: “{reflect(_plain(text))}”?"


def known_name(past: Past) -> str | None:
    """The name that the user gave last."""
    for line in reversed(past):
        if line.speaker == "user" and (found := _NAME.search(line.text)):
            return found[1] or found[2]
    return None


def known_facts(past: Past) -> Iterator[str]:
    """Everything that the user asked us to remember, newest first."""
    for line in reversed(past):
        if line.speaker == "user" and (found := _FACT.search(line.text)):
            yield _plain(found[1])


def reflect(text: str) -> str:
    """Turn a statement around: "I am tired" becomes "you are tired"."""
    return " ".join(_REFLECTED.get(word.lower(), word) for word in text.split())


def _plain(text: str) -> str:
    return text.strip(" .!?")


def _topic_words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower())) - _COMMON


def _from_memory(text: str, past: Past) -> str | None:
    """The fact that shares the most words with `text`; the newest of equals."""
    wanted = _topic_words(text)
    best = max(known_facts(past), key=lambda fact: len(wanted & _topic_words(fact)), default=None)
    if best is None or not wanted & _topic_words(best):
        return None
    return f"You told me: {reflect(best)}."


def _greet(_: re.Match[str], past: Past) -> str:
    name = known_name(past)
    return f"Hello again, {name}." if name else "Hello. What is your name?"


def _learn_name(found: re.Match[str], past: Past) -> str:
    name = found[1] or found[2]
    return f"I know, {name}." if known_name(past) == name else f"Pleased to meet you, {name}."


def _tell_name(_: re.Match[str], past: Past) -> str:
    name = known_name(past)
    return f"You are {name}; you told me." if name else "You have not told me your name yet."


def _learn_fact(found: re.Match[str], _: Past) -> str:
    return f"I will remember that {reflect(_plain(found[1]))}."


def _tell_topic(found: re.Match[str], past: Past) -> str:
    return _from_memory(found[1], past) or f"You have told me nothing about {_plain(found[1])}."


def _count(_: re.Match[str], past: Past) -> str:
    mine = sum(line.speaker == "user" for line in past)
    return f"Before this one you sent me {mine} message{'' if mine == 1 else 's'}."


def _confess(_: re.Match[str], __: Past) -> str:
    return "A hundred lines of rules and one SQLite file. There is no language model in here."


def _feel(found: re.Match[str], _: Past) -> str:
    return f"How long have you felt {_plain(found[1])}?"


def _thank(_: re.Match[str], __: Past) -> str:
    return "You are welcome."


_RULES: tuple[tuple[re.Pattern[str], Answer], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), answer)
    for pattern, answer in (
        (_NAME.pattern, _learn_name),
        (r"\bwho am i\b|\bwhat(?:'s| is) my name\b", _tell_name),
        (r"\bwhat do you (?:know|remember) about (.+)", _tell_topic),
        (_FACT.pattern, _learn_fact),
        (r"\bhow many messages\b", _count),
        (r"\b(?:who|what) are you\b|\bare you (?:a|an) (?:model|ai|llm|human|bot)\b", _confess),
        (r"\bi feel (.+)", _feel),
        (r"\b(?:thanks|thank you)\b", _thank),
        (r"^(?:hello|hi|hey|good (?:morning|evening))\b", _greet),
    )
)
