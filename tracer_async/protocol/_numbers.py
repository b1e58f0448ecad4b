"""The range of every numeric option and field of the library, and the functions that check them.

Two rules:

1. A value of a wrong type is a TypeError: a value that is not a number, a bool instead of a number, a float instead of
   a whole number. Every other wrong value is a ValueError. Each message has the name, the range and the value.
2. Only int and float and their subclasses are numbers, so members of an IntEnum and numpy.float64 are accepted. A
   Decimal, a Fraction and a numpy.int64 are not: converting them could round them without notice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from types import MappingProxyType

__all__ = ["RANGES", "Range", "check_backoff", "check_flag", "check_number", "check_whole"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """The values that an option or a field may have. ``str()`` gives the text for error messages and the docs."""

    where: str
    """The class or function that has the option or field."""
    low: float
    high: float = inf
    """The largest value; infinity means any finite number."""
    whole: bool = False
    """Only whole numbers: an int, not a float."""
    flag: bool = False
    """False and True are accepted too."""
    above: bool = False
    """The value must be above ``low``, not equal to it."""
    below: bool = False
    """The value must be below ``high``, not equal to it."""
    step: int = 1
    """For whole numbers: a multiple of this."""
    also: int | None = None
    """One more value that is allowed."""
    unit: str = ""
    words: str = ""
    """The text of ``str()``, where the other fields do not describe the range."""

    def __contains__(self, value: float) -> bool:
        if value == self.also:
            return True
        # Comparisons with NaN are false, so NaN is in no range.
        if not self.low <= value <= self.high or value == inf:
            return False
        if (self.above and value == self.low) or (self.below and value == self.high):
            return False
        return value % self.step == 0 if self.step > 1 else True

    def __str__(self) -> str:
        if self.words:
            return self.words
        unit = f" {self.unit}" if self.unit else ""
        if self.high == inf:
            return f"{self.low}{unit} or more" if self.whole else f"{self.low}{unit} or more, and finite"
        if self.above:
            return f"above {self.low} and at most {self.high}{unit}"
        if self.below:
            return f"at least {self.low} and below {self.high}{unit}"
        steps = f" in steps of {self.step}" if self.step > 1 else ""
        return f"{self.low} to {self.high}{unit}{steps}"


_LONGEST_REPR = 60

_CLIENT = "TracerClient"
_SESSION = "TracerClient, SessionOptions"
_SETTINGS = "ControlSettings"
_REALTIME = "RealtimeData"
_SIMULATOR = "SimulatedTracer"
_INSTALLATION = "Installation"

_RANGES = {
    "controller_id": Range(where=f"{_SESSION}, Frame", low=0, high=255, whole=True),
    "timeout": Range(where=_SESSION, low=0, above=True, high=3600, unit="s"),
    "connect_timeout": Range(where=_CLIENT, low=0, above=True, high=3600, unit="s"),
    "link_timeout": Range(where="SessionOptions", low=0, above=True, high=3600, unit="s"),
    "fence": Range(where=_SESSION, low=0, high=3600, unit="s"),
    "retries": Range(where=_SESSION, low=0, high=100, whole=True),
    "max_timeouts": Range(where=_SESSION, low=1, high=1_000_000, whole=True, unit="timeouts"),
    # The lower limit: with 0 a client would retry as fast as the processor allows, if each attempt is refused at once.
    "backoff[0]": Range(where=_CLIENT, low=0.001, unit="s"),
    "backoff[1]": Range(where=_CLIENT, low=0.001, unit="s", words="at least backoff[0], and finite"),
    "max_age": Range(where="read_realtime, share", low=0, unit="s"),
    "reply_within": Range(where="share", low=0, above=True, high=3600, unit="s"),
    "max_clients": Range(where="share", low=1, high=10_000, whole=True),
    "idle_timeout": Range(where="share", low=1, high=1_000_000_000, unit="s"),
    "interval": Range(where="poll, Fleet.add", low=0.001, high=1_000_000_000, unit="s"),
    "connecting": Range(where="Fleet", low=1, whole=True),
    "capacity": Range(where="Fleet", low=1, whole=True),
    "maxsize": Range(where="TracerClient.frames, Subscription", low=1, whole=True),
    "chunk_size": Range(where="capture.decode_chunks", low=1, high=1 << 30, whole=True, unit="bytes"),
    "command": Range(where="Frame", low=0, high=255, whole=True),
    "load": Range(
        where="TracerClient.set_load, ManualControl",
        low=0,
        high=1,
        whole=True,
        flag=True,
        words="0 (off, False) or 1 (on, True)",
    ),
    "hours": Range(where="LoadMode.hours", low=1, high=15, whole=True),
    "battery_type": Range(where=_SETTINGS, low=0, high=2, whole=True, words="0 (gel), 1 (sealed) or 2 (flooded)"),
    "battery_capacity": Range(where=_SETTINGS, low=10, high=2550, whole=True, step=10, unit="Ah"),
    "temperature_compensation": Range(where=_SETTINGS, low=0, high=10, whole=True),
    "load_mode_1": Range(where=_SETTINGS, low=0, high=18, whole=True),
    "load_mode_2": Range(where=_SETTINGS, low=1, high=15, whole=True, also=18, words="1 to 15 (hours) or 18 (off)"),
    **{
        name: Range(where=_REALTIME, low=0, high=655.35, unit=unit)
        for name, unit in {
            "battery_voltage": "V",
            "pv_voltage": "V",
            "load_current": "A",
            "over_discharge_voltage": "V",
            "battery_full_voltage": "V",
            "charge_current": "A",
        }.items()
    },
    "battery_temperature": Range(where=_REALTIME, low=-30, high=225, whole=True, unit="degrees Celsius"),
    **{
        name: Range(where=_REALTIME, low=0, high=1, whole=True, flag=True, words="False (0) or True (1)")
        for name in (
            "load_on",
            "overload",
            "load_short_circuit",
            "battery_over_voltage",
            "over_discharge",
            "battery_full",
            "charging",
        )
    },
    "seed": Range(where="SimulatedTracer, Faults", low=0, high=2**63, whole=True),
    "time_scale": Range(where=_SIMULATOR, low=0, high=1_000_000),
    "start_hour": Range(where=_SIMULATOR, low=0, high=24, below=True, unit="h"),
    "state_of_charge": Range(where=_SIMULATOR, low=0, high=1),
    "irradiance": Range(where=_SIMULATOR, low=0, high=1500, unit="W/m2"),
    "SimulatedTracer.battery_voltage": Range(where=_SIMULATOR, low=8, high=40, unit="V"),
    "load_watts": Range(where="SimulatedTracer, Installation", low=0, high=10_000, unit="W"),
    "panel_watts": Range(where=_INSTALLATION, low=0, high=10_000, unit="W"),
    "panel_voltage": Range(where=_INSTALLATION, low=15, high=150, unit="V"),
    "Installation.battery_capacity": Range(where=_INSTALLATION, low=5, high=10_000, unit="Ah"),
    "rated_current": Range(where=_INSTALLATION, low=1, high=100, unit="A"),
    "sunrise": Range(where=_INSTALLATION, low=0, high=24, below=True, unit="h"),
    "sunset": Range(where=_INSTALLATION, low=0, above=True, high=24, unit="h", words="above sunrise and at most 24 h"),
    "cloudiness": Range(where=_INSTALLATION, low=0, high=1),
    "temperature": Range(where=_INSTALLATION, low=-20, high=60, unit="degrees Celsius"),
    "speed": Range(where="Replay", low=0, high=1_000_000),
    "port": Range(where="serve_tcp", low=0, high=65535, whole=True),
}

RANGES: Mapping[str, Range] = MappingProxyType(_RANGES)
"""All numeric options and fields by name, in the order of the docs."""


def check_number(name: str, value: object) -> float:
    """Return the *value* of the option or field *name* as a float; raise TypeError or ValueError if it is wrong."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, {RANGES[name]}, not {_typed(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = inf if value > 0 else -inf
    if number not in RANGES[name]:
        raise ValueError(f"{name} must be {RANGES[name]}, not {_shown(value)}")
    return number


