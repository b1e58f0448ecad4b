"""The seeds of both targets, made with the library's own encoder: ``python -m fuzz.make_corpus FOLDER``.

A fuzzer would need a long time to find them: good frames, frames within frames, damage, and the scenes that the
exchange has to handle. Only this script is committed, not the seeds.
"""

from __future__ import annotations

import sys
from hashlib import sha256
from pathlib import Path

from fuzz.fuzz_decoder import FLUSH, REPAIR
from fuzz.fuzz_session import OPERATIONS
from tracer_async.protocol import SYNC, Frame, RealtimeData

__all__ = ["SEEDS", "decoder_seeds", "session_seeds", "write_corpus", "written"]

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
    return [bytes((len(cut) | option,)) + cut + stream for stream in streams for cut in cuts for option in (0, REPAIR)]


def session_seeds() -> list[bytes]:
    """Scenes, each under several options. A reading and then wait:6 come before each command."""
    ready = "connect post reply arrive wait:6"
    late = f"{ready} switch:1 reply arrive wait:6 post reply cancel switch reply cancel wait:6"
    scenes = [
        "connect post reply arrive",
        "connect post:4 reply trickle:15 wait:1 arrive",
        "connect post post:4 post:4 reply arrive reply arrive",
        "post wait:4 connect reply arrive",
        "post note_down:1 wait:13",
        # Late replies, within their fence and behind it.
        "connect post next_deadline reply arrive post reply arrive",
        "connect post next_deadline wait:9 next_deadline reply arrive reply arrive",
        "connect post wait:10 wait:11 wait:10 post reply arrive reply arrive",
        "connect post cancel wait:11 wait:10 post reply:1 arrive",
        f"{ready} post:3 wait:10 post:3 wait:11 reply arrive wait:11 reply arrive reply arrive",
        # The load: followed, not followed, not answered, answered ambiguously, and with other requests between.
        f"{ready} switch:1 reply arrive",
        f"{ready} switch:1 reply:4 arrive reply arrive",
        f"{ready} switch:1 wait:10 wait:11 reply:1 arrive",
        f"{ready} switch:1 wait:10 wait:11 reply:9 arrive reply arrive reply arrive",
        f"{ready} switch:1 wait:10 cancel wait:11 switch reply arrive reply arrive reply arrive",
        f"{ready} switch:1 reply:12 arrive reply arrive",
        f"{ready} switch:1 switch post reply arrive reply arrive reply arrive reply arrive",
        f"{ready} switch:1 post:3 post:1 reply:4 arrive reply arrive reply arrive wait:6 reply arrive",
        "connect switch:1 reply arrive wait:6 reply arrive",
        # Old replies say that the load is on, although it was switched off since. A copy of an old one says it is off.
        f"{ready} switch:1 reply cancel switch reply cancel wait:4 switch:1 trickle:12 arrive",
        f"{late} switch:1 wait:10 trickle:15 trickle:15 trickle:3 arrive",
        f"{ready} switch reply foreign:4 trickle:12 switch:1 trickle:12 wait:6 reply:9 arrive reply arrive",
        f"{ready} switch:1 reply foreign:4 trickle:12 switch reply foreign:4 trickle:12 wait:10 switch arrive",
        # Commands directly after one another, equal and different.
        "connect post:3 reply arrive wait:6 reply arrive post:3 reply arrive wait:6 reply arrive",
        f"{ready} post:1 post:1 post:5 post:3 post reply arrive reply arrive wait:6 reply arrive reply arrive",
        f"{ready} post:3 reply foreign:4 post:3 arrive reply arrive wait:6 reply arrive",
        "connect post:8 post:8 reply arrive wait:6 reply arrive reply:12 arrive wait:6 reply:12 arrive",
        # Damage.
        "connect post garbage:8=eb90eb90eb9000a0c8 reply arrive wait:9",
        "connect post garbage:2=00eb90 arrive wait:4 reply arrive",
        "connect post garbage:8=eb90eb90eb9000a0c8 arrive wait:3 reply arrive next_deadline next_deadline",
        "connect post reply:12 arrive post foreign:4 arrive foreign arrive",
        "connect post wait:8 reply trickle:15 wait:5 arrive",
        # Doubled replies.
        "connect post reply arrive foreign:4 arrive post reply arrive",
        "connect post reply foreign:4 trickle:15 trickle:15 trickle:5 post arrive reply arrive wait:6 post",
        "connect post post reply arrive foreign:4 arrive reply arrive wait:6 post reply arrive",
        "connect post wait:10 wait:11 post reply foreign:4 arrive reply arrive",
        f"{ready} switch:1 reply foreign:4 arrive switch reply:4 arrive wait:6 reply arrive reply arrive",
        # An application that blocks.
        "connect post stall reply arrive wait:15 resume",
        "connect post reply arrive post foreign:4 stall arrive wait:7 resume reply arrive",
        f"{ready} switch:1 reply foreign:4 trickle:12 stall switch arrive wait:7 resume reply arrive reply arrive",
        f"{ready} post:3 stall reply arrive foreign:4 arrive wait:7 post:3 resume reply arrive wait:6 reply arrive",
        "connect post post reply arrive garbage:8=eb90eb90eb9000a0c8 foreign:4 stall arrive wait:7 resume wait:5",
        "connect post stall reply arrive wait:11 resume:9 wait:11 post cancel resume:15 resume",
        # Connections that are lost and made again, and closing.
        "connect post lose connect reply arrive reply arrive",
        f"{ready} post:3 lose:1 post:3 connect reply arrive reply arrive reply arrive",
        f"{ready} switch:1 lose:1 connect reply arrive wait:6 reply arrive reply arrive",
        f"{ready} switch:1 lose connect post reply arrive wait:10 reply arrive",
        "connect post reply trickle:9 lose connect arrive wait:9",
        "connect post post:8 post:4 switch:1 cancel:1 cancel:1 reply arrive cancel reply arrive",
        "connect post:3 cancel post:4 reply arrive reply arrive",
        "connect switch:1 post:4 next_deadline next_deadline next_deadline next_deadline",
        "post post:3 switch:1 close post connect",
        "connect post switch:1 close reply arrive post",
        "connect post:4 next_deadline next_deadline next_deadline next_deadline connect reply arrive",
    ]
    options = [bytes((first, second)) for first in (0x00, 0x26, 0x9D, 0x7B) for second in (0, 3, 4, 14)]
    return [option + written(scene) for scene in scenes for option in options]


def written(scene: str) -> bytes:
    """The bytes of a scene: operations ``name``, ``name:argument``, or ``garbage:argument=bytes``."""
    result = bytearray()
    for word in scene.split():
        operation, _, raw = word.partition("=")
        name, _, argument = operation.partition(":")
        number = int(argument or "0")
        result.append(OPERATIONS.index(name) | number << 4)
        result += bytes.fromhex(raw)
    return bytes(result)


SEEDS = {"decoder": decoder_seeds, "session": session_seeds}


def write_corpus(folder: Path, seeds: list[bytes]) -> None:
    """Write each seed to its own file. The name differs from libFuzzer's names, so that seeds can be recognized."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        (folder / f"seed-{sha256(seed).hexdigest()[:16]}").write_bytes(seed)


if __name__ == "__main__":
    for name, make in SEEDS.items():
        write_corpus(Path(sys.argv[1], name), make())
