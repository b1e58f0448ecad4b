"""The panel of charts of a live view."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich import box
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from tracer_async import RealtimeData
from tracer_async.cli.charts import bars, columns, scale, step_of

__all__ = ["CHARTS", "Chart", "chart_panel"]


class Chart(NamedTuple):
    """How a field is drawn."""

    name: str
    unit: str
    digits: int
    color: str
    least: float
    """The smallest range of the scale."""


CHARTS = {
    "battery_voltage": Chart("Battery", "V", 2, "cyan", 0.2),
    "pv_voltage": Chart("PV", "V", 2, "yellow", 1.0),
    "charge_power": Chart("Charge", "W", 1, "green", 10.0),
    "load_power": Chart("Load", "W", 1, "magenta", 10.0),
}


def chart_panel(
    points: Sequence[tuple[float, RealtimeData]], interval: float, until: float, width: int, rows: int, *, plain: bool
) -> Panel:
    """Return the charts of the readings *points* at their times, *rows* high each; the last column is at *until*."""
    room = max(8, width - 28)
    begun = points[0][0] if points else 0.0
    now = max(points[-1][0], until) if points else 0.0
    step = step_of(interval, now - begun + interval, room)
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=8)
    grid.add_column(width=room, no_wrap=True)
    grid.add_column(width=14, no_wrap=True)
    for field, chart in CHARTS.items():
        values: list[tuple[float, float]] = [(time, getattr(data, field)) for time, data in points]
        low, high = scale([value for _, value in values], chart.least)
        # Half an interval later, so that a reading a little early or late stays in its column.
        shifted = [(time - begun + interval / 2, value) for time, value in values]
        cells = columns(shifted, now - begun + interval / 2, step, room)
        lines = bars(cells, low, high, rows, plain=plain)
        ends = _ends(chart, low, high, rows) if points else ""
        grid.add_row(chart.name, Text("\n".join(lines), style=chart.color), ends)
    title = f"last {_duration(now - begun)}, {_duration(step)} per column" if points else "last minutes"
    return Panel(grid, title=title, title_align="left", box=box.ROUNDED)


def _ends(chart: Chart, low: float, high: float, rows: int) -> str:
    """Return the label of a chart: the ends of its scale, at the bottom and at the top."""
    bottom, top = (f"{value:.{chart.digits}f}" for value in (low, high))
    if rows == 1:
        return f"{bottom}-{top} {chart.unit}"
    return "\n".join([f"{top} {chart.unit}", *[""] * (rows - 2), f"{bottom} {chart.unit}"])


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{seconds:.2g} s" if seconds < 10 else f"{rest} s"
    return f"{minutes} min {rest} s" if rest else f"{minutes} min"
