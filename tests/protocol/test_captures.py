"""The recorded bytes of a live controller and its meter. Skipped if the captures are not available."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer_async.protocol import CommandCode, DecoderStats, Event, Frame, FrameDecoder, RealtimeData

CAPTURES = Path(__file__).parents[3] / "shared" / "captures"

pytestmark = pytest.mark.skipif(not CAPTURES.is_dir(), reason="the captures are not available")
captures = pytest.mark.parametrize(
    ("name", "frames"),
    [("controller-to-display.bin", 214), ("display-to-controller.bin", 214), ("controller-night.bin", 356)],
)


def decode(name: str, size: int) -> tuple[list[Event], DecoderStats]:
    stream = (CAPTURES / name).read_bytes()
    decoder = FrameDecoder()
    events = [event for at in range(0, len(stream), size) for event in decoder.feed(stream[at : at + size])]
    return events + decoder.flush(), decoder.stats


@captures
@given(size=st.integers(1, 200) | st.just(1 << 20))
def test_every_frame_is_found_at_any_chunking(name: str, frames: int, size: int) -> None:
    assert decode(name, size)[1] == DecoderStats(frames, corrupt_frames=0, corrupt_bytes=0, noise_bytes=0)


@captures
def test_encoding_each_decoded_reading_gives_the_same_bytes(name: str, frames: int) -> None:
    readings = 0
    for event in decode(name, 4096)[0]:
        assert isinstance(event, Frame)
        if event.command == CommandCode.READ_REALTIME and len(event.data) == 24:
            assert RealtimeData.from_bytes(event.data).to_bytes() == event.data
            assert event.controller_id == 0
            readings += 1
    assert readings == (0 if name.startswith("display") else frames)


def test_both_directions_of_the_session_are_the_two_single_recordings() -> None:
    both = [json.loads(line) for line in (CAPTURES / "display-session.jsonl").read_text().splitlines()]
    for source, name in (("display", "display-to-controller.bin"), ("controller", "controller-to-display.bin")):
        decoder = FrameDecoder()
        bursts = [bytes.fromhex(burst["hex"]) for burst in both if burst["from"] == source]
        assert [event for burst in bursts for event in decoder.feed(burst)] == decode(name, 4096)[0]
