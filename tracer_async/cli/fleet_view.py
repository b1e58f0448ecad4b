"""The live view of several controllers: one line each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.table import Table
from rich.text import Text

from tracer_async import ConnectionState, Reading, RealtimeData
from tracer_async.cli.tables import alarm_words
from tracer_async.cli.view import STATES, Client, clock_time, footer
from tracer_async.cli.wrapping import message_lines

__all__ = ["FleetView"]

# From these widths on, a line also has the PV voltage and the time, and then the temperature and words.
_MEDIUM, _WIDE = 60, 80

# Enough for most errors on 40 columns.
_MOST_NOTE_ROWS = 5


class FleetView:
    """What `watch` shows of several controllers. Drawn by rich at any width from 40 on."""

    def __init__(self, names: Iterable[str], interval: float, clock: Callable[[], float] = time.time) -> None:
        self._interval = interval
        self._clock = clock
        self._readings: dict[str, Reading | None] = dict.fromkeys(names)
        self._last_good: dict[str, Reading] = {}
        self._states: Mapping[str, ConnectionState] = {}
        self._ended = False

    def follow(self, tracers: Mapping[str, Client]) -> None:
        """Show the states of the connections."""
        self._states = {name: tracer.state for name, tracer in tracers.items()}

    def take(self, name: str, reading: Reading) -> None:
        """Show *reading* of the controller *name* from now on."""
        self._readings[name] = reading
        if reading.ok:
            self._last_good[name] = reading

    def end(self) -> None:
        """Note that the watch is over: what is shown now does not change any more."""
        self._ended = True

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the header, a line for each controller, and below what is wrong, as far as there is room."""
        width, height = options.max_width, options.height or console.height
        names = list(self._readings)
        # The rows of the table's head, the header and the footer.
        room = max(1, height - 3)
        shown = names if len(names) <= room else names[: max(1, room - 1)]
        grid = self._table(shown, width)
        more = [Text(f"and {len(names) - len(shown)} more")] if len(shown) < len(names) else []
        free = height - len(shown) - len(more) - 3
        notes = self._notes(width, free)
        yield Group(self._header(), grid, *more, *notes, *([] if self._ended else [footer(self._interval)]))

    def _header(self) -> Table:
        good = sum(reading is not None and reading.ok for reading in self._readings.values())
        header = Table.grid(expand=True)
        header.add_column(ratio=1, no_wrap=True)
        header.add_column(justify="right", no_wrap=True)
        now = "" if self._ended else clock_time(self._clock())
        header.add_row(Text(f" {good} of {len(self._readings)} controllers answer", style="bold"), f"{now} ")
        return header

    def _table(self, names: Iterable[str], width: int) -> Table:
        titles = [title for title, (least, _) in _COLUMNS.items() if width >= least]
        room = width - 1 - sum(_COLUMNS[title][1] + 1 for title in titles)
        # Not wider than the names, so that a wide terminal does not move the numbers away from them.
        room = min(room, max(map(len, (*map(_short, self._readings), "controller"))) + 1)
        grid = Table.grid(padding=(0, 1, 0, 0))
        grid.add_column(width=room, no_wrap=True)
        for title in titles:
            grid.add_column(justify="left" if title == "state" else "right", no_wrap=True, width=_COLUMNS[title][1])
        grid.add_row(" controller", *titles, style="dim")
        for name in names:
            cells = self._cells(name)
            grid.add_row(_shortened(name, room), *(cells[title] for title in titles))
        return grid

    def _cells(self, name: str) -> dict[str, Text]:
        reading, good = self._readings[name], self._last_good.get(name)
        state, style = STATES[self._states.get(name, ConnectionState.CONNECTING)]
        if reading is not None:
            state, style = self._words(reading)
        if good is None or good.data is None:
            cells = {title: Text("-", style="dim") for title in _COLUMNS}
        else:
            fresh = reading is good
            cells = {title: Text(text, style="" if fresh else "dim") for title, text in _texts(good.data).items()}
            cells["read at"] = Text(clock_time(good.time), style="" if fresh else "bold red")
        cells["state"] = Text(state, style=style)
        return cells

    def _words(self, reading: Reading) -> tuple[str, str]:
        if reading.data is None:
            return "no reading", "red"
        data = reading.data
        if alarm_words(data):
            return "ALARM", "bold white on red"
        return ("battery full" if data.battery_full else "charging" if data.charging else "not charging"), ""

    def _notes(self, width: int, free: int) -> list[Text]:
        """Return what is wrong with the controllers, in at most *free* lines: in full if there is room for all."""
        notes = [Text(note, style="red") for name in self._readings for note in self._note(name)]
        lines = [line for note in notes for line in message_lines(note, width, _MOST_NOTE_ROWS)]
        if len(lines) > free:
            lines = [line for note in notes for line in message_lines(note, width, 1)]
        return lines[: max(0, free)]

    def _note(self, name: str) -> list[str]:
        reading = self._readings[name]
        if reading is None:
            return []
        if reading.data is not None:
            alarms = alarm_words(reading.data)
            return [f"{name}: {alarms.upper()}"] if alarms else []
        return [f"{clock_time(reading.time)} {reading.error}"]


_COLUMNS = {
    "bat V": (0, 5),
    "PV V": (_MEDIUM, 5),
    "chg W": (0, 6),
    "load W": (0, 6),
    "load": (0, 4),
    "°C": (_WIDE, 4),
    "read at": (_MEDIUM, 8),
    "state": (_WIDE, 13),
}
"""The columns: from which width of the terminal on each is there, and its own width."""


def _short(name: str) -> str:
    return name.removeprefix("tcp://")


def _shortened(name: str, room: int) -> Text:
    """Return a name that fits. Its beginning is left out: at its end controllers differ."""
    name = _short(name)
    return Text(f" {name}" if len(name) < room else f" …{name[2 - room :]}")


def _texts(data: RealtimeData) -> dict[str, str]:
    return {
        "bat V": f"{data.battery_voltage:.2f}",
        "PV V": f"{data.pv_voltage:.2f}",
        "chg W": f"{data.charge_power:.1f}",
        "load W": f"{data.load_power:.1f}",
        "load": "on" if data.load_on else "off",
        "°C": f"{data.battery_temperature}",
    }
