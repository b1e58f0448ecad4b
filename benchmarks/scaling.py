"""The resources for a number of controllers, calculated from measurements: the tables of ``docs/scaling.md``.

The figures are those of the fleet in ``docs/performance.md``, so the two pages cannot disagree.
"""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from typing import NamedTuple

from benchmarks.page import PAGE, Table, placed
from benchmarks.replies import replies
from tracer_async import Reading
from tracer_async.cli.formats import to_json
from tracer_async.protocol import Frame, FrameDecoder, RealtimeData

COMMAND = "python -m benchmarks.scaling"
SCALING_PAGE = PAGE.parent / "scaling.md"

BEGIN = f"<!-- calculated by `{COMMAND}` from performance.md; text between here and the end is overwritten -->"
END = "<!-- calculated: end -->"

# The planned share of a core. The rest is for other work of the service, and for peaks.
_FILLED = 0.5


_ADDRESS = "tcp://bridge-000001.example:8088"


class Measured(NamedTuple):
    """One row of the fleet's table."""

    loop: str
    size: int
    cpu: float
    """Per cent of a core, at a poll a second each."""
    cost: float
    """Microseconds of CPU a poll."""
    memory: float
    """Kilobytes a controller."""
    missed: int
    late: float
    """Milliseconds that a request came after its tick, at p99."""


def fleet_figures(page: str) -> list[Measured]:
    """Read what was measured of `Fleet` from the text of the page."""
    found = []
    for line in page.splitlines():
        cells = [cell.strip().replace(",", "") for cell in line.strip("|").split("|")]
        if cells[0] == "tracer_async.Fleet":
            # A cell is "median (least-most)".
            cpu, cost, memory, missed, _, late = (float(cell.split()[0]) for cell in cells[3:])
            found.append(Measured(cells[1], int(cells[2]), cpu, cost, memory, int(missed), late))
    return found


def held_by_one_process(figures: list[Measured]) -> Table:
    """Return what was measured, a row for each fleet."""
    columns = ("event loop", "controllers, each polled every second", "CPU, % of a core", "memory, MB", "ticks missed",
               "late at p99, ms")  # fmt: skip
    rows = [
        (
            each.loop,
            f"{each.size:,}",
            f"{each.cpu:.0f}",
            f"{each.size * each.memory / 1e3:.0f}",
            f"{each.missed:,}",
            f"{each.late:.1f}",
        )
        for each in figures
    ]
    return Table("", columns, rows)


def calculated(figures: list[Measured]) -> Table:
    """Return what 10,000 and 1,000,000 controllers take."""
    largest = max(figures, key=lambda each: each.size)
    reading_size = len(_reading_as_json()) + 1
    rows = []
    for size in (10_000, 1_000_000):
        for interval in (1, 5, 60):
            polls = size / interval
            cores = polls * largest.cost / 1e6
            processes = max(math.ceil(cores / _FILLED), math.ceil(size / largest.size))
            rows.append(
                (
                    f"{size:,}",
                    f"{interval} s",
                    f"{polls:,.0f}",
                    f"{cores:,.2f}",
                    f"{processes:,}",
                    f"{size * largest.memory / 1e6:,.2f}",
                    f"{polls * reading_size / 1e6:,.2f}",
                )
            )
    columns = ("controllers", "each polled every", "polls a second", "cores busy", "processes", "memory, GB",
               "readings as JSON, MB a second")  # fmt: skip
    return Table("", columns, rows)


def _reading_as_json() -> str:
    (frame,) = FrameDecoder().feed(replies(1)[0])
    assert isinstance(frame, Frame)
    return to_json(_ADDRESS, Reading(1.7e9, RealtimeData.from_bytes(frame.data), age=0.04))


def calculation(performance: str) -> str:
    """Return the text for the place between the marks of the page."""
    figures = fleet_figures(performance)
    largest = max(figures, key=lambda each: each.size)
    begun = re.search(r"Measured on (.*?), Linux", performance)
    machine = begun.group(1) if begun else "one machine"
    inputs = (
        f"The table below uses the figures with {largest.size:,} controllers on {largest.loop}, on {machine}: "
        f"{largest.cost:.0f} µs of CPU per poll, {largest.memory:.1f} kB per controller. A process gets at most "
        f"{_FILLED:.0%} of a core and at most {largest.size:,} controllers, the largest number that was measured. A "
        f"reading of `{_ADDRESS}` has {len(_reading_as_json()) + 1} bytes, as `tracer-async read --json` prints it."
    )
    return "\n\n".join(["Measured:" + held_by_one_process(figures).markdown(), inputs + calculated(figures).markdown()])


def write(performance: Path = PAGE, scaling: Path = SCALING_PAGE) -> None:
    """Calculate again and replace the tables."""
    text = scaling.read_text(encoding="utf-8")
    scaling.write_text(placed(text, BEGIN, calculation(performance.read_text(encoding="utf-8")), END), encoding="utf-8")


if __name__ == "__main__":
    write()
    sys.exit(0)