def check_whole(name: str, value: object) -> int:
    """Return the *value* of the option or field *name* as an int; raise TypeError or ValueError if it is wrong."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, {RANGES[name]}, not {_typed(value)}")
    if value not in RANGES[name]:
        raise ValueError(f"{name} must be {RANGES[name]}, not {_shown(value)}")
    return int(value)


def check_flag(name: str, value: object) -> bool:
    """Return the *value* of the flag *name*, a bool or 0 or 1; raise TypeError or ValueError if it is wrong."""
    if not isinstance(value, int):
        raise TypeError(f"{name} must be {RANGES[name]}, not {_typed(value)}")
    if value not in RANGES[name]:
        raise ValueError(f"{name} must be {RANGES[name]}, not {_shown(value)}")
    return bool(value)


def check_backoff(value: object) -> tuple[float, float]:
    """Return the option ``backoff``: a tuple or list of two delays, the second one at least as long as the first.

    Raises TypeError or ValueError if it is wrong.
    """
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"backoff must be a pair (initial, maximum) of seconds, not {_typed(value)}")
    if len(value) != 2:
        raise ValueError(f"backoff must be a pair (initial, maximum) of seconds, not {len(value)} values")
    initial, maximum = check_number("backoff[0]", value[0]), check_number("backoff[1]", value[1])
    if maximum < initial:
        raise ValueError(f"backoff[1] must be at least backoff[0], which is {initial} s, not {maximum}")
    return initial, maximum


def _shown(value: float) -> str:
    # str() raises ValueError for an int of more than 4300 digits.
    if isinstance(value, int) and value.bit_length() > 64:
        return f"an int of {value.bit_length()} bits"
    return str(value)


def _typed(value: object) -> str:
    """Return *value*, shortened, with its type: numpy's ``1`` and the int ``1`` look the same."""
    try:
        shown = " ".join(repr(value).split())  # the repr of an array has several lines, a message has one
    except Exception:  # noqa: BLE001  # any error of a repr; the wrong value must still be reported
        shown = "a value"
    if len(shown) > _LONGEST_REPR:
        shown = f"{shown[:_LONGEST_REPR]}..."
    return f"{shown} ({type(value).__name__})"
