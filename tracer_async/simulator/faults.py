"""Faults between a client and a simulated controller: their kinds, and the text that selects them.

A fault is written ``KIND[=VALUE][@PROBABILITY]``: ``drop``, ``late=2.5s``, ``flip@1%``, ``late=300ms@0.05``. Times are
in ms or s, sizes in B, KiB or MiB. `FAULT_KINDS` has the default value and probability of each kind. For a kind that
takes no value, ``flip=1%`` means the same as ``flip@1%``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from random import Random
from typing import Literal, NamedTuple

from tracer_async.protocol._numbers import check_whole

__all__ = ["FAULT_KINDS", "Fault", "FaultKind", "Faults", "parse_fault"]

# Limits that catch a wrong unit: an hour of waiting, and 64 MiB of garbage, are more than any test needs.
_MAX_SECONDS = 3600.0
_MAX_BYTES = 64 * 1048576.0

_split = re.compile(r"(?P<kind>[^=@]*)(?:=(?P<value>.*?))?(?:@(?P<probability>[^@]*))?", re.DOTALL).fullmatch
# Plain decimals only: float() would also accept "nan", "inf", "1_0" and a sign.
_number = re.compile(r"([0-9]{1,9}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})([A-Za-z%]*)").fullmatch
_SECONDS = {"ms": 0.001, "s": 1.0}
_BYTES = {"B": 1.0, "KiB": 1024.0, "MiB": 1048576.0}
_FRACTIONS = {"%": 0.01, "": 1.0}


class FaultKind(NamedTuple):
    """One kind of fault."""

    name: str
    summary: str
    """Its effect, in one line."""
    probability: float
    """Default probability, 0 to 1: per connection if `on_connect` is true, else per request."""
    default: str = ""
    """Default value. Empty if the kind takes no value."""
    takes: Literal["", "time", "size", "text"] = ""
    """Type of its value."""
    on_connect: bool = False
    """It affects a new connection, not a request."""
    on_network: bool = False
    """It needs a network connection. A serial line does not support it."""

    @property
    def example(self) -> str:
        """The text that selects it, with the default value and probability."""
        return f"{self.name}{'=' if self.default else ''}{self.default}@{100 * self.probability:g}%"


# With the default probabilities most requests still succeed. Faults that cost a client a connection or seconds have
# 1 %, most others 5 %.
FAULT_KINDS = {
    kind.name: kind
    for kind in (
        FaultKind("drop", "a request is lost: it has no effect and gets no reply", 0.05),
        FaultKind("late", "a reply is delayed, and so is everything after it", 0.05, "2.5s", "time"),
        FaultKind("double", "a reply is sent twice", 0.05),
        FaultKind("flip", "1 to 3 bits of a reply are flipped", 0.05),
        FaultKind("cut", "the end of a reply is missing", 0.05),
        FaultKind("tear", "before a reply comes a frame with its CRC but older data", 0.05),
        FaultKind("stray", "stray bytes come before each frame", 0.05),
        FaultKind("id", "a reply has a controller ID other than 00", 0.05),
        FaultKind("foreign", "a reply to another master comes before or after a reply", 0.05),
        FaultKind("drip", "a reply arrives byte by byte, with this delay between", 0.05, "5ms", "time"),
        FaultKind("flood", "garbage of this size comes before a reply", 0.01, "64KiB", "size"),
        FaultKind("stall", "the controller acts on a request only after this delay", 0.01, "1s", "time"),
        FaultKind("silence", "a request is lost, and all requests within this time", 0.01, "10s", "time"),
        FaultKind("hangup", "the connection is closed during a reply", 0.01, on_network=True),
        FaultKind("half-open", "the connection stays open, but nothing is answered", 0.01, on_network=True),
        FaultKind("banner", "a connection starts with a text", 1.0, "ready", "text", on_connect=True, on_network=True),
        FaultKind("refuse", "a connection is accepted and closed at once", 0.5, on_connect=True, on_network=True),
    )
}
"""All kinds of faults, by name."""


class Fault(NamedTuple):
    """A kind of fault with its probability and value. See `parse_fault`."""

    kind: str
    probability: float
    """0 to 1."""
    amount: float = 0.0
    """Seconds or bytes, for the kinds that take a time or a size."""
    text: str = ""
    """For the kind that takes a text."""


def parse_fault(spec: str) -> Fault:
    """Return the fault that *spec*, ``KIND[=VALUE][@PROBABILITY]``, describes. Raises ValueError if it is invalid."""
    match = _split(spec)
    name, value, probability = match.groups() if match else (spec, None, None)
    kind = FAULT_KINDS.get(name)
    if kind is None:
        raise ValueError(f"{spec!r} is not a valid fault, such as late=2.5s@5%; the kinds are {', '.join(FAULT_KINDS)}")
    if kind.takes == "" and value is not None:
        if probability is not None or not value.endswith("%"):
            raise ValueError(f"{spec!r} is not a valid fault: {name} takes no value; write {name} or {kind.example}")
        # Only a percentage: in "drop=1" it is unclear whether 1 means always or 1 %.
        value, probability = None, value
    chance = kind.probability if probability is None else _amount(probability, _FRACTIONS)
    if kind.takes == "text" and value is not None and chance is None:
        # A text may contain "@": if no valid probability follows it, it is part of the text.
        value, chance = f"{value}@{probability}", kind.probability
    if chance is None:
        raise ValueError(f"{spec!r} is not a valid fault: a probability is 0% to 100%, or 0 to 1; write {kind.example}")
    if value is None:
        value = kind.default
    if kind.takes == "text":
        return Fault(name, chance, text=value)
    # Parsed for defaults too: they have the same text form as values from a user.
    amount: float | None = 0.0
    if kind.takes == "time":
        amount, expected = _amount(value, _SECONDS, _MAX_SECONDS), "a time in ms or s, up to an hour"
    elif kind.takes == "size":
        amount, expected = _amount(value, _BYTES, _MAX_BYTES), "a size in B, KiB or MiB, up to 64MiB"
    if amount is None:
        raise ValueError(
            f"{spec!r} is not a valid fault: {name} takes {expected}; write {name}={kind.default} or {kind.example}"
        )
    return Fault(name, chance, amount)


def _amount(text: str, units: Mapping[str, float], maximum: float = 1.0) -> float | None:
    """Return the value of a number with one of *units*. None if the text is invalid or the value above *maximum*."""
    match = _number(text)
    unit = units.get(match[2]) if match else None
    if match is None or unit is None:
        return None
    amount = float(match[1]) * unit
    return amount if amount <= maximum else None


class Faults:
    """Faults that the clients of a simulated controller see. Several faults can happen at the same time.

    ``Faults("late=2.5s@5%", "flip=1%", seed=1)``. Several servers can share one object, which then counts the faults of
    all of them. The faults are reproducible: the same seed, the same order of connections and the same requests on each
    connection give the same faults. Raises ValueError for an invalid fault, and TypeError or ValueError for a seed that
    is not a whole number of 0 or more.
    """

    def __init__(self, *specs: str, seed: int = 0) -> None:
        self.faults: tuple[Fault, ...] = tuple(map(parse_fault, specs))
        """The faults in the given order. If two of the same kind are drawn for one request, the first one happens."""
        self.seed: int = check_whole("seed", seed)
        self.injected: Counter[str] = Counter()
        """Number of injected faults of each kind, over all connections."""
        self._connections = 0

    def __repr__(self) -> str:
        return f"<Faults {' '.join(fault.kind for fault in self.faults)}, seed {self.seed}>"

    def check_serial(self) -> None:
        """Raise ValueError if a fault needs a network connection."""
        kinds = [fault.kind for fault in self.faults if FAULT_KINDS[fault.kind].on_network]
        if kinds:
            raise ValueError(f"a serial line has no connections, so there is no {' and no '.join(kinds)}: serve TCP")

    def next_random(self) -> Random:
        """Return the random number generator of the next connection.

        Each connection has its own, so its faults do not depend on the timing of requests on other connections.
        """
        # A text seed: Random hashes it, so that consecutive connections do not have similar random numbers.
        self._connections += 1
        return Random(f"{self.seed} {self._connections}")  # noqa: S311  # not used for secrets
