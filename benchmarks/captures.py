"""Bulk decode: a whole capture into NumPy columns, compared with a decoder in C that fills the same records.

The streams and the decoder in C are those of ``benchmarks/bulk.py``, which shows more details when it is run alone.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.measure import Effort, Spread, has, interleaved, ratios, why_without
from benchmarks.page import Row, Table, Target, main
from benchmarks.reference import OldDecoder, compiler

COMMAND = "python -m benchmarks.captures"

PROJECT = "decode_capture"
C = "C, fills the same records"
OLD = "old algorithm"

HOW = (
    "A recording in memory, replies of 36 bytes, whole and with every tenth reply damaged, is decoded to one "
    "structured array. Also measured: the same in chunks with bounded memory, and the streaming decoder with a "
    "`RealtimeData` for each reply. The slow decoders get a smaller part of the stream."
)


def _seconds(decode: Callable[[bytes], object], stream: bytes) -> float:
    begun = time.perf_counter()
    decode(stream)
    return time.perf_counter() - begun


def run(effort: Effort) -> Row:
    """Measure it."""
    wanted = (("bulk decode over C", "at most 4 times"), ("bulk decode", "at least 300 times the old algorithm"))
    missing = why_without("numpy") if not has("numpy") else "" if compiler() else "not measured: no C compiler here"
    if missing:
        return Row("Bulk decode", COMMAND, HOW, [Target(*target, "", None) for target in wanted], notes=[missing])
    from benchmarks import bulk
    from tracer_async.capture import CaptureFormat, decode_capture

    frames = effort.pick(500_000, 100_000, 200)
    targets: list[Target] = []
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        in_c = bulk.compiled(Path(folder))
        for damaged, kind in ((False, "whole"), (True, "a tenth damaged")):
            stream = bulk.stream_of(frames, damaged=damaged)
            frames = len(stream) // bulk.REPLY_SIZE
            if not (decode_capture(stream, CaptureFormat.BINARY).readings == in_c(stream)).all():
                raise AssertionError("the bulk decoder and C do not agree")
            decoders: dict[str, tuple[Callable[[bytes], object], int]] = {
                C: (in_c, frames),
                PROJECT: (bulk.bulk, frames),
                "decode_chunks": (bulk.bulk_in_chunks, frames),
                "FrameDecoder and from_bytes": (bulk.streaming, max(1, frames // 20)),
                OLD: (lambda part: OldDecoder().feed(part), max(1, frames // 500)),
            }
            taken = interleaved(
                {
                    name: partial(_seconds, decode, stream[: count * bulk.REPLY_SIZE])
                    for name, (decode, count) in decoders.items()
                },
                effort.pick(11, 4, 1),
            )
            a_frame = {name: [1e9 * each / decoders[name][1] for each in times] for name, times in taken.items()}
            for name, times in a_frame.items():
                over_c = ratios(times, a_frame[C])
                rows.append((kind, name, Spread.of(times).text(), over_c.text("{:.1f}")))
            if not damaged:
                over_c, faster = ratios(a_frame[PROJECT], a_frame[C]), ratios(a_frame[OLD], a_frame[PROJECT])
                targets = [
                    Target(*wanted[0], f"{over_c.text('{:.1f}')} times", over_c.median <= 4),
                    Target(*wanted[1], f"{faster.text('{:,.0f}')} times", faster.median >= 300),
                ]
    return Row(
        "Bulk decode",
        COMMAND,
        f"{frames:,} replies. {HOW}",
        targets,
        [Table("", ("capture", "decoder", "ns a frame", "times C"), rows)],
    )


if __name__ == "__main__":
    sys.exit(main(run))
