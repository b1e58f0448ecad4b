"""Reads what the outputs of `stress.soak_gateway` hold, has it judged, and prints the figures."""

from __future__ import annotations

import json
import re
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

from stress.gateway_judge import Judgement, Key, Made, Shown, decreases, energy_of, judge, missing

__all__ = ["Evidence", "report"]

# Seconds: a reading that is older than this is marked as such by the library, or discarded.
_LONGEST_AGE = 5.0
# How much the process may grow after the first third.
_MOST_GROWTH = {"memory": 4_000_000, "tasks": 2, "descriptors": 2, "threads": 1}
# Seconds before the end of a connection in which readings may be lost with it.
_LAST_MOMENT = 0.5


@dataclass
class Evidence:
    """All that a soak has collected."""

    folder: Path
    interval: float
    seconds: float
    cpu: float
    exit_code: int
    injected: dict[str, int]
    influx_lines: list[str]
    influx_refused: int
    broker_killed: list[float]
    scrapes: list[dict[str, float]]
    census: list[dict[str, int]]
    events: int


def report(evidence: Evidence) -> bool:
    """Judge, and print the figures; return whether all is right."""
    made = _made(evidence.folder / "made.txt")
    states, online = _mqtt(evidence.folder / "mqtt.txt")
    rows = list(_rows(evidence.folder / "history.db"))
    influx = [_fields(line) for line in evidence.influx_lines if ",ok=false" not in line and " ok=false" not in line]
    outputs = {
        "MQTT": judge("MQTT", (_shown_state(*state) for state in states), made, _LONGEST_AGE),
        "SQLite": judge("SQLite", map(_shown_row, rows), made, _LONGEST_AGE),
        "Influx": judge("Influx", (_shown_line(*each) for each in influx), made, _LONGEST_AGE),
    }
    calm = list(_connected(online, evidence.broker_killed))
    wrong = [text for judgement in outputs.values() for text in judgement.wrong]
    lost = list(_lost(outputs, calm))
    back = list(_going_back(states, influx, evidence.scrapes))
    energies = list(_energies(rows, evidence.folder / "energy.json", 3 * evidence.interval))
    dropped = _last(evidence.scrapes, "tracer_output_dropped_total")
    grown = _growth(evidence.census)
    print(f"{'readings made by the controllers':<50} {len(made):>9,} in {evidence.seconds:.0f} s")
    for name, judgement in outputs.items():
        print(f"{f'readings in {name}, each right':<50} {len(judgement.readings):>9,}")
    print(f"{'events in an event stream':<50} {evidence.events:>9,}")
    print("faults of the lines:", ", ".join(f"{kind} {count:,}" for kind, count in sorted(evidence.injected.items())))
    outages = [after - killed for killed, after in zip(evidence.broker_killed, (a for a, _ in calm[1:]), strict=False)]
    if outages:
        print(
            f"broker killed {len(outages)} times; MQTT was back after {median(outages):.1f} s, "
            f"at most {max(outages):.1f} s"
        )
    print(f"Influx stub refused {evidence.influx_refused} batches")
    print(f"energy in the file and in the readings of the database: at most {100 * max(energies):.3f} % apart")
    for name, count in (
        ("WRONG VALUES", len(wrong)),
        ("LOST READINGS", len(lost)),
        ("TOTALS THAT GO BACK", len(back)),
        ("DROPPED", int(dropped)),
    ):
        print(f"{name:<50} {count:>9,}")
    for name, (first, last) in grown.items():
        print(f"{name:<50} {first:>9,} after a third, {last:,} at the end")
    print(f"{evidence.cpu / evidence.seconds:.1%} of a core; exit code {evidence.exit_code}")
    for text in (*wrong[:20], *lost[:20], *back[:20]):
        print("WRONG:", text)
    steady = all(last - first <= _MOST_GROWTH.get(name, last) for name, (first, last) in grown.items())
    return not (wrong or lost or back or dropped or evidence.exit_code) and steady and max(energies) < 0.01


def _made(path: Path) -> dict[Key, Made]:
    made = {}
    with path.open(encoding="ascii") as lines:
        for line in lines:
            controller, ticks, *values = json.loads(line)
            made[controller, ticks] = Made(*values)
    return made


def _lost(outputs: dict[str, Judgement], calm: list[tuple[float, float]]) -> Iterator[str]:
    always = [(0.0, float("inf"))]
    for here, spans in (("SQLite", always), ("Influx", always), ("MQTT", calm)):
        for there, judgement in outputs.items():
            if there != here:
                yield from missing(here, outputs[here], judgement, spans)


# MQTT


