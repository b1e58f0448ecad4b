"""Import: what ``import tracer_async`` costs on top of ``import asyncio, anyio``."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import partial

from benchmarks.measure import ROOT, Effort, Spread, interleaved
from benchmarks.page import Row, Table, Target, main

COMMAND = "python -m benchmarks.importing"

BASE = "import asyncio, anyio"
PROJECT = "import tracer_async"

# Import names of all packages that belong to an extra.
EXTRAS = (
    "serial", "serial_asyncio", "serialx", "click", "rich", "aiomqtt", "paho", "prometheus_client", "aiohttp",
    "aiosqlite", "numpy", "pyarrow", "uvloop", "pymodbus",
)  # fmt: skip


def milliseconds(code: str) -> float:
    """Return what a line of imports takes in a fresh interpreter, its start not counted."""
    timed = f"import time; t = time.perf_counter(); {code}; print(1e3 * (time.perf_counter() - t))"
    return float(_python("-c", timed).stdout)


def extras_imported() -> list[str]:
    """Return the modules of extras that the import loads."""
    return _python("-c", f"import sys, tracer_async; print(*sorted(set(sys.modules) & set({EXTRAS!r})))").stdout.split()


def dearest(count: int) -> list[tuple[str, float]]:
    """Return the modules that cost most by themselves, in milliseconds, beyond those of asyncio and anyio."""
    lines = _python("-X", "importtime", "-c", f"{BASE}; {PROJECT}").stderr.splitlines()
    found = re.findall(r"^import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)$", "\n".join(lines), re.MULTILINE)
    known = set(_python("-c", f"import sys; {BASE}; print(*sys.modules)").stdout.split())
    costs = [(name, int(cost) / 1000) for cost, name in found if name not in known]
    return sorted(costs, key=lambda each: -each[1])[:count]


def _python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True, cwd=ROOT)


def run(effort: Effort) -> Row:
    """Measure it."""
    milliseconds(PROJECT)  # compile the byte code first
    contenders = {code: partial(milliseconds, code) for code in (BASE, PROJECT)}
    times = interleaved(contenders, effort.pick(25, 9, 1))
    more = Spread.of(b - a for a, b in zip(times[BASE], times[PROJECT], strict=True))
    extras = extras_imported()
    rows = [(f"`{code}`", Spread.of(taken).text("{:.1f}")) for code, taken in times.items()]
    return Row(
        "Import",
        COMMAND,
        "Each import in a new interpreter, with cached byte code. The second table is from one run with `-X "
        "importtime`, which itself takes time: it shows where the time goes, not how long it is.",
        [
            Target("import", "at most 60 ms more", f"{more.text('{:.1f}')} ms more", more.median <= 60),
            Target("extras imported", "none", ", ".join(extras) or "none", not extras),
        ],
        [
            Table("", ("import", "ms"), rows),
            Table("", ("module", "ms, own time"), [(f"`{name}`", f"{cost:.1f}") for name, cost in dearest(10)]),
        ],
    )


if __name__ == "__main__":
    sys.exit(main(run))
