"""The runner's two reports about itself, as frames: DESCRIBE for an agent that can serve, FAILED for one that cannot.

Runs as: the runner, in the sandbox. Pure.
Reads from strangers: names, docstrings and errors of the agent's; each report stays below its limit whatever they are.
"""

from __future__ import annotations

import json
from typing import Any

from runagentd.runner.entrypoints import ImportProblem, Loaded, Target
from runagentd.wire.channel import DESCRIBE_BYTES_MAX, PROTOCOL_VERSION, Frame, pack

HELLO = pack(Frame.HELLO, 0, b'{"version":%d}' % PROTOCOL_VERSION)

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_DOC_LIMITS = (4000, 400, 0)
_PARAMETERS_MAX = 64
_TRACEBACK_LIMITS = (8000, 2000, 400, 0)


def describe(loaded: Loaded) -> bytes:
    """A DESCRIBE frame; documentation is cut first where 64 KiB are not enough, then all but the tags."""
    for doc_limit in _DOC_LIMITS:
        body = _bytes(_description(loaded, doc_limit))
        if len(body) <= DESCRIBE_BYTES_MAX:
            return pack(Frame.DESCRIBE, 0, b"", body)
    tags = [{"tag": target.entrypoint.tag} for target in loaded.targets]
    return pack(Frame.DESCRIBE, 0, b"", _bytes({"import_ms": loaded.import_ms, "entrypoints": tags}))


def failed(problems: list[ImportProblem]) -> bytes:
    """A FAILED frame; tracebacks are cut first where 64 KiB are not enough, then the last problems."""
    for limit in _TRACEBACK_LIMITS:
        for count in (len(problems), 16):
            body = _bytes({"problems": [_problem(one, limit) for one in problems[:count]]})
            if len(body) <= DESCRIBE_BYTES_MAX:
                return pack(Frame.FAILED, 0, b"", body)
    return pack(Frame.FAILED, 0, b"", _bytes({"problems": [_problem(one, 0) for one in problems[:1]]}))


def _bytes(value: Any) -> bytes:
    return _encode(value).encode("utf-8", "replace")


def _description(loaded: Loaded, doc_limit: int) -> dict[str, Any]:
    return {
        "import_ms": loaded.import_ms,
        "entrypoints": [_entrypoint(target, doc_limit) for target in loaded.targets],
    }


def _entrypoint(target: Target, doc_limit: int) -> dict[str, Any]:
    entrypoint = target.entrypoint
    return {
        "tag": entrypoint.tag,
        "file": entrypoint.file,
        "module": entrypoint.module,
        "parameters": [
            {
                "name": one.name,
                "kind": one.kind,
                "required": one.required,
                "type": one.type,
                **({} if one.default is None else {"default": one.default}),
            }
            for one in target.parameters.described[:_PARAMETERS_MAX]
        ],
        "doc": target.doc[:doc_limit] or None,
        "streams": target.streams,
        "asynchronous": target.asynchronous,
        "returns": target.parameters.returns,
    }


def _problem(problem: ImportProblem, limit: int) -> dict[str, Any]:
    traceback = problem.traceback
    if len(traceback) > limit:
        # The end says what happened; the beginning where it was asked for.
        traceback = f"{traceback[: limit // 4]}\n  ...\n{traceback[-(limit * 3 // 4) :]}" if limit else ""
    return {
        "tag": problem.tag,
        "where": problem.where[:600],
        "what": problem.what[:1500],
        "traceback": traceback,
        "hints": [hint[:400] for hint in problem.hints[:4]],
    }
