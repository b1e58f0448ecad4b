"""The seeds of both targets, made with the library's own encoder: ``python -m fuzz.make_corpus FOLDER``.

They are what a fuzzer would take long to come upon: good frames, frames within frames, damage, and the scenes that the
exchange was made for. Nothing is committed but this.
"""

from __future__ import annotations

import sys
from hashlib import sha256
from pathlib import Path

from fuzz.fuzz_decoder import FLUSH, MEND
from fuzz.fuzz_link import DELAYS, OPERATIONS
from tracer_async.protocol import SYNC, Frame, RealtimeData

__all__ = ["SEEDS", "decoder_seeds", "link_seeds", "write_corpus"]

_READING = RealtimeData.from_bytes(bytes.fromhex("DC04500D000000005904980500000029000000013A760100")).to_bytes()


def decoder_seeds() -> list[bytes]:
    """Streams, each in several cuts."""
    request = Frame(0x16, 0xA0, b"").encode()
    reply = Frame(0x00, 0xA0, _READING).encode(start_up=False)
    load = Frame(0x00, 0xAA, b"\x01").encode(start_up=False)
    largest = Frame(0x00, 0x55, bytes(range(200))).encode(start_up=False)
    nested = Frame(0x00, 0xA0, load + reply).encode(start_up=False)
    damaged = [reply[:at] + bytes((reply[at] ^ 0xFF,)) + reply[at + 1 :] for at in (2, 8, 12, 34, 35)]
    streams = [
        b"",
        request + reply,
        reply * 3,
        largest,
        nested,
        nested[:-1] + b"\x00" + load,
        *(bad + reply for bad in damaged),
        *(SYNC + b"\x00\xa0" + bytes((length,)) + reply for length in (0, 35, 200, 201, 0xEB)),
        *(reply[:kept] + reply for kept in range(1, 12)),
        SYNC[:2] * 20 + reply,
        b"Port already in use\r\n" + load,
        reply[:20],
    ]
    cuts = [b"", b"\x01", b"\x07\x00\x03", bytes((20, FLUSH, 3))]
    return [bytes((len(cut) | option,)) + cut + stream for stream in streams for cut in cuts for option in (0, MEND)]


def link_seeds() -> list[bytes]:
    """Scenes, each under several options."""
    scenes = [
        "connect read reply receive",
        "connect read reply trickle:15 wait:1 receive",
        "connect read read:1 ask:4 reply receive read:2 read:8",
        "read wait:4 connect reply receive",
        "read wait:13",
        # Late replies, within their fence and behind it.
        "connect read next_timer reply receive read reply receive",
        "connect read next_timer wait:8 next_timer reply receive reply receive",
        "connect ask:8 wait:9 wait:11 wait:9 ask:8 reply receive reply receive",
        "connect ask:8 cancel wait:11 wait:9 ask:8 reply:1 receive",
        "connect ask:11 wait:9 write wait:11 reply receive wait:11 reply receive reply receive",
        # The load: followed, not followed, not answered, and answered in doubt.
        "connect set_load:1 reply receive",
        "connect set_load:1 reply:4 receive reply receive",
        "connect set_load:1 wait:9 wait:11 reply:1 receive",
        "connect set_load:1 wait:9 cancel wait:11 set_load:0 reply receive reply receive reply receive",
        "connect set_load:1 reply:12 receive reply receive",
        "connect set_load:1 set_load:0 read reply receive reply receive reply receive reply receive",
        # The load is on by replies from before it was switched off.
        "connect ask:9 cancel reply ask:10 cancel reply wait:4 set_load:1 trickle:12",
        "connect ask:9 reply receive ask:8 cancel reply ask:10 cancel reply wait:4 set_load:1 wait:9 receive",
        # Damage.
        "connect read garbage:8=eb90eb90eb9000a0c8 reply receive wait:8",
        "connect read garbage:2=00eb90 receive wait:4 reply receive",
        "connect read garbage:8=eb90eb90eb9000a0c8 receive wait:3 reply receive next_timer next_timer",
        "connect read reply:12 receive read foreign:4 receive foreign receive",
        # Doubled replies.
        "connect read reply receive foreign:4 receive read reply receive",
        "connect read:1 reply foreign:4 trickle:15 trickle:15 trickle:5 read:1 receive reply receive wait:5 read",
        "connect ask ask:8 reply receive foreign:4 receive reply receive wait:5 ask reply receive",
        "connect ask:8 wait:9 wait:11 ask:8 reply foreign:4 receive reply receive",
        # Links that come and go, and the end.
        "connect read lose connect reply receive reply receive",
        "connect write lose:1 write connect reply receive reply receive reply receive",
        "connect read reply trickle:9 lose connect receive wait:8",
        "connect ask ask:4 read set_load:1 cancel:1 cancel:1 reply receive cancel reply receive",
        "connect break_write read connect reply receive",
        "read write set_load:1 close read connect",
        "connect read set_load:1 close reply receive read",
        "connect read:1 next_timer next_timer next_timer next_timer connect reply receive",
    ]
    options = [bytes((first, second)) for first in (0x00, 0x26, 0x1D, 0x7B) for second in (0, 3)]
    return [option + written(scene) for scene in scenes for option in options]


def written(scene: str) -> bytes:
    """The bytes of a scene: operations ``name``, ``name:argument``, or ``garbage:argument=bytes``."""
    result = bytearray()
    for word in scene.split():
        operation, _, raw = word.partition("=")
        name, _, argument = operation.partition(":")
        number = int(argument or "0")
        assert name != "wait" or number < len(DELAYS)
        result.append(OPERATIONS.index(name) | number << 4)
        result += bytes.fromhex(raw)
    return bytes(result)


SEEDS = {"decoder": decoder_seeds, "link": link_seeds}


def write_corpus(folder: Path, seeds: list[bytes]) -> None:
    """Write each seed to a file of its own, named as libFuzzer would not, so that it is known for a seed."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        (folder / f"seed-{sha256(seed).hexdigest()[:16]}").write_bytes(seed)


if __name__ == "__main__":
    for name, make in SEEDS.items():
        write_corpus(Path(sys.argv[1], name), make())
