"""Functions on the decoder's events for tests and fuzzing."""

from __future__ import annotations

from tracer_async.protocol import Event, Frame, Noise


def raw(event: Event) -> bytes:
    """The bytes of *event*."""
    return event.encode(start_up=False) if isinstance(event, Frame) else event.raw


def merged(events: list[Event]) -> list[Event]:
    """*events* with neighbouring noise as one."""
    result: list[Event] = []
    for event in events:
        if isinstance(event, Noise) and result and isinstance(result[-1], Noise):
            result[-1] = Noise(result[-1].raw + event.raw)
        else:
            result.append(event)
    return result
