"""An editor that reads a text sentence by sentence and reports what a careful reader would mark.

`analyse` and `analyse_stream` share one reader; the stream only tells what it sees while it is reading.
Standard library only.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

LONG_SENTENCE_WORDS = 30
OFTEN = 4
"""A word of five letters or more that comes this often, and is more than 2 % of the text, is reported."""

_SENTENCE = re.compile(r"[^.!?]+(?:[.!?]+|$)")
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_DOUBLED = re.compile(r"\b([^\W\d_]+)\s+\1\b", re.IGNORECASE)
_VOWELS = re.compile(r"[aeiouy]+", re.IGNORECASE)
_CLOSES = {")": "(", "]": "[", "}": "{"}


@dataclass(frozen=True)
class Finding:
    """One thing that an editor would mark, and where."""

    rule: str
    sentence: int
    message: str


@dataclass
class Report:
    """What is known about a text after reading it."""

    sentences: int = 0
    words: int = 0
    words_per_sentence: float = 0.0
    reading_ease: float | None = None
    """Flesch's formula for English: 100 is easy, 0 is hard. None for a text without words."""
    most_used: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


class Reader:
    """Reads one text. Iterate over `read()`, then ask for the `report`."""

    def __init__(self, text: str) -> None:
        self.sentences = [found[0].strip() for found in _SENTENCE.finditer(text) if _WORD.search(found[0])]
        self.report = Report()
        self._seen: Counter[str] = Counter()
        self._syllables = 0

    def read(self) -> Iterator[list[Finding]]:
        """The findings of one sentence after the other; the last item belongs to the text as a whole."""
        for number, sentence in enumerate(self.sentences, start=1):
            found = list(self._read_sentence(number, sentence))
            self.report.findings += found
            yield found
        last = list(self._finish())
        self.report.findings += last
        yield last

    def _read_sentence(self, number: int, sentence: str) -> Iterator[Finding]:
        words = _WORD.findall(sentence)
        self.report.sentences += 1
        self.report.words += len(words)
        self._seen.update(word.lower() for word in words)
        self._syllables += sum(max(len(_VOWELS.findall(word)), 1) for word in words)
        for doubled in _DOUBLED.finditer(sentence):
            yield Finding("doubled word", number, f"“{doubled[0]}”")
        if len(words) > LONG_SENTENCE_WORDS:
            yield Finding("long sentence", number, f"{len(words)} words are hard to follow")
        if (problem := unbalanced(sentence)) is not None:
            yield Finding("brackets", number, problem)

    def _finish(self) -> Iterator[Finding]:
        report = self.report
        report.most_used = {word: count for word, count in self._seen.most_common(50) if len(word) > 4}
        report.most_used = dict(list(report.most_used.items())[:5])
        if report.words:
            report.words_per_sentence = round(report.words / report.sentences, 1)
            length, syllables = report.words / report.sentences, self._syllables / report.words
            report.reading_ease = round(206.835 - 1.015 * length - 84.6 * syllables, 1)
        for word, count in report.most_used.items():
            if count >= OFTEN and count * 50 > report.words:
                yield Finding("often used", 0, f"“{word}” comes {count} times in {report.words} words")


def unbalanced(sentence: str) -> str | None:
    """What is wrong with the brackets of a sentence, or None."""
    opened: list[str] = []
    for character in sentence:
        if character in _CLOSES.values():
            opened.append(character)
        elif character in _CLOSES and (not opened or opened.pop() != _CLOSES[character]):
            return f"“{character}” closes nothing"
    return f"“{opened[-1]}” is never closed" if opened else None


def analyse(text: str) -> Report:
    """Read the whole text and give the report."""
    reader = Reader(text)
    for _ in reader.read():
        pass
    return reader.report


async def analyse_stream(text: str, pause: float = 0.0) -> AsyncIterator[dict[str, Any]]:
    """Read the text and tell about it on the way: findings, progress, and the report as the last event."""
    reader = Reader(text)
    total = len(reader.sentences)
    for done, findings in enumerate(reader.read(), start=1):
        for finding in findings:
            yield {"event": "finding", "finding": finding}
        if done <= total:
            yield {"event": "progress", "done": done, "of": total}
            await asyncio.sleep(min(max(pause, 0.0), 1.0))
    yield {"event": "report", "report": reader.report}
