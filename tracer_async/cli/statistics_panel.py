"""The panel of counters of a live view."""

from __future__ import annotations

from math import ceil, isfinite

from rich import box
from rich.panel import Panel
from rich.text import Text

from tracer_async import SessionStats
from tracer_async.cli.capture_counts import counted
from tracer_async.cli.wrapping import joined
from tracer_async.protocol import DecoderStats

__all__ = ["statistics_panel"]

# Seconds from which on an age has no milliseconds.
_SECONDS_FROM = 10.0


def statistics_panel(stats: SessionStats | DecoderStats, age: float, width: int) -> Panel:
    """Return the counters, and the maximum *age* of the reading in seconds if it is known. Faults are in color.

    A listener sends no requests. Its stray bytes are left out: the start-up bytes of each request count as such.
    """
    items = [
        _item(counted(stats.frames, "frame")),
        _item(counted(stats.corrupt_frames, "damaged frame"), stats.corrupt_frames),
    ]
    if isinstance(stats, SessionStats):
        stray = _item(counted(stats.noise_bytes, "stray byte"), stats.noise_bytes)
        items = [*_of_requests(stats), *items, stray, _item(counted(stats.links, "connection"))]
    if isfinite(age):
        words = f"{ceil(age * 1000)} ms" if age < _SECONDS_FROM else f"{ceil(age)} s"
        items.append(_item(f"reading at most {words} old"))
    # The frame of the panel and its padding have 4 columns.
    return Panel(joined(items, width - 4), title="statistics", title_align="left", box=box.ROUNDED)


def _item(text: str, faults: int = 0) -> Text:
    return Text(text, style="yellow" if faults else "")


def _of_requests(stats: SessionStats) -> list[Text]:
    return [
        _item(counted(stats.requests, "request")),
        _item(counted(stats.answers, "answer")),
        _item(counted(stats.timeouts, "timeout"), stats.timeouts),
        _item(f"{stats.late} late", stats.late),
        _item(f"{stats.unsolicited} unsolicited", stats.unsolicited),
        _item(counted(stats.echoes, "echo", "echoes"), stats.echoes),
    ]
