"""The live view of one controller: numbers, flags, charts of the last minutes, and statistics of the connection."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime
from math import inf
from typing import Protocol

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from tracer_async import ConnectionState, Reading, RealtimeData, SessionStats
from tracer_async.cli.chart_panel import CHARTS, chart_panel
from tracer_async.cli.charts import step_of
from tracer_async.cli.statistics_panel import statistics_panel
from tracer_async.cli.tables import alarm_words
from tracer_async.cli.wrapping import joined, message_lines
from tracer_async.protocol import DecoderStats

__all__ = ["STATES", "Client", "View", "clock_time", "footer"]

_MINUTES = 10

# Seconds that an error stays on the screen after the controller has answered again.
_RECOVERED = 10.0

# Maximum age of a reading that is called the present one, in seconds.
_PRESENT = 5.0

# From this width on the numbers have two columns.
_TWO_COLUMNS = 76

_MOST_CHART_ROWS = 5
_MOST_MESSAGE_ROWS = 5

STATES = {
    ConnectionState.UP: ("connected", "green"),
    ConnectionState.CONNECTING: ("connecting", "yellow"),
    ConnectionState.DOWN: ("not connected", "bold red"),
    ConnectionState.CLOSED: ("closed", ""),
}
"""The words and the style of each state of a connection."""


class Client(Protocol):
    """What a view needs of a `TracerClient` or a `Listener`."""

    @property
    def stats(self) -> SessionStats | DecoderStats:
        """The counters."""

    @property
    def state(self) -> ConnectionState:
        """The state of the connection."""


class View:
    """What `watch` and `listen` show of one controller. Drawn by rich at any size from 40 by 16 on.

    *interval* is None if another master asks for the readings.
    """

    def __init__(self, address: str, interval: float | None, clock: Callable[[], float] = time.time) -> None:
        self._address = address
        self._interval = interval
        self._column = interval or 1.0
        self._clock = clock
        self._points: deque[tuple[float, RealtimeData]] = deque(
            maxlen=min(3000, max(120, int(_MINUTES * 60 / self._column)))
        )
        self._last: Reading | None = None
        self._error: Reading | None = None
        self._recovered_at: float | None = None
        self._failures = 0
        self._state = ConnectionState.CONNECTING
        self._why_old: str | None = None
        self._stats: SessionStats | DecoderStats = SessionStats(*[0] * len(SessionStats._fields))
        self._ended_at: float | None = None

    def follow(self, tracers: Mapping[str, Client]) -> None:
        """Show the state of the connection."""
        tracer = tracers[self._address]
        self._stats, self._state = tracer.stats, tracer.state

    def take(self, _name: str, reading: Reading) -> None:
        """Show *reading* from now on. A failed one leaves the numbers unchanged and marks them as old."""
        if reading.data is None:
            self._error = reading
            self._recovered_at = None
            self._failures += 1
            return
        if self._failures:
            self._recovered_at = reading.time
        self._last = reading
        self._failures = 0
        self._points.append((reading.time, reading.data))

    def expect(self, gap: float) -> None:
        """Draw charts for readings that come every *gap* seconds, more or less. Few gaps change the columns."""
        self._column = step_of(1.0, 1.25 * gap, 1)

    def mark_old(self, reason: str | None) -> None:
        """Mark the numbers as old, and show *reason*, until this is called with None."""
        self._why_old = reason

    def end(self) -> None:
        """Note that the watch is over: what is shown now does not change any more."""
        self._ended_at = self._clock()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw what fits: the numbers and the last error always, then charts, limits, statistics, higher charts."""
        free = options.height or console.height
        as_high_as_needed = options.update(height=None)

        def fits(*parts: RenderableType, beside: int = 0) -> bool:
            nonlocal free
            rows = sum(len(console.render_lines(part, as_high_as_needed)) for part in parts)
            if rows + beside > free:
                return False
            free -= rows
            return True

        width = options.max_width
        header, numbers = self._header(), self._numbers(width)
        foot: list[RenderableType] = [*self._message(width), *([] if self._is_ended else [footer(self._interval)])]
        fits(header, numbers, *foot)
        least = len(CHARTS) + 2
        has_charts = free >= least
        limits = self._limits(width)
        body: list[RenderableType] = [numbers, *([limits] if fits(limits, beside=least) else [])]
        statistics = statistics_panel(self._stats, self._age(), width)
        has_statistics = fits(statistics, beside=least)
        if has_charts:
            # A failed reading moves the axis on, too, and leaves a gap.
            until = self._clock() if self._why_old else self._error.time if self._error else 0.0
            rows = min(_MOST_CHART_ROWS, (free - 2) // len(CHARTS))
            body.append(chart_panel(self._points, self._column, until, width, rows, plain=options.ascii_only))
        if has_statistics:
            body.append(statistics)
        yield Group(header, *body, *foot)

    def _header(self) -> Table:
        header = Table.grid(expand=True)
        header.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        header.add_column(justify="right", no_wrap=True)
        now = "" if self._is_ended else f"  {clock_time(self._clock())}"
        header.add_row(Text(f" {self._address}", style="bold"), Text.assemble("  ", STATES[self._state], f"{now} "))
        return header

    @property
    def _is_ended(self) -> bool:
        return self._ended_at is not None

    @property
    def _is_old(self) -> bool:
        """Whether something went wrong after the reading that is shown."""
        return self._failures > 0 or self._state is ConnectionState.DOWN or self._why_old is not None

    def _age(self) -> float:
        """Return the maximum age of the reading in seconds. It is infinite if nobody knows it or it is old.

        After the end it is the age at the end.
        """
        if self._last is None or self._is_old:
            return inf
        now = self._clock() if self._ended_at is None else self._ended_at
        return self._last.age + max(0.0, now - self._last.time)

    def _title(self) -> Text:
        if self._last is None:
            return Text("no reading" if self._is_ended else "waiting for the first reading")
        if self._is_old:
            return Text(f"old: read at {clock_time(self._last.time)}", style="bold red")
        # The next reading may come at any time, so the last one heard is never called the present one.
        has_time = self._is_ended or self._interval is None or self._age() > _PRESENT
        return Text(f"read at {clock_time(self._last.time)}" if has_time else "now")

    def _numbers(self, width: int) -> Panel:
        is_wide = width >= _TWO_COLUMNS
        grid = Table.grid(expand=True, padding=(0, 1))
        for _ in range(2 if is_wide else 1):
            grid.add_column(width=8)
            grid.add_column(justify="right", width=8)
            grid.add_column(ratio=1, no_wrap=True)
        cells = self._cells()
        if is_wide:
            grid.add_row(*cells["battery"], *cells["pv"])
            grid.add_row(*cells["charge"], *cells["load"])
        else:
            for cell in cells.values():
                grid.add_row(*cell)
        return Panel(Group(grid, self._flags()), title=self._title(), title_align="left", box=box.ROUNDED)

    def _cells(self) -> dict[str, tuple[RenderableType, RenderableType, RenderableType]]:
        """Return name, voltage or current, and the rest of each of the four numbers."""
        if self._last is None or self._last.data is None:
            return dict.fromkeys(("battery", "pv", "charge", "load"), ("", "", ""))
        data = self._last.data
        style = "dim" if self._is_old else "bold"
        load = ("on", "green") if data.load_on else ("off", "")
        return {
            "battery": (
                "Battery",
                Text(f"{data.battery_voltage:.2f} V", style=style),
                f"{data.battery_temperature:>7} °C",
            ),
            "pv": ("PV", Text(f"{data.pv_voltage:.2f} V", style=style), ""),
            "charge": ("Charge", Text(f"{data.charge_current:.2f} A", style=style), f"{data.charge_power:>7.1f} W"),
            "load": (
                "Load",
                Text(f"{data.load_current:.2f} A", style=style),
                Text.assemble(f"{data.load_power:>7.1f} W  ", load),
            ),
        }

    def _flags(self) -> Text:
        if self._last is None or self._last.data is None:
            return Text("")
        data = self._last.data
        alarms = alarm_words(data)
        states = [word for on, word in ((data.charging, "charging"), (data.battery_full, "battery full")) if on]
        return Text.assemble(
            (", ".join(states) or "not charging", "green" if states else ""),
            "  ",
            (f" {alarms.upper()} ", "bold white on red") if alarms else ("no alarms", "dim"),
        )

    def _limits(self, width: int) -> RenderableType:
        if self._last is None or self._last.data is None:
            return ""
        data = self._last.data
        items = (
            f"load cut below {data.over_discharge_voltage:.2f} V",
            f"battery full above {data.battery_full_voltage:.2f} V",
            f"reserved {data.reserved.hex(' ').upper()}",
        )
        return Padding(joined([Text(item) for item in items], width - 1), (0, 0, 0, 1), style="dim")

    def _message(self, width: int) -> list[Text]:
        """Return the last error, as long as it matters."""
        if self._why_old is not None:
            return message_lines(Text(self._why_old, style="red"), width, _MOST_MESSAGE_ROWS)
        if self._error is None:
            return []
        if self._recovered_at is not None and self._clock() > self._recovered_at + _RECOVERED:
            return []
        failed = f"{self._failures} in a row failed, " if self._failures > 1 else ""
        what = str(self._error.error).removeprefix(f"{self._address}: ")
        message = f"{clock_time(self._error.time)} {failed}{what}"
        if self._recovered_at is not None:
            message = f"recovered at {clock_time(self._recovered_at)}; before: {message}"
        return message_lines(Text(message, style="red" if self._failures else "dim"), width, _MOST_MESSAGE_ROWS)


def footer(interval: float | None) -> Text:
    """Return the last line of a live view."""
    if interval is None:
        return Text("sends nothing; q ends", style="dim")
    return Text(f"every {interval:g} s; q ends", style="dim")


def clock_time(time: float) -> str:
    """Return the local time of day."""
    return datetime.fromtimestamp(time).astimezone().strftime("%H:%M:%S")
