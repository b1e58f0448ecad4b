"""What the live views show, drawn at the sizes of terminals."""

from __future__ import annotations

import io
import re
from typing import NamedTuple

import pytest
from rich.console import Console, RenderableType

from tracer_async import ConnectionState, LinkTimeoutError, Reading, RealtimeData, ResponseTimeoutError, SessionStats
from tracer_async.cli.fleet_view import FleetView
from tracer_async.cli.view import View

STATS = SessionStats(7, 5, 2, 1, 0, 0, 6, 3, 11, 1)
DATA = RealtimeData.from_bytes(bytes.fromhex("CE04A4060000E8035604A005010001500000000037E80300"))
QUIET = DATA._replace(load_short_circuit=False, overload=False, battery_over_voltage=False, over_discharge=False)
ALARMS = QUIET._replace(load_short_circuit=True, overload=True, battery_over_voltage=True, over_discharge=True)
URL = "tcp://controller.example:8088"
ERROR = ResponseTimeoutError(URL, 0xA0, 3.0, 3)
WIDTHS = [40, 60, 80, 120, 200]


class Status(NamedTuple):
    stats: SessionStats = STATS
    state: ConnectionState = ConnectionState.UP


def drawn(view: RenderableType, width: int, height: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    console.print(view)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def view_with(data: RealtimeData, clock: Clock | None = None) -> View:
    view = View(URL, 2.0, clock or Clock())
    view.follow({URL: Status()})
    view.take(URL, Reading(1000.0, data))
    return view


@pytest.mark.parametrize("height", [16, 24, 60])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("data", [QUIET, ALARMS, QUIET._replace(load_on=False)], ids=["on", "alarms", "off"])
def test_every_number_is_there_at_every_size(data: RealtimeData, width: int, height: int) -> None:
    lines = drawn(view_with(data), width, height)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    rows = [line.replace("│", " ") for line in lines]
    words = " ".join(" ".join(rows).split())
    for number in (
        f"Battery {data.battery_voltage:.2f} V {data.battery_temperature} °C",
        f"PV {data.pv_voltage:.2f} V",
        f"Charge {data.charge_current:.2f} A {data.charge_power:.1f} W",
        f"Load {data.load_current:.2f} A {data.load_power:.1f} W {'on' if data.load_on else 'off'}",
    ):
        assert number in words
    for alarm in ("LOAD SHORT CIRCUIT", "OVERLOAD", "BATTERY OVER-VOLTAGE", "OVER-DISCHARGE"):
        assert (alarm in words) == (data is ALARMS)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (80, 60), (40, 24)])
def test_an_error_is_there_with_its_reason_and_what_is_shown_is_marked_as_old(width: int, height: int) -> None:
    view = view_with(QUIET)
    view.take(URL, Reading(1002.0, None, ERROR))
    view.follow({URL: Status(state=ConnectionState.DOWN)})
    lines = drawn(view, width, height)
    assert len(lines) <= height
    text = " ".join(" ".join(lines).split())
    for words in ("not connected", "old: read at", "no answer to command A0", "Nothing was received", "powered"):
        assert words in text


def test_an_error_disappears_after_the_controller_has_answered_again() -> None:
    clock = Clock()
    view = view_with(QUIET, clock)
    view.take(URL, Reading(1002.0, None, ERROR))
    assert "no answer" in "\n".join(drawn(view, 80, 24))
    clock.now = 2000.0  # still none
    assert "no answer" in "\n".join(drawn(view, 80, 24))
    view.take(URL, Reading(2000.0, QUIET))
    assert "recovered at" in "\n".join(drawn(view, 80, 24))
    clock.now = 2011.0
    text = "\n".join(drawn(view, 80, 24))
    assert "no answer" not in text
    assert "recovered" not in text


@pytest.mark.parametrize("width", WIDTHS)
def test_after_the_end_nothing_speaks_of_what_goes_on(width: int) -> None:
    view = view_with(QUIET)
    assert "every 2 s; q ends" in drawn(view, width, 24)[-1]
    view.end()
    text = "\n".join(drawn(view, width, 24))
    for words in ("every", "ends", "now"):
        assert words not in text
    assert "read at" in text


def test_a_polled_reading_is_called_present_only_for_seconds_and_its_age_grows() -> None:
    clock = Clock()
    view = View(URL, 600.0, clock)
    view.follow({URL: Status()})
    view.take(URL, Reading(1000.0, QUIET, age=0.057))
    lines = drawn(view, 80, 24)
    assert "─ now ─" in lines[1]
    assert "reading at most 57 ms old" in "\n".join(lines)
    clock.now = 1590.0
    for state in (ConnectionState.UP, ConnectionState.CONNECTING):
        view.follow({URL: Status(state=state)})
        lines = drawn(view, 80, 24)
        assert "─ read at " in lines[1]
        assert "now" not in lines[1]
        assert "reading at most 591 s old" in "\n".join(lines)


def test_a_reading_of_unknown_age_is_never_called_present() -> None:
    assert "─ read at " in drawn(view_with(QUIET), 80, 24)[1]


