"""The fuzz targets without a fuzzer: their seeds, and the same mutations of them each time.

``make fuzz`` searches further, with atheris. Add each input that it finds here, once the bug is fixed.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from fuzz import fuzz_decoder, fuzz_session
from fuzz.make_corpus import SEEDS, written

TARGETS = pytest.mark.parametrize(
    ("seeds", "check"),
    [
        pytest.param(SEEDS["decoder"](), fuzz_decoder.check, id="decoder"),
        pytest.param(SEEDS["session"](), fuzz_session.check, id="session"),
    ],
)
MUTATIONS = 1500
READY = "connect post reply arrive wait:6"
HIDDEN_COPY = "connect post post reply arrive garbage:8"
STALLED = "foreign:4 stall arrive wait:7 resume"


def mutated(seeds: list[bytes], rng: random.Random) -> bytes:
    """A seed, or two spliced, with some bytes changed, duplicated, removed or inserted."""
    data = bytearray(rng.choice(seeds))
    if rng.random() < 0.5:
        other = rng.choice(seeds)
        data[rng.randint(0, len(data)) :] = other[rng.randint(0, len(other)) :]
    for _ in range(rng.randint(1, 8)):
        at = rng.randint(0, len(data))
        match rng.randrange(4):
            case 0:
                data[at : at + 1] = rng.randbytes(1)
            case 1:
                data[at:at] = data[at : at + rng.randint(1, 16)]
            case 2:
                del data[at : at + rng.randint(1, 8)]
            case _:
                data[at:at] = rng.randbytes(rng.randint(1, 4))
    return bytes(data)


@TARGETS
def test_the_invariant_holds_for_each_seed(seeds: list[bytes], check: Callable[[bytes], None]) -> None:
    for seed in seeds:
        check(seed)


@TARGETS
def test_the_invariant_holds_for_mutations_of_the_seeds(seeds: list[bytes], check: Callable[[bytes], None]) -> None:
    rng = random.Random(20111213)
    for _ in range(MUTATIONS):
        data = mutated(seeds, rng)
        try:
            check(data)
        except Exception as error:
            error.add_note(f"input: bytes.fromhex({data.hex()!r})")
            raise


@pytest.mark.parametrize(
    ("options", "scene"),
    [
        # Closed while a good reply was pending behind a header that claimed a longer frame.
        ("7b00", "connect post garbage:8=eb90eb90eb9000a0c8 reply arrive close"),
        # A copy of an earlier reply was taken for the answer to a load switch. Its own reply came later and confirmed
        # the next switching.
        (
            "0000",
            f"{READY} switch:1 reply foreign:4 trickle:12 switch reply trickle:12 wait:10 wait:10 switch arrive",
        ),
        # The late reply to a command, which equals the command, made a reading fail with an error about echoes.
        (
            "0004",
            f"{READY} switch wait:10 wait:10 lose connect post reply arrive next_deadline",
        ),
        # A copy of a reply was behind a header that claimed a longer frame. It got the time of the bytes after it,
        # whether these bytes or a pause revealed it.
        ("0000", f"{HIDDEN_COPY}=eb90eb90eb9000a030 {STALLED} garbage:15={bytes(16).hex()} arrive"),
        ("0000", f"{HIDDEN_COPY}=eb90eb90eb9000a0c8 {STALLED} garbage:0=00 arrive wait:5"),
        # A command that was never sent was said to be lost with the connection.
        ("0000", "connect switch post:4 lose connect reply arrive wait:6 reply arrive"),
        # The reading before a command that is not urgent was requested repeatedly without end.
        ("2603", "connect post:8 next_deadline next_deadline next_deadline next_deadline next_deadline"),
    ],
)
def test_what_a_fuzzer_found_stays_fixed(options: str, scene: str) -> None:
    fuzz_session.check(bytes.fromhex(options) + written(scene))
