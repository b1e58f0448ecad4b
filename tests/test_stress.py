"""The soak's judge reports wrong claims, and nothing else."""

from __future__ import annotations

import pytest

from stress.judge import OK, Claim, Deed, judge_claims, judge_reading
from stress.stamp import STEP, Stamp, stamp_of, stamped
from tracer_async.protocol import RealtimeData
from tracer_async.simulator import SimulatedTracer

SETTINGS = "00000200051112"

DEEDS = [
    Deed(1, 0.0, "load is", "", load=False),
    Deed(1, 10.0, "switch", "01", load=True),
    Deed(1, 20.0, "settings", SETTINGS, load=True),
    Deed(1, 30.0, "switch", "00", load=False),
    Deed(1, 40.0, "switch", "01", load=False),
]


def claim(what: str, data: str, called: float, returned: float, outcome: str = OK) -> Claim:
    return Claim(1, what, data, called, returned, outcome)


@pytest.mark.parametrize(
    "right",
    [
        claim("switch", "01", 9.0, 11.0),
        claim("switch", "01", 11.0, 12.0),  # it is on already
        claim("switch", "00", 29.0, 31.0),
        claim("switch", "01", 39.0, 41.0, "LoadRefusedError"),
        claim("switch", "01", 1.0, 2.0, "LoadUnknownError"),
        claim("load", "01", 9.0, 11.0, "1"),
        claim("load", "01", 39.0, 41.0, "0"),
        claim("settings", SETTINGS, 19.0, 21.0),
        claim("settings", SETTINGS, 1.0, 2.0, "ResponseTimeoutError"),
    ],
)
def test_a_right_claim_is_not_reported(right: Claim) -> None:
    written = claim("settings", SETTINGS, 15.0, 16.0, "cancelled")
    assert judge_claims([right, written], DEEDS).wrong == []


@pytest.mark.parametrize(
    "wrong",
    [
        claim("switch", "01", 1.0, 9.0),
        claim("switch", "00", 11.0, 29.0),
        claim("switch", "01", 31.0, 41.0),
        claim("switch", "01", 9.0, 11.0, "LoadRefusedError"),
        claim("switch", "00", 39.0, 41.0, "LoadRefusedError"),
        claim("load", "01", 1.0, 9.0, "1"),
        claim("load", "01", 9.0, 11.0, "0"),
        claim("load", "01", 39.0, 41.0, "1"),
        claim("settings", SETTINGS, 21.0, 29.0),
        claim("settings", "00000200061112", 19.0, 21.0),
    ],
)
def test_a_wrong_claim_is_reported(wrong: Claim) -> None:
    written = claim("settings", SETTINGS, 15.0, 16.0, "cancelled")
    assert len(judge_claims([wrong, written], DEEDS).wrong) == 1


def test_settings_that_are_executed_more_often_than_written_are_reported() -> None:
    written = claim("settings", SETTINGS, 19.0, 21.0)
    again = Deed(1, 20.5, "settings", SETTINGS, load=True)
    assert judge_claims([written], DEEDS).wrong == []
    assert len(judge_claims([written], [*DEEDS[:3], again]).wrong) == 1
    assert judge_claims([written, written], [*DEEDS[:3], again]).wrong == []
    assert len(judge_claims([], DEEDS).wrong) == 1


@pytest.mark.parametrize("made", [99.0, 99.5, 100.0])
def test_a_reading_made_within_its_claimed_age_is_right(made: float) -> None:
    assert judge_reading(1, Stamp(1, made), time=100.0, age=1.0) is None


@pytest.mark.parametrize("stamp", [None, Stamp(2, 99.5), Stamp(1, 98.99), Stamp(1, 100.01)])
def test_a_reading_with_a_wrong_claim_is_reported(stamp: Stamp | None) -> None:
    assert judge_reading(1, stamp, time=100.0, age=1.0) is not None


def test_a_stamp_survives_the_wire_and_damage_is_detected() -> None:
    stamp = Stamp(59, 1_234_567.8901)
    data = stamped(SimulatedTracer().realtime(), stamp).to_bytes()
    received = stamp_of(RealtimeData.from_bytes(data))
    assert received is not None
    assert received.controller == stamp.controller
    assert stamp.made - 2 * STEP < received.made <= stamp.made
    other = stamped(SimulatedTracer().realtime(), Stamp(60, stamp.made + 3.0)).to_bytes()
    for cut in (9, 10, 12):  # the data of two readings in one
        assert stamp_of(RealtimeData.from_bytes(data[:cut] + other[cut:])) is None
