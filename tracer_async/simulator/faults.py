"""What can go wrong between a client and a simulated controller: the kinds of faults, and how they are asked for.

A fault is written ``KIND[=VALUE][@PROBABILITY]``: ``drop``, ``late=2.5s``, ``flip@1%``, ``late=300ms@0.05``. Times are
in ms or s, sizes in B, KiB or MiB. What is left out is as `FAULT_KINDS` has it, and where a kind takes no value,
``flip=1%`` is as good as ``flip@1%``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from random import Random
from typing import Literal, NamedTuple

from tracer_async.protocol._numbers import check_whole

__all__ = ["FAULT_KINDS", "Fault", "FaultKind", "Faults", "parse_fault"]

_LONGEST = 3600.0
_LARGEST = 64 * 1048576.0

_split = re.compile(r"(?P<kind>[^=@]*)(?:=(?P<value>.*?))?(?:@(?P<probability>[^@]*))?", re.DOTALL).fullmatch
_number = re.compile(r"([0-9]{1,9}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})([A-Za-z%]*)").fullmatch
_SECONDS = {"ms": 0.001, "s": 1.0}
_BYTES = {"B": 1.0, "KiB": 1024.0, "MiB": 1048576.0}
_PARTS = {"%": 0.01, "": 1.0}


class FaultKind(NamedTuple):
    """One kind of fault."""

    name: str
    summary: str
    """What it does, in one line."""
    probability: float
    """0 to 1, unless the fault says otherwise: of a request, or where it is `on_connect` of a connection."""
    default: str = ""
    """The value that it has unless the fault says otherwise; empty where it takes none."""
    takes: Literal["", "time", "size", "text"] = ""
    """What its value is."""
    on_connect: bool = False
    """It befalls a client that comes, not a request."""
    on_network: bool = False
    """It needs a connection, which a serial line has not."""

    @property
    def example(self) -> str:
        """How it is asked for, with all that could be left out."""
        return f"{self.name}{'=' if self.default else ''}{self.default}@{100 * self.probability:g}%"


FAULT_KINDS = {
    kind.name: kind
    for kind in (
        FaultKind("drop", "a request is lost: neither followed nor answered", 0.05),
        FaultKind("late", "a reply waits before it is sent, and all after it too", 0.05, "2.5s", "time"),
        FaultKind("double", "a reply comes twice", 0.05),
        FaultKind("flip", "a reply has one bit to three bits flipped", 0.05),
        FaultKind("cut", "a reply has lost its end", 0.05),
        FaultKind("tear", "a reply comes after one with its CRC, but older data", 0.05),
        FaultKind("stray", "stray bytes come before each frame", 0.05),
        FaultKind("id", "a reply has another controller ID than 00", 0.05),
        FaultKind("foreign", "a reply to another master comes before or after the reply", 0.05),
        FaultKind("drip", "a reply comes in single bytes, this far apart", 0.05, "5ms", "time"),
        FaultKind("flood", "garbage of this size comes before a reply", 0.01, "64KiB", "size"),
        FaultKind("stall", "a request waits before it is followed, and all after it too", 0.01, "1s", "time"),
        FaultKind("silence", "a request is lost, and all that come within this time", 0.01, "10s", "time"),
        FaultKind("hangup", "the connection is closed in the middle of a reply", 0.01, on_network=True),
        FaultKind("half-open", "the connection stays open, but is dead from then on", 0.01, on_network=True),
        FaultKind("banner", "a connection begins with a text", 1.0, "ready", "text", on_connect=True, on_network=True),
        FaultKind("refuse", "a connection is accepted and closed at once", 0.5, on_connect=True, on_network=True),
    )
}
"""All kinds of faults, by name."""


class Fault(NamedTuple):
    """A kind of fault, how likely it is and how bad; see `parse_fault`."""

    kind: str
    probability: float
    """0 to 1."""
    amount: float = 0.0
    """Seconds or bytes, for the kinds that take a time or a size."""
    text: str = ""
    """For the kind that takes a text."""


def parse_fault(spec: str) -> Fault:
    """Return the fault that *spec*, ``KIND[=VALUE][@PROBABILITY]``, asks for. Raises ValueError if it is none."""
    match = _split(spec)
    name, value, probability = match.groups() if match else (spec, None, None)
    kind = FAULT_KINDS.get(name)
    if kind is None:
        raise ValueError(f"{spec!r} names no fault such as late=2.5s@5%; the kinds are {', '.join(FAULT_KINDS)}")
    if kind.takes == "" and value is not None:
        if probability is not None or not value.endswith("%"):
            raise ValueError(f"{spec!r} is no fault: {name} takes no value; right are {name} and {kind.example}")
        value, probability = None, value
    part = kind.probability if probability is None else _amount(probability, _PARTS)
    if kind.takes == "text" and value is not None and part is None:
        value, part = f"{value}@{probability}", kind.probability  # the @ was one of the text's
    if part is None:
        raise ValueError(f"{spec!r} is no fault: a probability is 0% to 100%, or 0 to 1; right is {kind.example}")
    if value is None:
        value = kind.default
    if kind.takes == "text":
        return Fault(name, part, text=value)
    amount: float | None = 0.0
    if kind.takes == "time":
        amount, what = _amount(value, _SECONDS, _LONGEST), "a time in ms or s, up to an hour"
    elif kind.takes == "size":
        amount, what = _amount(value, _BYTES, _LARGEST), "a size in B, KiB or MiB, up to 64MiB"
    if amount is None:
        raise ValueError(
            f"{spec!r} is no fault: {name} takes {what}; right are {name}={kind.default} and {kind.example}"
        )
    return Fault(name, part, amount)


def _amount(text: str, units: Mapping[str, float], most: float = 1.0) -> float | None:
    """Return a number with one of *units*, None if it is none, or more than *most*."""
    match = _number(text)
    unit = units.get(match[2]) if match else None
    if match is None or unit is None:
        return None
    amount = float(match[1]) * unit
    return amount if amount <= most else None


class Faults:
    """Faults that befall the clients of a simulated controller, any number of kinds at a time.

    ``Faults("late=2.5s@5%", "flip=1%", seed=1)``. Several servers may share one, which then counts for all of them. The
    same seed, and connections made in the same order with the same requests on each, bring the same faults. Raises
    ValueError for what is no fault, and TypeError or ValueError for a seed that is no whole number from 0 on.
    """

    def __init__(self, *specs: str, seed: int = 0) -> None:
        self.faults = tuple(map(parse_fault, specs))
        """What was asked for. Of two of the same kind that strike at once, the first counts."""
        self.seed = check_whole("seed", seed)
        self.injected: Counter[str] = Counter()
        """How often a fault of each kind was brought about, over all connections."""
        self._wires = 0

    def __repr__(self) -> str:
        return f"<Faults {' '.join(fault.kind for fault in self.faults)}, seed {self.seed}>"

    def check_serial(self) -> None:
        """Raise ValueError if one of the faults needs a network connection."""
        kinds = [fault.kind for fault in self.faults if FAULT_KINDS[fault.kind].on_network]
        if kinds:
            raise ValueError(f"a serial line knows no connections, so it has no {' and no '.join(kinds)}: serve TCP")

    def next_random(self) -> Random:
        """Return the source of random numbers of the next wire: each has its own, however their requests mingle."""
        self._wires += 1
        return Random(f"{self.seed} {self._wires}")  # noqa: S311  # no secret
