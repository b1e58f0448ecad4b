"""The fuzz targets without a fuzzer: their seeds, and the same mutations of them each time.

``make fuzz`` hunts further, with atheris; an input that it finds belongs here once what it showed is mended.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from fuzz import fuzz_decoder, fuzz_link
from fuzz.make_corpus import SEEDS

TARGETS = pytest.mark.parametrize(
    ("seeds", "check"),
    [
        pytest.param(SEEDS["decoder"](), fuzz_decoder.check, id="decoder"),
        pytest.param(SEEDS["link"](), fuzz_link.check, id="link"),
    ],
)
MUTATIONS = 1500


def mutated(seeds: list[bytes], rng: random.Random) -> bytes:
    """A seed, or two spliced, with some bytes changed, doubled, left out or put in."""
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
    "found",
    [
        # Closed while a good reply stood behind a header that promised more: the end of the link found it, unasked for.
        "7b000d0087eb90eb90eb9000a0c80508",
    ],
)
def test_what_a_fuzzer_found_stays_mended(found: str) -> None:
    fuzz_link.check(bytes.fromhex(found))
