"""The simulated line that stands in for real baud rates, checked against values computed by hand."""

from __future__ import annotations

from tests.doctor.uart import through


def test_equal_rates_change_nothing() -> None:
    assert through(b"\xeb\x90", 9600, 9600) == b"\xeb\x90"


def test_a_quarter_of_the_rate_merges_bits() -> None:
    # 00 at 19200 is low for 9 bits, 2.25 bits at 4800: the start bit, one zero, and ones.
    assert through(b"\x00", 19200, 4800) == b"\xfe"
    # FF is low for its start bit only, which is over before the middle of the start bit at 4800, and before the data.
    assert through(b"\xff", 19200, 4800) == b"\xff"


def test_an_inverted_ff_is_a_start_bit_and_zeros_until_the_line_rises() -> None:
    # Inverted, the line idles low, rises for the start bit, and falls for the 8 ones of FF and everything after it.
    assert through(b"\xff", 9600, 9600, inverted=True) == b"\x00"
