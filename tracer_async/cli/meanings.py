"""What an event of a capture means: a kind, words for people, and values for programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tracer_async.capture import CapturedEvent
from tracer_async.cli.capture_counts import counted, start_up_size
from tracer_async.cli.formats import FLAGS
from tracer_async.cli.settings_words import settings_to_dict
from tracer_async.protocol import (
    CommandCode,
    ControlSettings,
    CorruptFrame,
    Frame,
    LoadState,
    Noise,
    RealtimeData,
)
from tracer_async.records import Value

__all__ = ["Meaning", "meaning_of"]

_SHOWN = 16


class Meaning(NamedTuple):
    """What an event is: a kind to count by, words for people, and values for programs."""

    kind: str
    words: str
    values: Mapping[str, Value]


def meaning_of(captured: CapturedEvent) -> Meaning:
    """Return the meaning of an event of a capture."""
    match captured.event:
        case Frame() as frame:
            return _meaning_of_frame(frame, captured.sender)
        case CorruptFrame(raw, reason):
            return Meaning("damaged", f"{reason}, {len(raw)} bytes: {_hex(raw)}", {"reason": reason, "raw": raw.hex()})
        case Noise(raw):
            if start_up_size(raw) == len(raw):
                return Meaning("start-up", _hex(raw), {"raw": raw.hex()})
            # A bridge's banner is easier to read as text.
            text = repr(raw[:48].decode("ascii")) if raw.isascii() and raw.decode("ascii").strip().isprintable() else ""
            return Meaning("noise", f"{counted(len(raw), 'byte')}: {text or _hex(raw)}", {"raw": raw.hex()})


def _meaning_of_frame(frame: Frame, sender: str) -> Meaning:
    # The data does not tell its direction. The sender's name does, and so does an ID that no reply has.
    asked = sender not in ("", "controller") or (not sender and frame.controller_id != 0)
    try:
        match frame.command, len(frame.data):
            case CommandCode.READ_REALTIME, 0 | 1:
                return Meaning("read request", f"ID {frame.controller_id:02X}", {})
            case CommandCode.READ_REALTIME, _:
                data = RealtimeData.from_bytes(frame.data)
                return Meaning("reading", _reading_words(data), data.to_dict())
            case CommandCode.MANUAL_CONTROL, _:
                state = LoadState.from_bytes(frame.data)
                kind = "load request" if asked else "load state" if sender else "load"
                return Meaning(kind, str(state), {"load_on": bool(state)})
            case CommandCode.WRITE_SETTINGS, 0:
                return Meaning("settings reply", "", {})
            case CommandCode.WRITE_SETTINGS, _:
                values = settings_to_dict(ControlSettings.from_bytes(frame.data))
                words = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in values.items())
                return Meaning("settings", words, values)
    except ValueError as error:
        return Meaning("malformed", str(error), {"reason": str(error)})
    return Meaning("unknown", f"command {frame.command:02X}, data {_hex(frame.data) or 'none'}", {})


def _reading_words(data: RealtimeData) -> str:
    words = [
        f"battery {data.battery_voltage:5.2f} V {data.battery_temperature} °C",
        f"PV {data.pv_voltage:5.2f} V",
        f"charge {data.charge_current:.2f} A",
        f"load {'on' if data.load_on else 'off'} {data.load_current:.2f} A",
        *(word for name, word in FLAGS.items() if getattr(data, name)),
    ]
    return ", ".join(words)


def _hex(raw: bytes) -> str:
    return raw[:_SHOWN].hex(" ").upper() + (" ..." if len(raw) > _SHOWN else "")
