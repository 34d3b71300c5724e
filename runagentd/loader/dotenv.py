"""The file `.env`: lines of KEY=VALUE, as people write them. Nothing is substituted and nothing is executed.

Runs as: the loader, confined.
Reads from strangers: all of it. Any bytes give variables, problems and hints, and never an exception.
Values are secrets, as a rule: no message repeats one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$"}
_SUBSTITUTION = re.compile(r"\$\{[^}]*\}|\$\(")


@dataclass(slots=True)
class DotEnv:
    """What a `.env` holds. Problems and hints are (line, text)."""

    variables: dict[str, str] = field(default_factory=dict)
    problems: list[tuple[int, str]] = field(default_factory=list)
    hints: list[tuple[int, str]] = field(default_factory=list)


def parse(content: bytes) -> DotEnv:
    """The variables of a `.env`. A later line wins over an earlier one of the same name."""
    found = DotEnv()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        found.problems.append((content[: error.start].count(b"\n") + 1, "is not UTF-8"))
        return found
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    position, line = 0, 1
    while position < len(text):
        end = text.find("\n", position)
        end = len(text) if end < 0 else end
        consumed = _assignment(text, position, end, line, found)
        line += text.count("\n", position, consumed) + 1
        position = consumed + 1
    return found


def _assignment(text: str, start: int, end: int, line: int, found: DotEnv) -> int:
    """Read what begins at `start`; gives where it ends, which is after `end` for a value in quotes of several lines."""
    content = text[start:end].strip()
    if not content or content.startswith("#"):
        return end
    name, equals, rest = text[start:end].partition("=")
    name = name.strip()
    if name.startswith(("export ", "export\t")):
        name = name[len("export") :].strip()
    if not equals:
        found.problems.append((line, "has no '=': write NAME=value"))
        return end
    if not NAME.fullmatch(name):
        found.problems.append((line, f"{name!r:.80} is not a name: use letters, digits and '_', and no digit first"))
        return end
    value_start = end - len(rest) + (len(rest) - len(rest.lstrip(" \t")))
    quote = text[value_start : value_start + 1]
    value: str | None
    if quote in ("'", '"') and value_start < end:
        value, end = _quoted(text, value_start, quote)
        if value is None:
            found.problems.append((line, f"the value of {name} has no closing {quote}"))
            return end
        tail = text[end : _line_end(text, end)].strip()
        if tail and not tail.startswith("#"):
            found.problems.append((line, f"something follows the closing {quote} of {name}"))
        end = _line_end(text, end)
    else:
        value = re.split(r"(?:^|\s)#", rest, maxsplit=1)[0].strip()
    if "\0" in value:
        found.problems.append((line, f"the value of {name} holds a NUL"))
        return end
    if quote != "'" and _SUBSTITUTION.search(value):
        found.hints.append((line, f"the value of {name} is taken literally: nothing is substituted for ${{…}} or $(…)"))
    if name in found.variables:
        found.hints.append((line, f"{name} stands twice: the last one wins"))
    found.variables[name] = value
    return end


def _quoted(text: str, start: int, quote: str) -> tuple[str | None, int]:
    """The value in quotes that begins at `start`, and the position after it; None where the quote is never closed."""
    pieces: list[str] = []
    position = start + 1
    while position < len(text):
        character = text[position]
        if character == quote:
            return "".join(pieces), position + 1
        if character == "\\" and quote == '"' and text[position + 1 : position + 2] in _ESCAPES:
            pieces.append(_ESCAPES[text[position + 1]])
            position += 2
            continue
        pieces.append(character)
        position += 1
    # Only this line is lost, not all that follows it.
    return None, _line_end(text, start)


def _line_end(text: str, position: int) -> int:
    end = text.find("\n", position)
    return len(text) if end < 0 else end
