"""Readings with given powers."""

from __future__ import annotations

from tracer_async import Reading, RealtimeData

__all__ = ["power_reading"]


def power_reading(at: float, charge: float, load: float = 0.0) -> Reading:
    """Return a reading at the wall time *at*, with these powers in watts."""
    data = RealtimeData(
        battery_voltage=1.0,
        pv_voltage=17.0,
        load_current=load,
        over_discharge_voltage=11.1,
        battery_full_voltage=14.4,
        load_on=True,
        overload=False,
        load_short_circuit=False,
        battery_over_voltage=False,
        over_discharge=False,
        battery_full=False,
        charging=True,
        battery_temperature=25,
        charge_current=charge,
    )
    return Reading(at, data)
