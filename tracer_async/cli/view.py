"""The live view: numbers, flags, charts of the last minutes, and how the line does."""

from __future__ import annotations

import io
import re
from collections import deque
from datetime import datetime
from typing import NamedTuple

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from tracer_async import ConnectionState, Reading, RealtimeData, SessionStats
from tracer_async.cli.charts import bars, columns, step_of
from tracer_async.cli.tables import alarm_words

__all__ = ["View"]

_MINUTES = 10
# Rows that are no chart: the header, two panels of four and two rows, the last error in two rows, and the footer.
_OTHER_ROWS = 1 + 6 + 4 + 2 + 1
_LINK_STYLES = {ConnectionState.UP: "green", ConnectionState.CONNECTING: "yellow", ConnectionState.DOWN: "bold red"}


class _Chart(NamedTuple):
    name: str
    unit: str
    digits: int
    color: str
    least: float
    """The smallest range that fills the chart, so that the last digit's jitter does not."""
    from_zero: bool


_CHARTS = {
    "battery_voltage": _Chart("Battery", "V", 2, "cyan", 0.2, from_zero=False),
    "pv_voltage": _Chart("PV", "V", 2, "yellow", 1.0, from_zero=False),
    "charge_power": _Chart("Charge", "W", 1, "green", 10.0, from_zero=True),
    "load_power": _Chart("Load", "W", 1, "magenta", 10.0, from_zero=True),
}


