"""JSON and YAML as a plain tree, under limits: no alias, no duplicate key, no tag that builds an object.

Runs as: the loader, confined.
Reads from strangers: all of it. Any bytes give a tree or a `TreeError`, and never another exception.
Numbers stay as they were written (`Number`): a version 1.10 is not 1.1, and a number of a million digits costs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NoReturn, TypeAlias

import yaml

DEPTH_MAX = 32
NODES_MAX = 20_000


class Number(str):
    """A number, a date, or another scalar that is not text: the text that it was written as."""

    __slots__ = ()


Tree: TypeAlias = "dict[str, Tree] | list[Tree] | str | bool | None"


class TreeError(ValueError):
    """The text is not a tree; the message says where and what."""

    def __init__(self, message: str, *hints: str) -> None:
        super().__init__(message)
        self.hints = hints


def parse_json(content: bytes) -> Tree:
    """One JSON value (RFC 8259)."""
    text = _text(content)
    try:
        tree: Tree = json.loads(
            text, object_pairs_hook=_unique, parse_int=Number, parse_float=Number, parse_constant=Number
        )
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise TreeError(f"{place}: {_json_reason(error)}", *_json_hints(error)) from error
    except RecursionError as error:
        raise TreeError(f"values lie in each other more than {DEPTH_MAX} deep") from error
    _check_size(tree)
    return tree


def parse_yaml(content: bytes) -> Tree:
    """One YAML document of text, numbers, truth values, null, lists and mappings with text keys."""
    text = _text(content)
    try:
        node = _Composer(text).single()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise TreeError(f"{place}{error.problem or error.context or 'is not YAML'}") from error
    except yaml.YAMLError as error:
        raise TreeError(f"is not YAML: {str(error).splitlines()[0]:.200}") from error
    except RecursionError as error:
        raise TreeError(f"values lie in each other more than {DEPTH_MAX} deep") from error
    return None if node is None else _value(node)


def _text(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TreeError(f"byte {error.start} is not UTF-8", "save the file as UTF-8") from error


def _unique(pairs: Iterable[tuple[str, Tree]]) -> dict[str, Tree]:
    made: dict[str, Tree] = {}
    for key, value in pairs:
        if key in made:
            raise TreeError(f"the key {key!r:.80} stands twice in one object", "remove one of them")
        made[key] = value
    return made


def _check_size(tree: Tree) -> None:
    """Breadth first, so that no depth can exhaust our own stack."""
    nodes, level = 0, [tree]
    for _ in range(DEPTH_MAX):
        nodes += len(level)
        if nodes > NODES_MAX:
            raise TreeError(f"has more than {NODES_MAX:,} values")
        below: list[Tree] = []
        for node in level:
            if isinstance(node, dict):
                below.extend(node.values())
            elif isinstance(node, list):
                below.extend(node)
        if not below:
            return
        level = below
    raise TreeError(f"values lie in each other more than {DEPTH_MAX} deep")


def _json_reason(error: json.JSONDecodeError) -> str:
    """The decoder's reason in a person's words."""
    line = error.doc[error.pos : error.pos + 1]
    if error.msg == "Expecting value":
        return f"a value is expected, not {line!r}" if line else "a value is expected, but the file ends"
    reason = error.msg[:1].lower() + error.msg[1:]
    return f"{reason} (found {line!r})" if line else f"{reason} (the file ends)"


def _json_hints(error: json.JSONDecodeError) -> tuple[str, ...]:
    after = error.doc[error.pos : error.pos + 2]
    before = error.doc[: error.pos].rstrip()[-1:]
    if after[:1] in "}]" and before == "," and after:
        return ("remove the comma before it: JSON has none after the last item",)
    if after[:1] == "'":
        return ("JSON has double quotes only",)
    if after[:1] == "#" or after == "//" or after == "/*":
        return ("JSON has no comments; a runagent.config.yaml may have them",)
    if after[:1] in ("T", "F", "N"):
        return ("in JSON it is true, false and null",)
    return ()


class _Composer(yaml.SafeLoader):
    """PyYAML's parser up to the node tree; none of its constructors, which build objects, ever runs."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._nodes = 0
        self._depth = 0

    def single(self) -> yaml.Node | None:
        try:
            node: yaml.Node | None = self.get_single_node()
            return node
        finally:
            self.dispose()

    # Any, and the ignored code: types-pyyaml leaves the parser's and the composer's methods untyped.
    def compose_node(self, parent: Any, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            # Nine levels of nine aliases are a billion values.
            _refuse("an alias (*name) is not supported here; write the value out", event)
        self._nodes += 1
        self._depth += 1
        if self._nodes > NODES_MAX:
            _refuse(f"has more than {NODES_MAX:,} values", event)
        if self._depth > DEPTH_MAX:
            _refuse(f"values lie in each other more than {DEPTH_MAX} deep", event)
        try:
            node: yaml.Node | None = super().compose_node(parent, index)
            return node
        finally:
            self._depth -= 1


def _refuse(message: str, at: Any) -> NoReturn:
    raise yaml.MarkedYAMLError(problem=message, problem_mark=at.start_mark)


_TRUE = frozenset({"yes", "true", "on"})


def _value(node: yaml.Node) -> Tree:
    kind = node.tag.removeprefix("tag:yaml.org,2002:")
    if isinstance(node, yaml.MappingNode) and kind == "map":
        return _unique((_key(key), _value(value)) for key, value in node.value)
    if isinstance(node, yaml.SequenceNode) and kind == "seq":
        return [_value(item) for item in node.value]
    if isinstance(node, yaml.ScalarNode):
        text: str = node.value
        if kind == "str":
            return text
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() in _TRUE
        if kind in ("int", "float", "timestamp"):
            return Number(text)
    mark = node.start_mark
    raise TreeError(f"line {mark.line + 1}, column {mark.column + 1}: the tag {node.tag!r:.80} is not supported")


def _key(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        text: str = node.value
        return text
    mark = node.start_mark
    raise TreeError(f"line {mark.line + 1}, column {mark.column + 1}: a key must be text")