def _mqtt(path: Path) -> tuple[list[tuple[str, dict[str, Any]]], list[float]]:
    """Return name and content of each state, and when `online` of the gateway came."""
    states, online = [], []
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            arrived, topic, payload = line.rstrip("\n").split(" ", 2)
            _, name, *kind = topic.split("/")
            if topic == "tracer/bridge/state":
                if payload == "online":
                    online.append(float(arrived))
            elif kind == ["state"]:
                states.append((name, json.loads(payload)))
    return states, online


def _connected(online: Iterable[float], killed: list[float]) -> Iterator[tuple[float, float]]:
    """Return when the gateway was connected to the broker, and the judge as well."""
    moments = sorted(online)
    for begin, end in zip([0.0, *killed], [*killed, float("inf")], strict=True):
        since = next((moment for moment in moments if begin <= moment < end), None)
        if since is not None:
            yield since, end - _LAST_MOMENT


def _shown_state(name: str, state: dict[str, Any]) -> Shown:
    return _shown(name, datetime.fromisoformat(state["time"]).timestamp(), state["age"], state)


def _shown(name: str, time: float, age: float | None, values: dict[str, Any]) -> Shown:
    words = [
        round(values[field] * 100)
        for field in ("pv_voltage", "load_current", "charge_current", "over_discharge_voltage")
    ]
    made = Made(
        round(values["battery_voltage"] * 100),
        values["battery_temperature"],
        int(values["load_on"]),
        int(values["charging"]),
    )
    check = round(values["battery_full_voltage"] * 100)
    return Shown(int(name[1:]), time, age, (words[0], words[1], words[2], words[3]), check, made)


# Influx


def _fields(line: str) -> tuple[str, float, dict[str, Any]]:
    """Return controller, time and fields of a line: the names in it need no escaping."""
    tags, fields, time = re.sub(r'"[^"]*"', '""', line).split(" ")
    values: dict[str, Any] = {}
    for field in fields.split(","):
        name, _, value = field.partition("=")
        if value in ("true", "false"):
            values[name] = value == "true"
        elif value != '""':
            values[name] = float(value.rstrip("i"))
    return tags.partition("controller=")[2], int(time) / 1e9, values


def _shown_line(name: str, time: float, values: dict[str, Any]) -> Shown:
    return _shown(name, time, values["age"], values)


# SQLite


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    database = sqlite3.connect(path)
    database.row_factory = sqlite3.Row
    try:
        assert database.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        query = "SELECT * FROM tracer_readings JOIN tracer_controllers ON key = controller ORDER BY controller, time"
        for row in database.execute(query):
            yield dict(row)
    finally:
        database.close()


def _shown_row(row: dict[str, Any]) -> Shown:
    words = (row["pv_voltage"], row["load_current"], row["charge_current"], row["over_discharge_voltage"])
    # Bits of `flags`: the load is on, and the panel charges.
    made = Made(row["battery_voltage"], row["battery_temperature"], row["flags"] & 1, row["flags"] >> 6 & 1)
    age = None if row["age"] is None else row["age"] / 1000
    return Shown(int(row["id"][1:]), row["time"] / 1000, age, words, row["battery_full_voltage"], made)


# Totals


def _going_back(
    states: list[tuple[str, dict[str, Any]]],
    influx: list[tuple[str, float, dict[str, Any]]],
    scrapes: list[dict[str, float]],
) -> Iterator[str]:
    totals: defaultdict[str, list[float | None]] = defaultdict(list)
    for name, state in states:
        for field in ("charge_energy", "load_energy"):
            totals[f"MQTT {name} {field}"].append(state[field])
    for name, _, values in sorted(influx, key=lambda each: each[1]):
        for field in ("charge_energy", "load_energy"):
            totals[f"Influx {name} {field}"].append(values.get(field))
    for scraped in scrapes:
        for name, value in scraped.items():
            if "_total" in name:
                totals[f"metrics {name}"].append(value)
    for name, series in totals.items():
        yield from decreases(name, series)


def _last(scrapes: list[dict[str, float]], metric: str) -> float:
    return sum(value for name, value in scrapes[-1].items() if name.startswith(metric))


def _energies(rows: list[dict[str, Any]], file: Path, longest_gap: float) -> Iterator[float]:
    """Return for each controller how far its energy in the file is from that of its readings, as a share."""
    powers: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        powers[row["id"]].append((row["time"] / 1000, row["battery_voltage"] * row["charge_current"] / 10_000))
    counted = json.loads(file.read_text())["controllers"]
    for name, series in powers.items():
        expected = energy_of(series, longest_gap)
        yield abs(counted[name]["charge"] - expected) / expected


def _growth(census: list[dict[str, int]]) -> dict[str, tuple[int, int]]:
    """Return each count after the first third, and at the end: medians of three."""
    third = len(census) // 3
    first, last = census[third : third + 3], census[-3:]
    return {
        name: (round(median(each[name] for each in first)), round(median(each[name] for each in last)))
        for name in census[0]
    }
