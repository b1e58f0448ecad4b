"""The data of the commands: real-time data, load state and control settings, decoded and encoded.

A client decodes what a simulated controller encodes, and the reverse. So every value has ``from_bytes`` and
``to_bytes``. They raise ValueError for bytes or values that the protocol does not have, and TypeError for values of
another type. The ranges are in one table, `tracer_async.protocol._numbers`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import NamedTuple, Self

from tracer_async.protocol._numbers import check_flag, check_number, check_whole

__all__ = [
    "BatteryType",
    "ControlSettings",
    "LoadMode",
    "LoadState",
    "RealtimeData",
]

# The fields in the order of the A0 reply (protocol document). The four reserved bytes are kept unchanged.
_REALTIME = Struct("<HH2sHHH???c????BHc")
_unpack_realtime = _REALTIME.unpack

# Bytes 12 to 19 are flags, except byte 15, which is reserved. A flag is 0 or 1, so its other 7 bits must be 0. The CRC
# is weak (two flipped bits that are 210 apart pass), so this check finds damaged replies that it misses.
_flags = Struct(">Q").unpack_from
_NO_FLAGS = 0xFEFEFE00FEFEFEFE

# The constructor of a NamedTuple calls this. Calling it directly saves a quarter of the decoding time.
_new = tuple.__new__


class RealtimeData(NamedTuple):
    """The answer to A0: the measurements and flags of the controller.

    ==========================  ===========================================================================
    field                       unit and meaning
    ==========================  ===========================================================================
    ``battery_voltage``         V, in steps of 0.01
    ``pv_voltage``              V at the panel, in steps of 0.01; 0.2 to 0.4 V under a dark panel
    ``load_current``            A that the load draws, in steps of 0.01
    ``over_discharge_voltage``  V; the controller cuts the load when the battery falls below it
    ``battery_full_voltage``    V; the battery counts as full above it
    ``load_on``                 the load switch is closed
    ``overload``                the load draws too much
    ``load_short_circuit``      the load is short-circuited
    ``battery_over_voltage``    the battery voltage is too high (the document calls it battery overload)
    ``over_discharge``          the battery is too low and the controller has cut the load
    ``battery_full``            the battery is full
    ``charging``                the panel is charging the battery
    ``battery_temperature``     degrees Celsius, -30 to 225
    ``charge_current``          A into the battery, in steps of 0.01
    ``reserved``                the bytes at offsets 4, 5, 15 and 23; the third changes, its meaning is unknown
    ``charge_power``            W into the battery: battery voltage times charge current
    ``load_power``              W that the load draws: battery voltage times load current
    ==========================  ===========================================================================

    ``RealtimeData.from_bytes(data).to_bytes() == data`` for every valid reply. Source: protocol document, table of
    command A0, corrected from captures where it is wrong.
    """

    battery_voltage: float
    pv_voltage: float
    load_current: float
    over_discharge_voltage: float
    battery_full_voltage: float
    load_on: bool
    overload: bool
    load_short_circuit: bool
    battery_over_voltage: bool
    over_discharge: bool
    battery_full: bool
    charging: bool
    battery_temperature: int
    charge_current: float
    reserved: bytes = bytes(4)

    @property
    def charge_power(self) -> float:
        """Watts into the battery: battery voltage times charge current."""
        return self.battery_voltage * self.charge_current

    @property
    def load_power(self) -> float:
        """Watts that the load draws: battery voltage times load current."""
        return self.battery_voltage * self.load_current

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Decode the data of an A0 reply. Raises ValueError if it is not 24 bytes, or if a flag is not 0 or 1."""
        if len(data) != 24:
            raise ValueError(f"real-time data is 24 bytes, not {len(data)}")
        if _flags(data, 12)[0] & _NO_FLAGS:
            raise ValueError(f"a flag of real-time data is neither 0 nor 1: {data.hex()}")
        (
            battery,
            pv,
            reserved_4,
            load,
            over_discharge_voltage,
            full_voltage,
            load_on,
            overload,
            short,
            reserved_15,
            over_voltage,
            over_discharge,
            full,
            charging,
            temperature,
            charge,
            reserved_23,
        ) = _unpack_realtime(data)
        values = (
            battery / 100,
            pv / 100,
            load / 100,
            over_discharge_voltage / 100,
            full_voltage / 100,
            load_on,
            overload,
            short,
            over_voltage,
            over_discharge,
            full,
            charging,
            temperature - 30,
            charge / 100,
            reserved_4 + reserved_15 + reserved_23,
        )
        return _new(cls, values)

    def to_bytes(self) -> bytes:
        """Encode as the 24 data bytes of an A0 reply.

        The flags may be bools, or 0 or 1. Raises TypeError for a field of another type, a float in
        ``battery_temperature`` for example, and ValueError for a value that does not fit its field.
        """
        reserved: object = self.reserved
        if not isinstance(reserved, bytes):
            raise TypeError(f"reserved must be 4 bytes, not {type(reserved).__name__}")
        if len(reserved) != 4:
            raise ValueError(f"reserved must be 4 bytes, not {len(reserved)}")
        return _REALTIME.pack(
            self._hundredths("battery_voltage"),
            self._hundredths("pv_voltage"),
            reserved[:2],
            self._hundredths("load_current"),
            self._hundredths("over_discharge_voltage"),
            self._hundredths("battery_full_voltage"),
            check_flag("load_on", self.load_on),
            check_flag("overload", self.overload),
            check_flag("load_short_circuit", self.load_short_circuit),
            reserved[2:3],
            check_flag("battery_over_voltage", self.battery_over_voltage),
            check_flag("over_discharge", self.over_discharge),
            check_flag("battery_full", self.battery_full),
            check_flag("charging", self.charging),
            check_whole("battery_temperature", self.battery_temperature) + 30,
            self._hundredths("charge_current"),
            reserved[3:],
        )

    def to_dict(self) -> dict[str, float | bool | str]:
        """Return all fields and both powers by their names, as values that JSON has.

        Volts, amperes and watts are rounded to 0.01, the resolution of the controller. ``reserved`` is 8 hexadecimal
        digits. Raises TypeError or ValueError as `to_bytes` does.
        """
        data = self.from_bytes(self.to_bytes())  # checks and rounds all fields
        return {
            **data._asdict(),
            "reserved": data.reserved.hex(),
            "charge_power": _power(data.battery_voltage, data.charge_current),
            "load_power": _power(data.battery_voltage, data.load_current),
        }

    def _hundredths(self, name: str) -> int:
        return round(check_number(name, getattr(self, name)) * 100)


