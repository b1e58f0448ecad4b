"""The format of the energy file: what was encoded is decoded exactly, and nothing else is."""

from __future__ import annotations

import json
from datetime import date
from hashlib import sha256
from math import inf, nan
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracer_async.gateway.energy import MeterState
from tracer_async.gateway.energy_file import decode_states, encode_states
from tracer_async.gateway.events import DayEnergy

NUMBERS = st.floats(0.0, 1e15)
STATES = st.dictionaries(
    st.from_regex(r"[a-z0-9_-]{1,64}", fullmatch=True),
    st.builds(
        MeterState,
        NUMBERS,
        NUMBERS,
        NUMBERS,
        st.none() | NUMBERS,
        st.lists(st.builds(DayEnergy, st.dates(), NUMBERS, NUMBERS), max_size=3).map(tuple),
        st.none() | NUMBERS,
    ),
    max_size=3,
)


@given(STATES)
def test_decoding_returns_exactly_what_was_encoded(states: dict[str, MeterState]) -> None:
    raw = encode_states(states)
    assert decode_states(raw) == states
    assert json.loads(raw)["format"] == 1


@settings(deadline=None)
@given(STATES, st.data())
def test_a_changed_byte_never_gives_other_totals(states: dict[str, MeterState], data: st.DataObject) -> None:
    raw = bytearray(encode_states(states))
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = decode_states(bytes(raw))
    except ValueError:
        return
    assert decoded == states


def test_a_file_of_a_version_without_the_monotonic_clock_keeps_its_totals() -> None:
    sums = '"charge": 12.5, "load": 2.0, "unknown": 60.0, "time": 1780315200.0'
    line = f'"roof": {{{sums}, "days": [["2026-06-01", 2.5, 1.0]]}}'
    checksum = sha256(line.encode()).hexdigest()
    raw = f'{{"format": 1, "sha256": "{checksum}", "controllers": {{\n{line}\n}}}}\n'.encode()
    days = (DayEnergy(date(2026, 6, 1), 2.5, 1.0),)
    assert decode_states(raw) == {"roof": MeterState(12.5, 2.0, 60.0, 1_780_315_200.0, days)}


@pytest.mark.parametrize("wrong", [nan, inf, -1.0, "1", True, None])
def test_a_value_that_is_no_sum_is_rejected_even_with_a_right_checksum(wrong: Any) -> None:
    encoded = encode_states({"roof": MeterState(charge=wrong)})
    with pytest.raises(ValueError, match="a value is wrong"):
        decode_states(encoded)
