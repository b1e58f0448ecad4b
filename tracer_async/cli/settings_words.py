"""The control settings in the words and numbers that the command line takes."""

from __future__ import annotations

from tracer_async.protocol import ControlSettings, LoadMode

__all__ = ["LOAD_MODES", "LOAD_MODES_2", "mode_word", "settings_to_dict"]

_WORDS = {
    LoadMode.DUSK_TO_DAWN: "dusk-to-dawn",
    LoadMode.TEST: "test",
    LoadMode.MANUAL: "manual",
    LoadMode.OFF: "off",
}


def mode_word(mode: LoadMode) -> str:
    """Return the word for a load mode: "manual" or "5h", for example."""
    return _WORDS.get(mode, f"{mode.value}h")


LOAD_MODES = {mode_word(mode): mode for mode in LoadMode}
LOAD_MODES_2 = {word: mode for word, mode in LOAD_MODES.items() if mode is LoadMode.OFF or word.endswith("h")}


def settings_to_dict(values: ControlSettings) -> dict[str, str | int]:
    """Return the settings by their names."""
    return {
        "battery_type": values.battery_type.name.lower(),
        "battery_capacity": values.battery_capacity,
        "temperature_compensation": values.temperature_compensation,
        "load_mode_1": mode_word(values.load_mode_1),
        "load_mode_2": mode_word(values.load_mode_2),
    }
