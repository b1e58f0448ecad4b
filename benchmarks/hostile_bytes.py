"""Hostile bytes: the cost per byte of streams built to be slow to decode, in 1 MB and in 8 MB."""

from __future__ import annotations

import sys
import time
from functools import partial

from benchmarks.measure import Effort, Spread, best_time, interleaved, ratios
from benchmarks.page import Row, Table, Target, main
from benchmarks.replies import HOSTILE, ending_in_7f, hostile
from tracer_async.protocol import FrameDecoder

COMMAND = "python -m benchmarks.hostile_bytes"


def decode(stream: bytes, chunk: int) -> None:
    """Decode a stream in chunks."""
    feed = FrameDecoder().feed
    for at in range(0, len(stream), chunk):
        feed(stream[at : at + chunk])


def worst_length(size: int) -> tuple[int, bytes]:
    """Return which length costs most when the claim ends in 7F, and the bytes that do it."""
    costs = []
    for length in range(201):
        for filler in range(3):
            unit = ending_in_7f(length, filler)
            if unit is not None:
                stream = hostile(unit, size)
                begun = time.process_time()
                decode(stream, 4096)
                costs.append((time.process_time() - begun, length, unit))
    _, length, unit = max(costs)
    return length, unit


def run(effort: Effort) -> Row:
    """Measure it."""
    small, large = effort.pick((1 << 20, 8 << 20), (1 << 17, 1 << 20), (1 << 10, 8 << 10))
    length, unit = worst_length(effort.pick(1 << 16, 1 << 14, 1 << 10))
    kinds = {**HOSTILE, f"headers whose claim ends in 7F, {length} bytes: the worst length": unit}
    names = f"{small >> 10:,} KiB", f"{large >> 10:,} KiB"
    rows = []
    worst = growth = 0.0
    for kind, bytes_of_it in kinds.items():
        for chunk, cutting in ((4096, "4 KiB"), (large, "one piece")):
            calls = {size: partial(decode, hostile(bytes_of_it, size), chunk) for size in (small, large)}
            taken = interleaved(
                {size: partial(best_time, call, 0.0) for size, call in calls.items()}, effort.pick(3, 3, 1)
            )
            cost = {size: [1e6 * each / size for each in times] for size, times in taken.items()}
            grown = ratios(cost[large], cost[small])
            spreads = Spread.of(cost[small]), Spread.of(cost[large])
            rows.append((kind, cutting, *(spread.text("{:.3f}") for spread in spreads), grown.text("{:.2f}")))
            worst = max(worst, *(spread.median for spread in spreads))
            growth = max(growth, grown.median)
    return Row(
        "Hostile bytes",
        COMMAND,
        f"Streams of {names[0]} and of {names[1]} that repeat one pattern, in chunks of 4 KiB and in one piece. If "
        "the work is linear, a byte costs the same in both. The worst length is the slowest of all lengths whose "
        "frame can end in 7F. In the overlapping headers, command and length of one header are sync bytes of the "
        "next.",
        [
            Target(f"cost a byte, {names[1]} over {names[0]}", "at most 1.5", f"{growth:.2f} at worst", growth <= 1.5),
            Target("cost a byte", "under 1.5 µs", f"{worst:.2f} µs at worst", worst < 1.5),
        ],
        [Table("", ("bytes", "fed", f"µs a byte, {names[0]}", f"µs a byte, {names[1]}", "ratio"), rows)],
    )


if __name__ == "__main__":
    sys.exit(main(run))
