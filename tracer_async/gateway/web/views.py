"""The JSON objects of the API. Pure functions; ``openapi.json`` describes what they return."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from typing import Any

from tracer_async import (
    AmbiguousReplyError,
    EchoError,
    HostNotFoundError,
    LinkError,
    LinkFloodedError,
    LinkLostError,
    LinkRefusedError,
    LinkTimeoutError,
    LoadRefusedError,
    LoadUnknownError,
    MalformedReplyError,
    PortBusyError,
    PortNotFoundError,
    PortPermissionError,
    RealtimeData,
    ResponseTimeoutError,
    TlsError,
)
from tracer_async.gateway._load_switch import LoadDeadlineError
from tracer_async.gateway.events import Controller, ControllerEvent
from tracer_async.gateway.history.query import DayEnergy, Series
from tracer_async.gateway.listening import ListensOnlyError, SilentLineError
from tracer_async.gateway.metrics import FAULTS
from tracer_async.records import rounded_age, utc

__all__ = ["controller_object", "days_object", "reason_of", "series_object"]

# The first class that fits counts. The texts of the errors themselves have addresses and paths, which not everybody
# who may look at the dashboard should see.
_REASONS: tuple[tuple[type[BaseException], str], ...] = (
    (EchoError, "only echoes of the requests come back"),
    (ResponseTimeoutError, "no answer"),
    (AmbiguousReplyError, "the answer may belong to another request"),
    (MalformedReplyError, "the answer makes no sense"),
    (PortNotFoundError, "the serial port does not exist"),
    (PortPermissionError, "no permission to open the serial port"),
    (PortBusyError, "another program has the serial port open"),
    (HostNotFoundError, "the host name is not found"),
    (LinkRefusedError, "connection refused"),
    (LinkTimeoutError, "no connection"),
    (TlsError, "the TLS handshake failed"),
    (LinkFloodedError, "the other side sends only garbage"),
    (LinkLostError, "connection lost"),
    (LinkError, "no connection"),
    (ListensOnlyError, "the gateway only listens to this controller"),
    (LoadUnknownError, "it is unknown whether the load was switched"),
    (LoadDeadlineError, "it is unknown whether the load was switched"),
)

_REFUSALS = {
    "over_discharge": "the battery is too low",
    "load_short_circuit": "the load is short-circuited",
    "overload": "the load draws too much",
}


def reason_of(error: BaseException) -> str:
    """Return in a few words, without an address, why a controller did not do what was asked."""
    if isinstance(error, LinkTimeoutError) and isinstance(error.__cause__, LinkError):
        error = error.__cause__  # why there is no connection says more
    if isinstance(error, LoadUnknownError | LoadDeadlineError) and not error.sent:
        return "the controller does not answer" if error.__cause__ is None else reason_of(error.__cause__)
    if isinstance(error, LoadRefusedError):
        causes = [words for name, words in _REFUSALS.items() if getattr(error.reading, name)]
        why = " and ".join(causes) or "is its load mode 1 manual?"
        return f"the controller leaves the load {'on' if error.reading.load_on else 'off'}: {why}"
    if isinstance(error, SilentLineError):
        return str(error)  # it has no address
    return next((words for kind, words in _REASONS if isinstance(error, kind)), "unexpected error")


def controller_object(
    controller: Controller, event: ControllerEvent | None, *, now: float, monotonic: float, zone: tzinfo | None
) -> dict[str, Any]:
    """Return what is known about a controller at this moment."""
    about: dict[str, Any] = {
        "name": controller.name,
        "title": controller.title,
        "interval": controller.interval,
        "lifetime": controller.lifetime,
        "switchable": controller.switchable,
        "online": False,
        "reason": "no reading yet",
        "since": None,
        "time": None,
        "age": None,
        "state": None,
        "faults": [],
        "reading": None,
        "energy": None,
    }
    if event is None:
        return about
    # The present state of a controller that stopped to give readings began with the last one, not when it went online.
    silent = event.online and not event.is_current(monotonic)
    about["since"] = utc(event.reading.time if silent else event.since)
    if event.energy.day is not None:  # before the first totals are on the disk, they are unknown, not 0
        about["energy"] = _energy(event, now, zone)
    error, data = event.reading.error, event.reading.data
    if error is not None:
        about["reason"] = reason_of(error)
    elif not event.is_current(monotonic):
        about["reason"] = f"no reading for {monotonic - event.monotonic:.0f} s"
    if error is not None or data is None or not event.is_current(monotonic):
        return about
    return about | {
        "online": True,
        "reason": None,
        "time": utc(event.reading.time),
        "age": rounded_age(max(monotonic - event.monotonic, 0.0) + event.reading.age),
        "state": state_of(data),
        "faults": [name for name in FAULTS if getattr(data, name)],
        "reading": data.to_dict(),
    }


def state_of(data: RealtimeData) -> str:
    """Return what the controller does: ``charging``, ``full`` or ``idle``."""
    if data.battery_full:
        return "full"
    return "charging" if data.charging else "idle"


def _energy(event: ControllerEvent, now: float, zone: tzinfo | None) -> dict[str, Any]:
    energy = event.energy
    today = datetime.fromtimestamp(now, UTC).astimezone(zone).date()
    is_today = energy.day == today
    return {
        "charge": round(energy.charge, 3),
        "load": round(energy.load, 3),
        # Of another day than today nothing is known about today.
        "charge_today": round(energy.charge_today, 3) if is_today else None,
        "load_today": round(energy.load_today, 3) if is_today else None,
        "unknown_seconds": round(energy.unknown, 3),
    }


def series_object(series: Series) -> dict[str, Any]:
    """Return points of the history as columns, which take a third of the bytes of rows."""
    columns: dict[str, Any] = {"step": series.step, "time": [point.time for point in series.points]}
    for name in ("battery_voltage", "pv_voltage", "charge_power", "load_power", "battery_temperature"):
        values = [getattr(point, name) for point in series.points]
        columns[name] = {
            kind: [round(value[index], 2) for value in values] for index, kind in enumerate(("min", "mean", "max"))
        }
    return columns


def days_object(days: list[DayEnergy]) -> dict[str, Any]:
    """Return the energy of each day, in watt-hours."""
    return {
        "days": [
            {"day": day.day.isoformat(), "charge": round(day.charge, 3), "load": round(day.load, 3)} for day in days
        ]
    }
