"""A serial line as voltages over time: what a receiver at another baud rate, or behind an inverter, makes of bytes.

Limits: the clocks are exact, there are no capacitance, no break detection and no parity. Real receivers differ in what
they do after a framing error. This one waits for the line to be idle again, and passes the byte on.
"""

from __future__ import annotations

STEPS = 16
"""Samples a bit, at the rate of the receiver, as common receivers have."""


class Signal:
    """The voltage of a line on which *data* is sent without pauses."""

    def __init__(self, data: bytes, rate: int, *, inverted: bool = False) -> None:
        self._bits = "1" + "".join(f"0{byte:08b}"[0] + f"{byte:08b}"[::-1] + "1" for byte in data) + "11111"
        self._rate = rate
        self._inverted = inverted

    def high(self, seconds: float) -> bool:
        at = int(seconds * self._rate)
        level = at >= len(self._bits) or self._bits[at] == "1"
        return level is not self._inverted

    @property
    def seconds(self) -> float:
        return (len(self._bits) + 10) / self._rate


def received(signal: Signal, rate: int) -> bytes:
    """The bytes that a receiver with *rate* takes from the line."""
    step = 1 / (rate * STEPS)
    data = bytearray()
    at = 1
    while at * step < signal.seconds:
        if signal.high(at * step) or not signal.high((at - 1) * step):
            at += 1
            continue
        middle = at + STEPS // 2
        data.append(sum(signal.high((middle + bit * STEPS) * step) << (bit - 1) for bit in range(1, 9)))
        at = middle + 9 * STEPS
    return bytes(data)


def through(data: bytes, sent_at: int, received_at: int, *, inverted: bool = False) -> bytes:
    """What arrives of *data* that is sent at one rate and received at another one."""
    if sent_at == received_at and not inverted:
        return data
    return received(Signal(data, sent_at, inverted=inverted), received_at)
