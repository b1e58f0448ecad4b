"""The live view of the readings that another master requests."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import aclosing
from typing import NamedTuple

from tracer_async import ConnectionState
from tracer_async.cli.screen import shown
from tracer_async.cli.silence import Silence
from tracer_async.cli.view import View
from tracer_async.protocol import DecoderStats
from tracer_async.sharing import Listener

__all__ = ["show_readings"]


class _Heard(NamedTuple):
    """What a view shows of a listener: the sum of its ports."""

    stats: DecoderStats
    state: ConnectionState


async def show_readings(listener: Listener, urls: Sequence[str], count: int | None) -> None:
    """Show the readings of *listener*, which is open, until there were *count*, the user ends it, or forever."""
    name = " and ".join(urls)
    view, silence = View(name, None), Silence(time.monotonic())

    def follow() -> None:
        heard = _Heard(_sum(listener.stats), listener.state)
        view.follow({name: heard})
        view.mark_old(_lost(listener) or silence.words(time.monotonic(), _received(heard.stats)))

    follow()
    shown_readings = 0
    async with aclosing(listener.readings()) as readings, shown(view, follow) as refresh:
        async for reading in readings:
            silence.end(time.monotonic(), _received(_sum(listener.stats)))
            if silence.usual_gap is not None:
                view.expect(silence.usual_gap)
            view.take(name, reading)
            follow()
            refresh()
            shown_readings += 1
            if shown_readings == count:
                return


def _lost(listener: Listener) -> str | None:
    """Return why ports are lost, or None if all are open."""
    errors = [f"lost, reconnecting: {error}" for error in listener.errors if error is not None]
    return "; ".join(errors) or None


def _received(stats: DecoderStats) -> int:
    """Return a number that changes with whatever is received."""
    return stats.frames + stats.corrupt_bytes + stats.noise_bytes


def _sum(stats: Sequence[DecoderStats]) -> DecoderStats:
    return DecoderStats(*map(sum, zip(*stats, strict=True)))
