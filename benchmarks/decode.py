"""Streaming decode: chunks of bytes in, frames out, the CRC checked."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

from benchmarks import reference
from benchmarks.measure import Effort, Spread, best_time, interleaved, ratios
from benchmarks.page import Row, Table, Target, main
from benchmarks.replies import REPLY_SIZE, cut, cut_at_random, damaged, replies
from tracer_async.protocol import CorruptFrame, FrameDecoder, Noise

PROJECT = "tracer_async"
OLD = "old algorithm"

COMMAND = "python -m benchmarks.decode"


class _Decoder(Protocol):
    def feed(self, data: bytes) -> Iterable[object]: ...


DECODERS: dict[str, Callable[[], _Decoder]] = {
    PROJECT: FrameDecoder,
    OLD: reference.OldDecoder,
    "byte-wise state machine, table of 256": reference.StateMachine,
    "header regex, array('H') of 65,536": reference.HeaderRegex,
}
C = "C, table of 256"

# How the bytes come, and how many times the old algorithm's speed is to be reached.
WANTED = {
    "4 KiB at a time": 25,
    "1 to 64 bytes at a time": 18,
    "a byte at a time": 7,
    "4 KiB, 10 % of the bytes bad": 60,
}


def streams(frames: int) -> dict[str, list[bytes]]:
    """Return the same replies, cut and damaged in each way."""
    stream = b"".join(replies(frames))
    return dict(
        zip(
            WANTED,
            (cut(stream, 4096), cut_at_random(stream, 64), cut(stream, 1), cut(damaged(stream, 0.1), 4096)),
            strict=True,
        )
    )


def decode(decoder: Callable[[], _Decoder], chunks: list[bytes]) -> None:
    """Decode it all."""
    feed = decoder().feed
    for chunk in chunks:
        feed(chunk)


def count(decoder: Callable[[], _Decoder], chunks: list[bytes]) -> int:
    """Return how many good frames a decoder finds."""
    feed = decoder().feed
    return sum(not isinstance(found, CorruptFrame | Noise) for chunk in chunks for found in feed(chunk))


def run(effort: Effort) -> Row:
    """Measure it."""
    frames = effort.pick(1000, 500, 20)
    repeats = effort.pick(7, 3, 1)
    seconds = effort.pick(0.3, 0.1, 0.0)
    decoders = dict(DECODERS)
    notes = []
    if reference.compiler():
        decoders[C] = reference.CDecoder
    else:
        notes.append("No C compiler here, so no row for C.")
    rows = []
    targets = []
    for cutting, chunks in streams(frames).items():
        # Calls of C out of Python would be all that is measured with smaller chunks.
        taking_part = {name: make for name, make in decoders.items() if name != C or cutting.startswith("4 KiB")}
        found = {name: count(make, chunks) for name, make in taking_part.items()}
        times = interleaved(
            {name: partial(best_time, partial(decode, make, chunks), seconds) for name, make in taking_part.items()},
            repeats,
        )
        for name, taken in times.items():
            a_frame = Spread.of(1e9 * each / frames for each in taken)
            faster = ratios(times[OLD], taken)
            rows.append((cutting, name, a_frame.text(), faster.text("{:,.1f}"), f"{found[name]:,} of {frames:,}"))
        reached = ratios(times[OLD], times[PROJECT])
        wanted = WANTED[cutting]
        targets.append(
            Target(
                f"decode, {cutting}",
                f"at least {wanted} times the old algorithm",
                f"{reached.text('{:,.1f}')} times",
                reached.median >= wanted,
            )
        )
        if C in times and cutting == "4 KiB at a time":
            notes.append(
                f"C is {ratios(times[PROJECT], times[C]).text('{:,.0f}')} times the project's speed at 4 KiB a time."
            )
    return Row(
        "Streaming decode",
        COMMAND,
        f"{frames:,} different replies of {REPLY_SIZE} bytes, in chunks. Each decoder checks sync bytes, length, CRC "
        "and end byte, and returns the good frames. With bad bytes, one byte in ten, at random places, is changed; "
        "the time is per frame that was sent. The project's decoder also reports each damaged frame and all noise, "
        "the others do not. The time is that of the fastest of several passes.",
        targets,
        [Table("", ("bytes come", "decoder", "ns a frame", "times the old algorithm", "good frames found"), rows)],
        notes,
    )


if __name__ == "__main__":
    sys.exit(main(run))
