"""When the live view of a listener calls its last reading old, on a clock that the test moves."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from tracer_async import ConnectionState, Reading, RealtimeData
from tracer_async.cli.silence import Silence
from tracer_async.cli.view import View
from tracer_async.protocol import DecoderStats

URL = "serial:///dev/ttyUSB0"
DATA = RealtimeData.from_bytes(bytes.fromhex("CE04A4060000E8035604A005010001500000000037E80300"))


def after_readings(*times: float) -> Silence:
    silence = Silence(0.0)
    for time in times:
        silence.end(time, 0)
    return silence


@pytest.mark.parametrize("times", [(), (1000.0,), (998.0, 999.0, 1000.0), (997.0, 998.0, 999.0, 1000.0)])
def test_after_10_s_without_a_reading_there_is_an_error(times: tuple[float, ...]) -> None:
    silence, last = after_readings(*times), times[-1] if times else 0.0
    assert silence.words(last, 0) is None
    assert silence.words(last + 9.9, 0) is None
    assert silence.words(last + 10.0, 0) == "nothing heard for 10 s"
    assert silence.words(last + 3725.0, 0) == "nothing heard for 3725 s"


def test_a_meter_that_reads_seldom_may_be_silent_for_3_usual_gaps() -> None:
    silence = after_readings(*range(0, 601, 60))
    assert silence.words(600 + 179.0, 0) is None
    assert silence.words(600 + 180.0, 0) == "nothing heard for 180 s"


def test_one_long_pause_does_not_change_the_usual_gap() -> None:
    silence = after_readings(*range(10), 10000.0)
    assert silence.words(10010.0, 0) is not None


def test_a_reading_ends_the_silence() -> None:
    silence = after_readings(0.0)
    assert silence.words(50.0, 0) is not None
    silence.end(50.0, 0)
    assert silence.words(50.0, 0) is None
    assert silence.words(60.0, 0) == "nothing heard for 10 s"


def test_what_is_received_without_a_reading_is_not_called_nothing() -> None:
    silence = Silence(0.0)
    silence.end(1.0, 5)
    words = silence.words(20.0, 6)
    assert words is not None
    assert words.startswith("no reading heard for 19 s")


class Heard:
    stats = DecoderStats(2, 0, 0, 6)
    state = ConnectionState.UP


def drawn(view: View, width: int) -> str:
    console = Console(file=io.StringIO(), width=width, height=24, force_terminal=True, color_system=None)
    console.print(view)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [40, 60, 80])
def test_the_view_does_not_show_an_old_reading_as_the_present_one(width: int) -> None:
    now = 1000.0
    view, silence = View(URL, None, lambda: now), Silence(now)
    view.follow({URL: Heard()})
    view.take(URL, Reading(now, DATA, age=0.1))
    silence.end(now, 0)
    for seconds in range(30):
        now = 1000.0 + seconds
        view.mark_old(silence.words(now, 0))
        text = drawn(view, width)
        assert ("old: read at" in text) == (seconds >= 10)
        assert (f"nothing heard for {seconds} s" in text) == (seconds >= 10)
        assert "now" not in text
    view.take(URL, Reading(now, DATA, age=0.1))
    silence.end(now, 0)
    view.mark_old(silence.words(now, 0))
    text = drawn(view, width)
    assert "old: " not in text
    assert "nothing heard" not in text


def test_the_age_that_is_shown_grows_until_the_next_reading() -> None:
    now = 1000.0
    view = View(URL, None, lambda: now)
    view.follow({URL: Heard()})
    view.take(URL, Reading(now, DATA, age=0.1))
    assert "reading at most 100 ms old" in drawn(view, 80)
    now = 1004.0
    assert "reading at most 4100 ms old" in drawn(view, 80)
