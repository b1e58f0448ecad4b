"""A reading as a table for people: every field, with its unit."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from tracer_async import Reading
from tracer_async.cli.formats import local
from tracer_async.protocol import RealtimeData
from tracer_async.records import rounded_age

__all__ = ["ALARMS", "alarm_words", "reading_table"]

ALARMS = {
    "overload": "overload",
    "load_short_circuit": "load short circuit",
    "battery_over_voltage": "battery over-voltage",
    "over_discharge": "over-discharge",
}
"""The flags that report a problem, and their words."""


def alarm_words(data: RealtimeData) -> str:
    """Return the active alarms in words; empty if there are none."""
    return ", ".join(words for name, words in ALARMS.items() if getattr(data, name))


def reading_table(address: str, reading: Reading) -> Table:
    """Return a row for each field of a reading that has data, for its powers, and for its age."""
    data = reading.data
    if data is None:
        raise ValueError("a reading without data has no table")
    table = Table(
        box=box.ROUNDED,
        show_header=False,
        title=Text(address, style="bold"),
        caption=local(reading.time, " "),
        title_justify="left",
        caption_justify="left",
    )
    table.add_column()
    table.add_column(justify="right")
    table.add_column()

    def rows(*named: tuple[str, str, str]) -> None:
        for name, value, unit in named:
            table.add_row(name, value, unit)
        table.add_section()

    rows(
        ("Battery voltage", f"{data.battery_voltage:.2f}", "V"),
        ("Battery temperature", f"{data.battery_temperature}", "°C"),
        ("Over-discharge voltage", f"{data.over_discharge_voltage:.2f}", "V"),
        ("Battery-full voltage", f"{data.battery_full_voltage:.2f}", "V"),
    )
    rows(
        ("PV voltage", f"{data.pv_voltage:.2f}", "V"),
        ("Charge current", f"{data.charge_current:.2f}", "A"),
        ("Charge power", f"{data.charge_power:.2f}", "W"),
    )
    rows(
        ("Load current", f"{data.load_current:.2f}", "A"),
        ("Load power", f"{data.load_power:.2f}", "W"),
    )
    table.add_row("Load", _word(data.load_on, "on", "off"))
    table.add_row("Charging", _word(data.charging))
    table.add_row("Battery full", _word(data.battery_full))
    for name, words in ALARMS.items():
        table.add_row(words[0].upper() + words[1:], _alarm(getattr(data, name)))
    table.add_section()
    age = rounded_age(reading.age)
    table.add_row("Age, at most", "unknown" if age is None else f"{age:.3f}", "s", style="dim")
    table.add_row("Reserved bytes", data.reserved.hex(" ").upper(), "hex", style="dim")
    return table


def _word(active: bool, yes: str = "yes", no: str = "no") -> Text:
    return Text(yes, style="green") if active else Text(no)


def _alarm(active: bool) -> Text:
    return Text("ALARM", style="bold white on red") if active else Text("no")
