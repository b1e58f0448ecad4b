"""What all benchmarks share: how much effort to spend, medians with their spread, child processes, pinned cores."""

from __future__ import annotations

import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

K = TypeVar("K")
T = TypeVar("T")

ROOT = Path(__file__).parents[1]

# Where `make bench` puts the second interpreter, for peers that want a newer Python than the project does.
_NEWER_PYTHON = ROOT / ".venv-bench-newer" / "bin" / "python"


@dataclass(frozen=True)
class Effort:
    """How much to measure. Each benchmark says itself what that means for it."""

    name: str

    def pick(self, full: T, quick: T, tiny: T) -> T:
        """Return one of the three."""
        return {"full": full, "quick": quick, "tiny": tiny}[self.name]


FULL, QUICK, TINY = Effort("full"), Effort("quick"), Effort("tiny")


class Spread(NamedTuple):
    """Several measurements of the same thing."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Return the least, the median and the most of *values*."""
        ordered = sorted(values)
        return cls(ordered[0], statistics.median(ordered), ordered[-1])

    def text(self, form: str = "{:,.0f}") -> str:
        """Write it as ``median (low-high)``."""
        low, median, high = (form.format(value) for value in self)
        return median if low == high else f"{median} ({low}-{high})"


def ratios(over: Sequence[float], under: Sequence[float]) -> Spread:
    """Return the ratio of two contenders, turn by turn, so that a slow period of the machine affects both."""
    return Spread.of(a / b for a, b in zip(over, under, strict=True))


def percentile(values: Sequence[float], share: float) -> float:
    """Return the least value that *share* of all values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def best_time(function: Callable[[], object], at_least: float) -> float:
    """Return the CPU seconds of the quickest call: other programs on the machine can only add time."""
    gc.collect()
    best = float("inf")
    until = time.perf_counter() + at_least
    while True:
        begun = time.process_time()
        function()
        best = min(best, time.process_time() - begun)
        if time.perf_counter() >= until:
            return best


def interleaved(contenders: Mapping[K, Callable[[], T]], repeats: int) -> dict[K, list[T]]:
    """Call every contender in turn, *repeats* times over, and return what each returned."""
    results: dict[K, list[T]] = {name: [] for name in contenders}
    for turn in range(repeats):
        # Every other turn runs backwards, so that no contender always follows the same one.
        for name in list(contenders)[:: -1 if turn % 2 else 1]:
            results[name].append(contenders[name]())
    return results


def has(*packages: str) -> bool:
    """Whether all *packages* can be imported here."""
    return all(find_spec(package) is not None for package in packages)


@cache
def python_with(package: str) -> str | None:
    """Return an interpreter that can import *package* and the project: this one, or the second, newer one."""
    if has(package):
        return sys.executable
    if not _NEWER_PYTHON.exists():
        return None
    code = f"import {package}, tracer_async"
    done = subprocess.run([_NEWER_PYTHON, "-c", code], capture_output=True, cwd=ROOT, check=False)
    return str(_NEWER_PYTHON) if done.returncode == 0 else None


def why_without(package: str) -> str:
    """Return the text for a table in which *package* is missing."""
    if package == "tmodbus" and sys.version_info < (3, 12) and not _NEWER_PYTHON.exists():
        return "not measured: tmodbus needs Python 3.12 or later, and `make bench` found none"
    return f"not measured: {package} is not installed (`make bench` installs it)"


@contextmanager
def running(
    module: str, *arguments: object, python: str = sys.executable, env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Run a benchmark module in a separate process until the block ends. Parent and child exchange lines."""
    process = subprocess.Popen(
        [python, "-m", f"benchmarks.{module}", *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **(env or {})},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def heard(process: subprocess.Popen[str]) -> Any:
    """Return the next line that a child printed, which is JSON."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"{process.args!r} ended early, with status {process.wait()}")
    return json.loads(line)


def say(value: object) -> None:
    """Print *value* for the parent process."""
    print(json.dumps(value), flush=True)


def tell(process: subprocess.Popen[str], value: object) -> None:
    """Send *value* to a child's standard input."""
    assert process.stdin is not None
    process.stdin.write(json.dumps(value) + "\n")
    process.stdin.flush()


def pin(core: int) -> None:
    """Keep this process on one core, counted from 0 among those that it may use. Do nothing if not supported."""
    if sys.platform == "linux":
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {allowed[core % len(allowed)]})


# The two states of glibc's malloc. Blocks from 128 KiB on are mapped, faulted in and unmapped one by one until the
# first larger one is freed; from then on blocks up to its size come from the heap. asyncio takes 256 KiB for each read
# of a Protocol and shrinks them to what came, so they are never freed at their full size; but the end of a connection
# does it, or any large object that comes and goes, as one does in the import of tracer_async.
FRESH = {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=131072"}
"""An environment that keeps a process permanently in the first state."""


def settle_malloc() -> None:
    """Bring this process into the second state, which is that of a service which has run for a while."""
    large = bytearray(1 << 20)
    del large


def run_loop(main: Callable[[], Any], loop: str) -> Any:
    """Run the coroutine function *main* on ``"asyncio"`` or ``"uvloop"``."""
    import asyncio

    if loop == "uvloop":
        import uvloop

        return uvloop.run(main())
    return asyncio.run(main())
