"""The cost of a frame: bulk decoder, a decoder in C, the streaming decoder, and the old program's algorithm.

``python benchmarks/bulk.py [--quick]``; it needs NumPy and gcc.

All decode the same stream of 36-byte replies to A0, once whole and once with every tenth damaged. The repeats of all
decoders take turns, so that a busy moment of the machine affects all of them. The target for the bulk decoder is at
most 4 times the time of the decoder in C, `bulk_reference.c`, which fills the same records.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tracer_async.capture import CaptureFormat, decode_capture, decode_chunks
from tracer_async.protocol import Frame, FrameDecoder, RealtimeData

LIMIT = 4.0
SOURCE = Path(__file__).with_name("bulk_reference.c")
REPLY_SIZE = 36

Decode = Callable[[bytes], int]


def stream_of(frames: int, *, damaged: bool) -> bytes:
    """Replies with data of a summer day that vary from one to the next; of the damaged stream, each tenth has a bit
    turned over somewhere."""
    generator = np.random.default_rng(1)
    replies = []
    for number in range(min(frames, 20_000)):
        data = RealtimeData(
            battery_voltage=generator.integers(1100, 1450) / 100,
            pv_voltage=generator.integers(1500, 4000) / 100,
            load_current=generator.integers(0, 1000) / 100,
            over_discharge_voltage=11.0,
            battery_full_voltage=14.4,
            load_on=bool(number & 64),
            overload=False,
            load_short_circuit=False,
            battery_over_voltage=False,
            over_discharge=False,
            battery_full=bool(number & 512),
            charging=True,
            battery_temperature=int(generator.integers(-10, 50)),
            charge_current=generator.integers(0, 2000) / 100,
            reserved=bytes((0, 0, int(generator.integers(0x14, 0x60)), 0)),
        )
        replies.append(Frame(0, 0xA0, data.to_bytes()).encode(start_up=False))
    stream = bytearray(b"".join(replies) * (frames // len(replies)))
    if damaged:
        for start in range(0, len(stream), 10 * REPLY_SIZE):
            stream[start + int(generator.integers(0, REPLY_SIZE))] ^= 1 << int(generator.integers(0, 8))
    return bytes(stream)


def compiled(folder: Path) -> Callable[[bytes], NDArray[np.void]]:
    """Compile the decoder in C; return a function that gives its readings."""
    library = folder / "bulk_reference.so"
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", library, SOURCE], check=True)
    decode = ctypes.CDLL(str(library)).decode
    decode.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p]
    decode.restype = ctypes.c_size_t
    record = decode_capture(stream_of(1, damaged=False)).readings.dtype

    def readings(stream: bytes) -> NDArray[np.void]:
        found = np.empty(len(stream) // REPLY_SIZE, record)
        return found[: decode(stream, len(stream), found.ctypes.data)]

    return readings


def bulk(stream: bytes) -> int:
    return len(decode_capture(stream, CaptureFormat.BINARY).readings)


def bulk_in_chunks(stream: bytes) -> int:
    return sum(len(chunk.readings) for chunk in decode_chunks(stream, CaptureFormat.BINARY))


def streaming(stream: bytes) -> int:
    decoder = FrameDecoder()
    count = 0
    for at in range(0, len(stream), 4096):
        for event in decoder.feed(stream[at : at + 4096]):
            if isinstance(event, Frame):
                RealtimeData.from_bytes(event.data)
                count += 1
    return count


def byte_at_a_time(stream: bytes) -> int:
    """The old algorithm: reads one byte, checks the buffer, and computes the CRC bit by bit."""
    buffer = bytearray()
    count = 0
    for byte in stream:
        buffer.append(byte)
        if len(buffer) <= 6:
            if buffer[-1] != (0xEB, 0x90)[(len(buffer) - 1) & 1]:
                buffer.clear()
        elif len(buffer) > 8 and len(buffer) == 12 + buffer[8]:
            if buffer[-1] == 0x7F and bitwise_crc(buffer[6:-1]) == 0:
                RealtimeData.from_bytes(bytes(buffer[9:-3]))
                count += 1
            buffer.clear()
    return count


def bitwise_crc(data: bytearray) -> int:
    crc = 0
    for byte in data:
        for bit in range(7, -1, -1):
            carry = crc & 0x8000
            crc = (crc << 1 | byte >> bit & 1) & 0xFFFF
            if carry:
                crc ^= 0x1041
    return crc


def measured(decoders: dict[str, tuple[Decode, bytes]], repeats: int) -> dict[str, list[float]]:
    """Return the nanoseconds a frame of each decoder, turn by turn."""
    times: dict[str, list[float]] = {name: [] for name in decoders}
    gc.disable()
    for repeat in range(repeats + 1):
        for name, (decode, stream) in decoders.items():
            begun = time.perf_counter()
            decode(stream)
            took = time.perf_counter() - begun
            if repeat:  # the first round warms up
                times[name].append(took / (len(stream) / REPLY_SIZE) * 1e9)
    gc.enable()
    return times


def compare(in_c: Callable[[bytes], NDArray[np.void]], frames: int, repeats: int, *, damaged: bool) -> float:
    """Print the table of one stream; return the ratio that is the measure."""
    stream = stream_of(frames, damaged=damaged)
    found = decode_capture(stream, CaptureFormat.BINARY)
    assert (found.readings == in_c(stream)).all()
    print(f"\n{len(stream) // REPLY_SIZE} replies, {found.stats.corrupt_frames} of them damaged, {repeats} repeats")
    # The slow ones get less to do.
    some, few = stream[: len(stream) // 20], stream[: len(stream) // 200]
    decoders: dict[str, tuple[Decode, bytes]] = {
        "C, one table CRC": (lambda stream: len(in_c(stream)), stream),
        "decode_capture": (bulk, stream),
        "decode_chunks": (bulk_in_chunks, stream),
        "FrameDecoder, from_bytes": (streaming, some),
        "byte at a time, bitwise CRC": (byte_at_a_time, few),
    }
    times = measured(decoders, repeats)
    reference = times["C, one table CRC"]
    ratios = {
        name: sorted(own / other for own, other in zip(taken, reference, strict=True)) for name, taken in times.items()
    }
    print(f"{'':28} {'ns/frame':>9} {'min':>9} {'max':>9}   times C, turn by turn (min to max)")
    for name, taken in times.items():
        ratio = ratios[name]
        print(
            f"{name:28} {statistics.median(taken):9.1f} {min(taken):9.1f} {max(taken):9.1f}"
            f"   {statistics.median(ratio):7.2f} ({ratio[0]:.2f} to {ratio[-1]:.2f})"
        )
    return statistics.median(ratios["decode_capture"])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a fifth of the frames, fewer repeats")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory() as folder:
        in_c = compiled(Path(folder))
        frames, repeats = (100_000, 5) if quick else (500_000, 15)
        ratio = compare(in_c, frames, repeats, damaged=False)
        compare(in_c, frames, repeats, damaged=True)
    print(f"\ndecode_capture takes {ratio:.2f} times as long as C; at most {LIMIT:.0f} are wanted")


if __name__ == "__main__":
    main()
