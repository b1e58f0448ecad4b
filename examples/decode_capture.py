"""Decode the bytes of a sniffed serial line without an event loop: ``python examples/decode_capture.py [FILE]``."""

import sys
from pathlib import Path

from tracer_async.protocol import CommandCode, CorruptFrame, Frame, FrameDecoder, Noise, RealtimeData

# Three bytes of noise, a reply, and the same reply with one bit flipped.
SAMPLE = bytes.fromhex(
    "00eb90"
    "eb90eb90eb9000a018dc04500d000000005904980500000029000000013a760100d9697f"
    "eb90eb90eb9000a018dd04500d000000005904980500000029000000013a760100d9697f"
)


def main(stream: bytes) -> None:
    """Print all events in *stream*. The decoder accepts chunks of any size."""
    decoder = FrameDecoder()
    for event in decoder.feed(stream) + decoder.flush():
        match event:
            case Frame(command=CommandCode.READ_REALTIME, data=data) if len(data) == 24:
                print(f"{RealtimeData.from_bytes(data).battery_voltage:.2f} V")
            case Frame():
                print(event)
            case CorruptFrame(raw, reason):
                print(f"damaged ({reason}): {raw.hex()}")
            case Noise(raw):
                print(f"noise: {raw.hex()}")
    print(decoder.stats)


if __name__ == "__main__":
    main(Path(sys.argv[1]).read_bytes() if len(sys.argv) > 1 else SAMPLE)