def _power(volts: float, amperes: float) -> float:
    # The product of two whole numbers of hundredths is exact, so code that uses NumPy columns rounds it to the same
    # watts.
    return round(round(volts * 100) * round(amperes * 100) / 100) / 100


class LoadState(IntEnum):
    """The answer to AA: the state of the load switch.

    ``bool(LoadState.OFF)`` is False, ``bool(LoadState.ON)`` is True. ``str()`` gives "off" or "on".
    """

    OFF = 0
    ON = 1

    def __str__(self) -> str:
        return self.name.lower()

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    @classmethod
    def _missing_(cls, value: object) -> Self:
        # Called only for a value that equals no member. The check raises the error that all options raise.
        return cls(check_flag("load", value))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:  # type: ignore[override]  # int.from_bytes has another meaning
        """Decode an AA reply. Raises ValueError if its first byte is not 0 or 1, or if it is empty."""
        # The document has one byte. An Arduino program reads a reply of 13 bytes, so more bytes are accepted.
        if not data:
            raise ValueError("a load state is at least 1 byte, not 0")
        if data[0] > 1:
            raise ValueError(f"a load state is 0 or 1, not {data[0]}")
        return cls(data[0])

    def to_bytes(self) -> bytes:  # type: ignore[override]  # as above
        """Encode as the data byte of an AA request or reply."""
        return bytes((self,))


class BatteryType(IntEnum):
    """The battery type: byte 3 of the settings."""

    GEL = 0
    SEALED = 1
    FLOODED = 2


class LoadMode(IntEnum):
    """The load control mode, which says when the load is on: bytes 5 and 6 of the settings."""

    DUSK_TO_DAWN = 0
    HOURS_1 = 1
    HOURS_2 = 2
    HOURS_3 = 3
    HOURS_4 = 4
    HOURS_5 = 5
    HOURS_6 = 6
    HOURS_7 = 7
    HOURS_8 = 8
    HOURS_9 = 9
    HOURS_10 = 10
    HOURS_11 = 11
    HOURS_12 = 12
    HOURS_13 = 13
    HOURS_14 = 14
    HOURS_15 = 15
    TEST = 16
    MANUAL = 17
    OFF = 18

    @classmethod
    def hours(cls, hours: int) -> Self:
        """The mode that keeps the load on for *hours*, 1 to 15: after dusk as mode 1, before dawn as mode 2."""
        return cls(check_whole("hours", hours))


_SETTINGS: dict[str, type[int]] = {
    "battery_type": BatteryType,
    "battery_capacity": int,
    "temperature_compensation": int,
    "load_mode_1": LoadMode,
    "load_mode_2": LoadMode,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlSettings:
    """The settings that AD writes. Unverified on hardware: there is no public capture of this command.

    No command reads the settings back. A write replaces all of them, so none has a default.

    An int becomes a member of its enum. Raises TypeError for a value that is not a whole number, ValueError for a
    number that the protocol does not have.
    """

    battery_type: BatteryType
    battery_capacity: int
    """Ampere-hours, 10 to 2550 in steps of 10."""
    temperature_compensation: int
    """The temperature compensation coefficient, 0 to 10 (the document gives no unit)."""
    load_mode_1: LoadMode
    """Any `LoadMode`."""
    load_mode_2: LoadMode
    """A second time at night when the load is on: 1 to 15 hours (before dawn), or off."""

    def __post_init__(self) -> None:
        for name, kind in _SETTINGS.items():
            # The dataclass is frozen.
            object.__setattr__(self, name, kind(check_whole(name, getattr(self, name))))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Decode the 7 data bytes of an AD request. The first two are unused."""
        if len(data) != 7:
            raise ValueError(f"control settings are 7 bytes, not {len(data)}")
        return cls(
            temperature_compensation=data[2],
            battery_type=data[3],  # type: ignore[arg-type]  # the constructor makes members of the enums
            battery_capacity=data[4] * 10,
            load_mode_1=data[5],  # type: ignore[arg-type]
            load_mode_2=data[6],  # type: ignore[arg-type]
        )

    def to_bytes(self) -> bytes:
        """Encode as the 7 data bytes of an AD request."""
        return bytes(
            (
                0,
                0,
                self.temperature_compensation,
                self.battery_type,
                self.battery_capacity // 10,
                self.load_mode_1,
                self.load_mode_2,
            )
        )
