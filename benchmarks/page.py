"""The results of a benchmark, and their output: on the terminal, and in ``docs/performance.md``."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.measure import FULL, QUICK, TINY, Effort, python_with

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"

_BEGIN = "<!-- measured: written by `make bench`; text between here and the end is overwritten -->"
_END = "<!-- measured: end -->"

_PACKAGES = ("anyio", "uvloop", "pymodbus", "tmodbus", "pyserial-asyncio", "serialx", "numpy")


@dataclass(frozen=True)
class Target:
    """Something to reach, and whether it was."""

    what: str
    wanted: str
    measured: str
    met: bool | None
    """None where it could not be measured."""

    @property
    def verdict(self) -> str:
        """One word."""
        return "not measured" if self.met is None else "yes" if self.met else "**no**"


@dataclass(frozen=True)
class Table:
    """A heading, the names of the columns, and the rows."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """Write it down."""
        lines = [self.columns, ["---", *["---:"] * (len(self.columns) - 1)], *self.rows]
        return "\n".join([f"{self.title}", "", *("| " + " | ".join(line) + " |" for line in lines)])


@dataclass(frozen=True)
class Row:
    """All that one benchmark found."""

    name: str
    command: str
    how: str
    """What was measured, and how."""
    targets: list[Target] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        """Write the section of the page."""
        parts = [f"### {self.name}", f"Run it alone: `{self.command}`", self.how]
        parts += [table.markdown() for table in self.tables]
        if self.notes:
            parts.append("\n".join(f"- {note}" for note in self.notes))
        return "\n\n".join(parts)


def machine() -> str:
    """Describe the machine that was used, without its name."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    packages = []
    for package in _PACKAGES:
        try:
            packages.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    newer = python_with("tmodbus")
    second = ""
    if newer is not None and newer != sys.executable:
        second = f"; for tmodbus and the contenders next to it {_version_of(newer)}"
    system = f"{platform.system()} {platform.release().partition('-')[0]}"
    return (
        f"{cores} cores of {model}, {system}, {platform.python_implementation()} {platform.python_version()}"
        f"{second}; {', '.join(packages)}."
    )


def _version_of(python: str) -> str:
    import subprocess

    code = (
        "import platform; from importlib.metadata import version as v; "
        "print('CPython', platform.python_version(), 'with tmodbus', v('tmodbus'), 'and uvloop', v('uvloop'))"
    )
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def targets_table(rows: Sequence[Row]) -> Table:
    """Return the table of all targets."""
    return Table(
        "Targets:",
        ("", "what", "target", "measured", "reached"),
        [
            (row.name, target.what, target.wanted, target.measured, target.verdict)
            for row in rows
            for target in row.targets
        ],
    )


def write_page(rows: Sequence[Row], effort: Effort, minutes: float, page: Path = PAGE) -> None:
    """Insert the figures between the marks of the page. The text around them is kept."""
    mode = {"full": "`make bench`", "quick": "`make bench QUICK=1`: short, so noisier", "tiny": "a smoke test"}
    how = (
        f"By {mode[effort.name]}, in {minutes:.0f} minutes. Each figure is a median, with minimum and maximum of the "
        "repeats in brackets. Ratios compare contenders that ran directly after each other."
    )
    parts = [
        f"Measured on {machine()} {how}",
        targets_table(rows).markdown(),
        *(row.markdown() for row in rows),
    ]
    text = placed(page.read_text(encoding="utf-8"), _BEGIN, "\n\n".join(parts), _END)
    page.write_text(text, encoding="utf-8")


def placed(text: str, begin: str, content: str, end: str) -> str:
    """Return *text* with *content* in place of the text between two marks."""
    before, _, rest = text.partition(begin)
    after = rest.partition(end)[2]
    return f"{before}{begin}\n\n{content}\n\n{end}{after}"


def main(run: Callable[[Effort], Row], arguments: Sequence[str] | None = None) -> int:
    """Run one benchmark alone and print its results."""
    parser = argparse.ArgumentParser(description=(sys.modules["__main__"].__doc__ or "").partition("\n")[0])
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_const", dest="effort", const=QUICK, help="seconds instead of minutes")
    size.add_argument("--tiny", action="store_const", dest="effort", const=TINY, help="only see that it runs")
    parser.set_defaults(effort=FULL)
    row = run(parser.parse_args(arguments).effort)
    print(row.markdown(), "\n\n" + targets_table([row]).markdown())
    return 0
