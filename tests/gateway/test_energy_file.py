"""The format of the energy file: what was encoded is decoded exactly, and nothing else is."""

from __future__ import annotations

import json
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
    ),
    max_size=3,
)


@given(STATES)
def test_decoding_returns_exactly_what_was_encoded(states: dict[str, MeterState]) -> None:
    raw = b"".join(encode_states(states))
    assert decode_states(raw) == states
    assert json.loads(raw)["format"] == 1


@settings(deadline=None)
@given(STATES, st.data())
def test_a_changed_byte_never_gives_other_totals(states: dict[str, MeterState], data: st.DataObject) -> None:
    raw = bytearray(b"".join(encode_states(states)))
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = decode_states(bytes(raw))
    except ValueError:
        return
    assert decoded == states


@pytest.mark.parametrize("wrong", [nan, inf, -1.0, "1", True, None])
def test_a_value_that_is_no_sum_is_rejected_even_with_a_right_checksum(wrong: Any) -> None:
    encoded = b"".join(encode_states({"roof": MeterState(charge=wrong)}))
    with pytest.raises(ValueError, match="a value is wrong"):
        decode_states(encoded)
