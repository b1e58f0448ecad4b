"""What the command's exit codes mean: the one table of them."""

from __future__ import annotations

from enum import IntEnum

from tracer_async.errors import (
    AddressError,
    AmbiguousReplyError,
    CaptureError,
    LinkError,
    LoadRefusedError,
    LoadUnknownError,
    MalformedReplyError,
    MissingExtraError,
    ResponseTimeoutError,
    TracerError,
)

__all__ = ["ExitCode", "exit_code", "table"]


class ExitCode(IntEnum):
    """The exit codes. The number 2 is click's own, and the ones over 128 are the shells'."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NO_LINK = 3
    NO_ANSWER = 4
    MALFORMED = 5
    LOAD_REFUSED = 6
    LOAD_UNKNOWN = 7
    NO_CAPTURE = 8
    MISSING_EXTRA = 9
    NOT_CONFIRMED = 10
    AMBIGUOUS = 11
    INTERRUPTED = 130
    TERMINATED = 143


_MEANINGS = {
    ExitCode.OK: "done",
    ExitCode.FAILED: "something else went wrong",
    ExitCode.USAGE: "wrong option, argument or address",
    ExitCode.NO_LINK: "the link could not be opened, or was lost",
    ExitCode.NO_ANSWER: "the controller did not answer",
    ExitCode.MALFORMED: "the controller's answer makes no sense",
    ExitCode.LOAD_REFUSED: "the controller left the load as it was",
    ExitCode.LOAD_UNKNOWN: "it is not certain that the load was switched",
    ExitCode.NO_CAPTURE: "the file is no capture",
    ExitCode.MISSING_EXTRA: "an optional package is not installed",
    ExitCode.NOT_CONFIRMED: "asked, and told not to",
    ExitCode.AMBIGUOUS: "the answer may belong to another request",
    ExitCode.INTERRUPTED: "ended with Ctrl-C",
    ExitCode.TERMINATED: "ended by SIGTERM",
}

# The first class that fits counts.
_OF_ERRORS: dict[type[TracerError], ExitCode] = {
    AddressError: ExitCode.USAGE,
    AmbiguousReplyError: ExitCode.AMBIGUOUS,
    LinkError: ExitCode.NO_LINK,
    ResponseTimeoutError: ExitCode.NO_ANSWER,
    MalformedReplyError: ExitCode.MALFORMED,
    LoadRefusedError: ExitCode.LOAD_REFUSED,
    LoadUnknownError: ExitCode.LOAD_UNKNOWN,
    CaptureError: ExitCode.NO_CAPTURE,
    MissingExtraError: ExitCode.MISSING_EXTRA,
}


def exit_code(error: TracerError) -> ExitCode:
    """Return the code that the command exits with for *error*."""
    return next((code for kind, code in _OF_ERRORS.items() if isinstance(error, kind)), ExitCode.FAILED)


def table() -> str:
    """Return all codes and their meanings, a line each."""
    return "\n".join(f"{code.value:>3}  {_MEANINGS[code]}" for code in ExitCode)
