"""The errors of requests that fail. Each says what is known about the request, and the likely cause."""

from __future__ import annotations

from tracer_async.errors import (
    EchoError,
    LinkError,
    LinkLostError,
    LinkTimeoutError,
    MalformedReplyError,
    ResponseTimeoutError,
    TracerError,
)
from tracer_async.protocol._request import Request
from tracer_async.protocol.decoder import FrameDecoder

__all__ = ["early_losses", "lost_error", "not_sent_error", "timeout_error", "unlinked_error"]


def timeout_error(name: str, request: Request, decoder: FrameDecoder, now: float) -> ResponseTimeoutError:
    """Return the error of a request without an answer, with what was received instead."""
    frames, damaged_frames, stray_bytes = request.received_before
    frames = decoder.frames - frames
    damaged_frames = decoder.corrupt_frames - damaged_frames
    only_echoes = 0 < request.echoes == frames and not damaged_frames
    kind = EchoError if only_echoes else ResponseTimeoutError
    return kind(
        name,
        request.command.code,
        now - request.first_sent,
        request.attempts,
        frames=frames if only_echoes else frames - request.echoes,
        damaged_frames=damaged_frames,
        stray_bytes=decoder.corrupt_bytes + decoder.noise_bytes - stray_bytes + decoder.pending,
    )


def not_sent_error(error: TracerError, probe: Request, blocked: Request) -> TracerError:
    """Return the error of *blocked*, a command that was not sent because *probe* failed with *error*."""
    unsent = None if blocked.attempts else int(blocked.command.code)
    if isinstance(error, MalformedReplyError):
        malformed = MalformedReplyError(error.address, error.command, error.raw, error.reason, unsent=unsent)
        malformed.__cause__ = error.__cause__
        return malformed
    assert isinstance(error, ResponseTimeoutError)  # noqa: S101  # a probe fails in no other way
    evidence = {name: getattr(error, name) for name in ("frames", "damaged_frames", "stray_bytes")}
    if unsent is None:  # it was sent before, and should have been sent again
        waited = probe.first_sent + error.waited - blocked.first_sent
        return type(error)(error.address, blocked.command.code, waited, blocked.attempts, **evidence)
    return type(error)(error.address, error.command, error.waited, error.attempts, unsent=unsent, **evidence)


def lost_error(name: str, request: Request, cause: Exception | None) -> LinkLostError:
    """Return the error of a request that was in flight when the connection was lost."""
    times = "once" if request.attempts == 1 else f"{request.attempts} times"
    text = f"connection lost before the reply to command {request.command.code:02X} came, sent {times}"
    if reason := _reason(cause):
        text += f" ({reason})"
    if request.reading:
        return LinkLostError(name, f"{text}. Is another program connected to the same bridge?")
    return LinkLostError(name, f"{text}. The command may have been executed or not.")


def early_losses(request: Request, losses: int) -> str:
    """Return the text for a request that waited for *losses* connections which were lost before it could be sent."""
    lost = "a connection was" if losses == 1 else f"{losses} connections were"
    again = " again" if request.attempts else ""
    return f"{lost} lost before the request could be sent{again} (does the bridge close connections early?)"


def unlinked_error(name: str, text: str, cause: Exception | None) -> LinkTimeoutError:
    """Return the error of a request for which no connection was there in time. *cause* is the last error."""
    reason = _reason(cause)
    error = LinkTimeoutError(name, f"{text}; last error: {reason}" if reason else text)
    error.__cause__ = cause
    return error


def _reason(cause: Exception | None) -> str:
    return cause.reason if isinstance(cause, LinkError) else str(cause or "")
