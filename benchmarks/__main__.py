"""All benchmarks, side by side, and the pages that they are written to: ``make bench``, or ``python -m benchmarks``."""

from __future__ import annotations

import argparse
import sys
import time

from benchmarks import (
    blocking,
    captures,
    decode,
    fleet,
    gateway,
    gateway_streams,
    hostile_bytes,
    importing,
    round_trip,
    scaling,
    serial_line,
)
from benchmarks.measure import FULL, QUICK
from benchmarks.page import targets_table, write_page

ROWS = (decode, hostile_bytes, captures, round_trip, blocking, serial_line, fleet, gateway, gateway_streams, importing)


def main() -> int:
    """Measure everything, print it and write it down."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--quick", action="store_const", dest="effort", const=QUICK, help="within 4 minutes; noisier")
    parser.add_argument("--no-page", action="store_true", help="leave the pages in docs/ as they are")
    parser.set_defaults(effort=FULL)
    options = parser.parse_args()
    begun = time.monotonic()
    rows = []
    for module in ROWS:
        since = time.monotonic()
        row = module.run(options.effort)
        print(row.markdown(), "\n", flush=True)
        print(f"{module.COMMAND}: {time.monotonic() - since:.0f} s", file=sys.stderr, flush=True)
        rows.append(row)
    print(targets_table(rows).markdown())
    if not options.no_page:
        write_page(rows, options.effort, (time.monotonic() - begun) / 60)
        scaling.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
