"""The exit codes of the command, and their meanings."""

from __future__ import annotations

from enum import IntEnum
from itertools import zip_longest

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

__all__ = ["ExitCode", "exit_code", "meanings", "table"]


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
    WARNING = 12
    INTERRUPTED = 130
    TERMINATED = 143


# At most 32 characters each: two columns of them fit on 80 columns.
_MEANINGS = {
    ExitCode.OK: "done",
    ExitCode.FAILED: "another error",
    ExitCode.USAGE: "wrong option, argument, address",
    ExitCode.NO_LINK: "no connection, or it was lost",
    ExitCode.NO_ANSWER: "no answer from the controller",
    ExitCode.MALFORMED: "malformed answer",
    ExitCode.LOAD_REFUSED: "the load was not switched",
    ExitCode.LOAD_UNKNOWN: "the state of the load is unknown",
    ExitCode.NO_CAPTURE: "not a capture file",
    ExitCode.MISSING_EXTRA: "a package is not installed",
    ExitCode.NOT_CONFIRMED: "not confirmed by the user",
    ExitCode.AMBIGUOUS: "ambiguous answer",
    ExitCode.WARNING: "the doctor has a warning",
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


def meanings() -> dict[ExitCode, str]:
    """Return the meaning of each code."""
    return dict(_MEANINGS)


def table() -> str:
    """Return all codes and their meanings, in two columns of a text of 78."""
    # The two signals have one line, so that the help fits on a screen.
    lines = [f"{code.value:>3}  {meaning}" for code, meaning in _MEANINGS.items() if code < ExitCode.INTERRUPTED]
    lines.append(f"{ExitCode.INTERRUPTED.value:>3}, {ExitCode.TERMINATED.value}  ended with Ctrl-C, by SIGTERM")
    half = (len(lines) + 1) // 2
    rows = zip_longest(lines[:half], lines[half:], fillvalue="")
    return "\n".join(f"{left:38}{right}".rstrip() for left, right in rows)