def test_after_the_end_the_age_is_that_of_the_end() -> None:
    clock = Clock()
    view = View(URL, 600.0, clock)
    view.take(URL, Reading(1000.0, QUIET, age=0.057))
    clock.now = 1005.0
    view.end()
    clock.now = 1590.0
    assert "reading at most 5057 ms old" in "\n".join(drawn(view, 80, 24))


def test_the_labels_of_a_chart_are_the_ends_of_its_scale() -> None:
    view = View(URL, 2.0)
    for index in range(50):
        data = QUIET._replace(battery_voltage=12 + index / 100, charge_current=1.0 + index / 10)
        view.take(URL, Reading(1000.0 + 2 * index, data))
    rows = [line.strip("│ ") for line in drawn(view, 80, 60)]
    assert sum(row.endswith("12.49 V") for row in rows) == 1  # the top of the battery's chart
    assert sum(row.endswith("12.00 V") for row in rows) == 1  # and its bottom
    charge = [row for row in rows if row.endswith("W")]
    assert charge[0].endswith(f"{5.9 * 12.49:.1f} W")
    assert charge[1].endswith(f"{1.0 * 12.0:.1f} W")  # not 0: every scale follows the same rule


def test_the_view_of_a_small_terminal_has_one_row_for_each_chart() -> None:
    assert "12.20-12.40 V" in "\n".join(drawn(view_with(QUIET), 60, 16))


def test_statistics_are_there_where_there_is_room() -> None:
    text = "\n".join(drawn(view_with(QUIET), 80, 24))
    assert "3 damaged frames" in text
    assert "11 stray bytes" in text


@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_ends_between_a_number_and_what_it_counts(width: int) -> None:
    rows = [line.strip("│ ") for line in drawn(view_with(QUIET), width, 60)]
    for text in (
        *("7 requests", "5 answers", "2 timeouts", "1 late", "0 unsolicited", "0 echoes", "6 frames"),
        *("3 damaged frames", "11 stray bytes", "1 connection"),
        *("load cut below 11.10 V", "battery full above 14.40 V", "reserved 00 00 50 00"),
    ):
        assert any(text in re.split(", ?", row) for row in rows), text


# Several controllers


def fleet_view(count: int) -> FleetView:
    view = FleetView([f"tcp://bridge-{number}:8088" for number in range(count)], 2.0, Clock())
    for number in range(count):
        view.take(f"tcp://bridge-{number}:8088", Reading(1000.0, QUIET._replace(load_on=number % 2 == 0)))
    return view


@pytest.mark.parametrize("width", WIDTHS)
def test_each_controller_has_one_line_with_its_numbers(width: int) -> None:
    lines = drawn(fleet_view(3), width, 24)
    assert max(map(len, lines)) <= width
    for number, state in enumerate(["on", "off", "on"]):
        (line,) = [line for line in lines if f"bridge-{number}:8088" in line]
        words = line.split()
        for text in ("12.30", f"{QUIET.charge_power:.1f}", f"{QUIET.load_power:.1f}", state):
            assert text in words


def test_a_controller_that_fails_has_its_reason_below() -> None:
    view = fleet_view(3)
    view.take("tcp://bridge-1:8088", Reading(1002.0, None, ResponseTimeoutError("tcp://bridge-1:8088", 0xA0, 3.0, 3)))
    lines = drawn(view, 80, 24)
    assert lines[0].strip().startswith("2 of 3 controllers answer")
    assert any("tcp://bridge-1:8088: no answer" in line for line in lines)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_reason_of_a_failure_is_there_in_full_where_there_is_room(width: int) -> None:
    error = LinkTimeoutError("tcp://bridge-1:8088", "no connection for 5 s: refused. Is the port right?")
    view = fleet_view(3)
    view.take("tcp://bridge-1:8088", Reading(1002.0, None, error))
    assert str(error) in " ".join(" ".join(drawn(view, width, 12)).split())
    lines = drawn(view, width, 7)
    assert len(lines) == 7
    assert "tcp://bridge-1:8088: no" in lines[5]


def test_on_a_wide_terminal_the_numbers_stay_beside_the_names() -> None:
    (line,) = [line for line in drawn(fleet_view(3), 200, 24) if "bridge-2:8088" in line]
    assert line.strip().startswith("bridge-2:8088 12.30 ")


def test_alarms_of_several_controllers_are_below() -> None:
    view = fleet_view(2)
    view.take("tcp://bridge-1:8088", Reading(1000.0, ALARMS))
    assert any("OVERLOAD" in line and "bridge-1" in line for line in drawn(view, 120, 24))


@pytest.mark.parametrize("height", [8, 24])
def test_more_controllers_than_rows_are_counted(height: int) -> None:
    lines = drawn(fleet_view(100), 60, height)
    assert len(lines) <= height
    shown = sum("bridge-" in line for line in lines)
    assert f"and {100 - shown} more" in "\n".join(lines)


def test_names_that_are_too_long_keep_the_end_that_tells_them_apart() -> None:
    view = FleetView([f"tcp://a-long-name-of-a-bridge:808{number}" for number in range(2)], 2.0)
    text = "\n".join(drawn(view, 40, 24))
    assert ":8080" in text
    assert ":8081" in text
