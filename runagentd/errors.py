"""The one table of errors: what callers can be told, with which code and status, and whose fault it is.

Runs as: every process but the runner and the launcher, which know kinds by their wire names only.
Reads from strangers: nothing.
A refusal is one exception (`Refusal`) raised by any stage; the doors turn it into their own bytes.
Nothing of the daemon's insides (paths, tracebacks of ours, pids) may enter a `Refusal`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

UNFIT_STATUS = 78
"""With this status a daemon ends that can never run on this machine as it is (EX_CONFIG of sysexits.h)."""


class Fault(enum.StrEnum):
    """Whose fault an error is."""

    CALLER = "caller"
    AGENT = "agent"
    OPERATOR = "operator"
    HOST = "host"
    DAEMON = "daemon"


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorKind:
    """One row of the table.

    `native_status` is the status on the native door; `runagent_status` that on RunAgent's door, where 200
    means "inside the envelope", the only form whose code and hint RunAgent's clients keep.
    `concept` is the name that the documentation and the clients use for the family.
    """

    concept: str
    code: str
    native_status: int
    runagent_status: int
    fault: Fault
    retryable: bool
    title: str
    hint: str | None


def _row(
    concept: str,
    code: str,
    native: int,
    runagent: int,
    fault: Fault,
    title: str,
    hint: str | None = None,
    *,
    retryable: bool = False,
) -> ErrorKind:
    return ErrorKind(
        concept=concept, code=code, native_status=native, runagent_status=runagent, fault=fault,
        retryable=retryable, title=title, hint=hint,
    )  # fmt: skip


_C, _A, _O, _H, _D = Fault.CALLER, Fault.AGENT, Fault.OPERATOR, Fault.HOST, Fault.DAEMON

# fmt: off
AUTHENTICATION    = _row("AuthenticationError", "AUTHENTICATION_ERROR", 401, 401, _C,
                         "the token is missing or not valid",
                         "send 'Authorization: Bearer TOKEN'; make one with 'runagentctl token create'")
PERMISSION        = _row("AuthenticationError", "PERMISSION_ERROR", 403, 403, _C, "the token does not allow this call",
                         "ask for a token that allows it; 'GET /v1/me' says what this one does")
AGENT_NOT_FOUND   = _row("AgentNotFoundError", "AGENT_NOT_FOUND", 404, 404, _C, "no such agent",
                         "'GET /v1/agents' lists the agents that this token may call")
NOT_FOUND         = _row("AgentNotFoundError", "NOT_FOUND", 404, 404, _C, "no such entrypoint or path",
                         "'GET /v1/agents/{agent}' lists the tags")
METHOD            = _row("ValidationError", "METHOD_NOT_ALLOWED", 405, 405, _C, "this path does not take that method")
MALFORMED         = _row("ValidationError", "VALIDATION_ERROR", 400, 400, _C, "the request cannot be read")
WRONG_DOOR        = _row("ValidationError", "VALIDATION_ERROR", 406, 400, _C, "this entrypoint answers in another form")
STREAMS           = _row("ValidationError", "VALIDATION_ERROR", 406, 200, _C, "this entrypoint answers with a stream")
SLOW_CALLER       = _row("ValidationError", "REQUEST_TIMEOUT", 408, 408, _C, "the request did not arrive in time",
                         retryable=True)
TOO_LARGE         = _row("ValidationError", "PAYLOAD_TOO_LARGE", 413, 413, _C, "the request is too large")
MEDIA_TYPE        = _row("ValidationError", "UNSUPPORTED_MEDIA_TYPE", 415, 415, _C, "the body must be application/json")
BODY              = _row("ValidationError", "VALIDATION_ERROR", 422, 422, _C, "the body does not have the right form")
ARGUMENT          = _row("ValidationError", "VALIDATION_ERROR", 422, 200, _C, "an argument does not fit the function")
RATE_LIMIT        = _row("RateLimitError", "RATE_LIMIT_ERROR", 429, 429, _C, "too many calls", retryable=True)
KEY_REUSED        = _row("ValidationError", "IDEMPOTENCY_KEY_REUSED", 422, 422, _C,
                         "this Idempotency-Key was sent before with another request", "send a new key")
KEY_IN_PROGRESS   = _row("ValidationError", "IDEMPOTENCY_IN_PROGRESS", 409, 409, _C,
                         "the call with this Idempotency-Key is still running",
                         "send it again after 'Retry-After' seconds", retryable=True)
KEY_UNKNOWN       = _row("ValidationError", "IDEMPOTENCY_OUTCOME_UNKNOWN", 409, 409, _C,
                         "the call with this Idempotency-Key was cut off; it may have run, in part or whole",
                         "look whether it took effect; a new key runs it once more")
KEY_NOT_STORED    = _row("ValidationError", "IDEMPOTENCY_NOT_STORED", 409, 409, _C,
                         "the call with this Idempotency-Key has run; its result was too large to be kept",
                         "a new key runs it once more")
NOT_CACHED        = _row("ValidationError", "NOT_CACHED", 504, 504, _C,
                         "no kept answer is good enough, and the request wants nothing else",
                         "send it without 'only-if-cached'")
TIMEOUT           = _row("TimeoutError", "TIMEOUT_ERROR", 504, 200, _A, "the call reached its deadline",
                         "raise 'timeout_seconds' (natively 'Runagent-Timeout') or the policy's calls.deadline, "
                         "or make the function faster")
CANCELLED         = _row("NetworkError", "CANCELLED", 503, 200, _C, "the call was cancelled", retryable=True)
FUNCTION          = _row("FunctionError", "FUNCTION_ERROR", 502, 200, _A, "the function raised an exception")
UNSERIALISABLE    = _row("FunctionError", "UNSERIALISABLE_RESULT", 502, 200, _A, "the result has no JSON form",
                         "return str, int, float, bool, None, list, dict, or an object with model_dump or to_dict")
RESULT_TOO_LARGE  = _row("FunctionError", "RESULT_TOO_LARGE", 502, 200, _A,
                         "the result is larger than the policy allows",
                         "return less, stream it, or raise the policy's calls.result_bytes")
IMPORT            = _row("ImportError", "IMPORT_ERROR", 503, 503, _A, "the agent cannot be loaded",
                         "the agent's log has its traceback: 'runagentctl logs AGENT'")
INSTANCE_DIED     = _row("FunctionError", "INSTANCE_DIED", 502, 200, _A, "the agent's process ended during the call",
                         retryable=True)
OUT_OF_MEMORY     = _row("FunctionError", "OUT_OF_MEMORY", 502, 200, _A,
                         "the agent used more memory than its policy allows",
                         "raise the policy's resources.memory_max, or use less")
PROTOCOL          = _row("FunctionError", "PROTOCOL_ERROR", 502, 200, _A, "the agent's process broke the protocol")
UNAVAILABLE       = _row("NetworkError", "UNAVAILABLE", 503, 503, _H, "the agent is not ready", retryable=True)
OVERLOADED        = _row("RateLimitError", "OVERLOADED", 503, 503, _H, "the agent's queue is full", retryable=True)
DRAINING          = _row("NetworkError", "DRAINING", 503, 503, _O, "the daemon is stopping", retryable=True)
CONFIGURATION     = _row("ConfigurationError", "CONFIGURATION_ERROR", 500, 500, _O,
                         "the agent's configuration is wrong")
SERVER            = _row("ServerError", "SERVER_ERROR", 500, 500, _D, "something went wrong in runagentd",
                         "the daemon's log has the rest, under this request id")
# fmt: on


class Refusal(Exception):
    """A call is refused, or ended without a result; the doors render it.

    `message` is for the caller: lower case, what and where, values quoted. `pointer` is a JSON Pointer
    (RFC 6901) into the arguments. `cause` says why an instance ended ("oom", "deadline", "signal", ...).
    `headers` go out with an HTTP answer (Retry-After, Allow, WWW-Authenticate). `limit` names the one that was hit.
    """

    def __init__(
        self,
        kind: ErrorKind,
        message: str,
        *,
        hint: str | None = None,
        pointer: str | None = None,
        cause: str | None = None,
        retry_after: float | None = None,
        exception_type: str | None = None,
        traceback: str | None = None,
        headers: dict[str, str] | None = None,
        limit: str | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.hint = hint if hint is not None else kind.hint
        self.pointer = pointer
        self.cause = cause
        self.retry_after = retry_after
        self.exception_type = exception_type
        self.traceback = traceback
        self.headers = headers or {}
        self.limit = limit

    def settle(self) -> Refusal:
        """It was caught for good: let go of the frames that it came through, whose variables lead back to it.

        Such a circle is only ended by the garbage collector, and a flood of refusals would keep that busy: full
        collections of 25 to 50 ms, in which nobody is answered, were seen under attack.
        """
        self.__traceback__ = self.__context__ = self.__cause__ = None
        return self

    def copy(self) -> Refusal:
        """The same for another caller: one exception raised twice would grow its traceback, and share its headers."""
        return Refusal(
            self.kind, self.message, hint=self.hint, pointer=self.pointer, cause=self.cause,
            retry_after=self.retry_after, exception_type=self.exception_type, traceback=self.traceback,
            headers=dict(self.headers), limit=self.limit,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a file that a person wrote: what, where, what now."""

    where: str
    """For example `runagent.config.json: agent_architecture.entrypoints[0].tag`."""
    what: str
    hints: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        return "\n".join(
            [f"{self.where}: {self.what}" if self.where else self.what, *(f"hint: {h}" for h in self.hints)]
        )


class ConfigurationError(Exception):
    """Files or options that a person wrote are wrong; carries every problem found, not only the first."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class HostError(Exception):
    """This machine lacks something that runagentd needs: one clear sentence, perhaps with a hint."""

    def __init__(self, message: str, *hints: str) -> None:
        super().__init__("\n".join([message, *(f"hint: {hint}" for hint in hints)]))