class View:
    """What `watch` shows. Fed with readings, and drawn by rich at any size from 80 by 24 on, smaller ones cropped."""

    def __init__(self, address: str, interval: float) -> None:
        self._address = address
        self._interval = interval
        self._points: deque[tuple[float, RealtimeData]] = deque(
            maxlen=min(3000, max(120, int(_MINUTES * 60 / interval)))
        )
        self._last: Reading | None = None
        self._error: Reading | None = None
        self._failures = 0
        self._link = ConnectionState.CONNECTING
        self._stats = SessionStats(*[0] * len(SessionStats._fields))

    def follow(self, stats: SessionStats, link: ConnectionState) -> None:
        """Show how the line does."""
        self._stats = stats
        self._link = link

    def take(self, reading: Reading, stats: SessionStats, link: ConnectionState) -> None:
        """Show *reading* from now on; one that failed leaves the numbers as they are, and says so."""
        self.follow(stats, link)
        if reading.data is None:
            self._error = reading
            self._failures += 1
            return
        self._last = reading
        self._failures = 0
        self._points.append((reading.time, reading.data))

    def to_svg(self, width: int = 100, height: int = 30) -> str:
        """Return the view as an SVG picture, *width* by *height* characters in size."""
        console = Console(
            record=True, file=io.StringIO(), force_terminal=True, color_system="truecolor", width=width, height=height
        )
        console.print(self)
        svg = console.export_svg(title=f"tracer-async watch {self._address}")
        # The picture shall not fetch its fonts from somewhere; the reader has a fixed-width one.
        svg = re.sub(r"@font-face\s*{.*?}", "", svg, flags=re.DOTALL)
        # Without this some programs drop the blanks that a line begins with, and move the charts.
        return svg.replace("<svg ", '<svg xml:space="preserve" ', 1)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        rows = max(1, min(5, ((options.height or console.height) - _OTHER_ROWS - 2) // len(_CHARTS)))
        yield Group(
            self._header(),
            Panel(self._numbers(), title=self._title_of_numbers(), title_align="left", box=box.ROUNDED),
            self._charts(width, rows, plain=options.ascii_only),
            Panel(self._line(), title="line", title_align="left", box=box.ROUNDED),
            self._message(width),
            Text(f"every {self._interval:g} s, Ctrl-C ends", style="dim"),
        )

    def _header(self) -> Table:
        header = Table.grid(expand=True)
        header.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        header.add_column(justify="right", no_wrap=True)
        now = datetime.now().astimezone()
        header.add_row(
            Text(f" {self._address}", style="bold"),
            Text.assemble("link ", (self._link.value, _LINK_STYLES.get(self._link, "")), now.strftime("  %H:%M:%S ")),
        )
        return header

    @property
    def _is_old(self) -> bool:
        """Whether what is shown is known to be from before something went wrong."""
        return self._failures > 0 or self._link is ConnectionState.DOWN

    def _title_of_numbers(self) -> Text:
        if self._last is None:
            return Text("waiting for the first reading")
        if self._is_old:
            return Text(f"old: read at {_clock(self._last.time)}", style="bold red")
        return Text("now")

    def _numbers(self) -> Table:
        grid = Table.grid(expand=True, padding=(0, 1))
        for _ in range(2):
            grid.add_column(width=8)
            grid.add_column(justify="right", width=10)
            grid.add_column(ratio=1, no_wrap=True)
        if self._last is None or self._last.data is None:
            for _ in range(4):
                grid.add_row("")
            return grid
        data = self._last.data
        strong = "dim" if self._is_old else "bold"
        alarms = alarm_words(data)
        load = ("on", "green") if data.load_on else ("off", "")
        grid.add_row(
            *("Battery", Text(f"{data.battery_voltage:.2f} V", style=strong), f"{data.battery_temperature:>6} °C"),
            *("PV", Text(f"{data.pv_voltage:.2f} V", style=strong), ""),
        )
        grid.add_row(
            *("Charge", Text(f"{data.charge_current:.2f} A", style=strong), f"{data.charge_power:>6.1f} W"),
            *("Load", Text(f"{data.load_current:.2f} A", style=strong)),
            Text.assemble(f"{data.load_power:>6.1f} W  ", load),
        )
        states = [word for on, word in ((data.charging, "charging"), (data.battery_full, "battery full")) if on]
        words = Text.assemble(
            (", ".join(states) or "not charging", "green" if states else ""),
            "  ",
            (f" {alarms.upper()} ", "bold white on red") if alarms else ("no alarms", "dim"),
        )
        limits = (
            f"load cut below {data.over_discharge_voltage:.2f} V, "
            f"battery full above {data.battery_full_voltage:.2f} V, reserved {data.reserved.hex(' ').upper()}"
        )
        whole = Table.grid(expand=True)
        whole.add_row(grid)
        whole.add_row(words)
        whole.add_row(Text(limits, style="dim", no_wrap=True, overflow="ellipsis"))
        return whole

    def _charts(self, width: int, rows: int, *, plain: bool) -> Panel:
        room = max(8, width - 28)
        begun = self._points[0][0] if self._points else 0.0
        # Failed readings move the axis on too, and leave a gap.
        now = max(self._points[-1][0], self._error.time if self._error else 0.0) if self._points else 0.0
        step = step_of(self._interval, now - begun + self._interval, room)
        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=8)
        grid.add_column(width=room, no_wrap=True)
        grid.add_column(width=14, justify="right", no_wrap=True)
        for field, chart in _CHARTS.items():
            values: list[tuple[float, float]] = [(time, getattr(data, field)) for time, data in self._points]
            low, high = min((v for _, v in values), default=0.0), max((v for _, v in values), default=0.0)
            # Half an interval on, so that a reading a little early or late stays in its column.
            shifted = [(time - begun + self._interval / 2, value) for time, value in values]
            cells = columns(shifted, now - begun + self._interval / 2, step, room)
            lines = bars(cells, *_scale(chart, low, high), rows, plain=plain)
            lowest, highest = (f"{value:.{chart.digits}f}" for value in (low, high))
            if rows == 1:
                labels = [f"{lowest}-{highest} {chart.unit}"]
            else:
                labels = [f"max {highest} {chart.unit}", *[""] * (rows - 2), f"min {lowest} {chart.unit}"]
            grid.add_row(chart.name, Text("\n".join(lines), style=chart.color), "\n".join(labels))
        title = f"last {_duration(now - begun)}, {_duration(step)} a column" if self._points else "last minutes"
        return Panel(grid, title=title, title_align="left", box=box.ROUNDED)

    def _line(self) -> Text:
        stats = self._stats
        text = Text()
        for index, (number, name, is_trouble) in enumerate(
            (
                (stats.requests, "requests", False),
                (stats.answers, "answers", False),
                (stats.timeouts, "timeouts", True),
                (stats.late, "late", True),
                (stats.unsolicited, "unsolicited", True),
                (stats.echoes, "echoes", True),
                (stats.frames, "frames", False),
                (stats.corrupt_frames, "damaged", True),
                (stats.noise_bytes, "noise bytes", True),
                (stats.links, "links made", False),
            )
        ):
            text.append("\n" if index == 6 else "" if index == 0 else ", ")
            text.append(f"{number} {name}", style="yellow" if is_trouble and number else "")
        if self._last is not None and self._last.age and not self._is_old:
            text.append(f", at most {self._last.age * 1000:.0f} ms old")
        return text

    def _message(self, width: int) -> Text:
        if self._error is None:
            return Text("\n")
        failed = f"{self._failures} in a row failed, " if self._failures > 1 else ""
        message = f"{_clock(self._error.time)} {failed}{self._error.error}"
        style = "red" if self._failures else "dim"
        lines = Text(message, style=style).wrap(Console(width=width), width)[:2]
        return Text("\n", end="") if not lines else Text("\n").join([*lines, *[Text("")] * (2 - len(lines))])


def _scale(chart: _Chart, low: float, high: float) -> tuple[float, float]:
    if chart.from_zero:
        return 0.0, max(high, chart.least)
    short = max(0.0, chart.least - (high - low)) / 2
    return low - short, high + short


def _clock(time: float) -> str:
    return datetime.fromtimestamp(time).astimezone().strftime("%H:%M:%S")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{seconds:.2g} s" if seconds < 10 else f"{rest} s"
    return f"{minutes} min {rest} s" if rest else f"{minutes} min"
