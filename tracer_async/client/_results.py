"""What both drivers make of the outcome of a request."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tracer_async.client.reading import Reading
from tracer_async.errors import TracerError
from tracer_async.protocol import Answer

__all__ = ["is_recent", "reading_of", "twin"]

# The constructor of a NamedTuple calls this. Calling it directly takes half the time.
_new = tuple.__new__


def reading_of(answer: Answer[Any], clock: Callable[[], float], skipped: int = 0) -> Reading:
    """Return *answer* as a reading, with the wall-clock time of its arrival. May be called any time later.

    *clock* is the clock of the session.
    """
    value, _, since, received_at, _ = answer
    before = clock()
    wall = time.time()
    # The process may be interrupted between reading the two clocks. The time of that is added to the age.
    waited = clock() - before
    return _new(Reading, (wall - (before - received_at), value, None, waited + received_at - since, skipped))


def is_recent(since: float, now: float, max_age: float, last_command_sent: float) -> bool:
    """Return whether a reading is at most *max_age* seconds old and no command was sent after it.

    *since* is the time after which it was measured.
    """
    return now - since <= max_age and since >= last_command_sent


def twin(error: TracerError) -> TracerError:
    """Return an equal exception. Each caller needs its own one: raising an exception adds a traceback to it."""
    twin = type(error).__new__(type(error), *error.args)
    twin.args = error.args
    twin.__dict__.update(error.__dict__)
    twin.__cause__ = error.__cause__
    return twin
