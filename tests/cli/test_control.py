"""Switching the load, and writing settings or not."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.cli.conftest import Answer, Command
from tracer_async.protocol import CommandCode, ControlSettings, Event, Frame, FrameDecoder

SETTINGS = (
    *("--battery-type", "sealed", "--capacity", "120", "--temperature-compensation", "3"),
    *("--load-mode-1", "dusk-to-dawn", "--load-mode-2", "5h"),
)
QUICK = ("--timeout", "0.05", "--retries", "0")
OFF = bytes.fromhex("b0041e00000000005604a005000000500000000032000000")


def stubborn(frame: Frame) -> bytes:
    """A controller whose load stays off."""
    data = OFF if frame.command == CommandCode.READ_REALTIME else b"\0"
    return Frame(0, frame.command, data).encode(start_up=False)


@pytest.mark.parametrize("state", ["on", "off"])
def test_the_confirmed_state_is_printed(command: Command, state: str) -> None:
    assert command("load", "sim:", state) == (0, f"load {state}\n", "")


def test_the_url_may_come_from_the_environment(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command("load", "on").code == 2
    monkeypatch.setenv("TRACER_URL", "sim:")
    assert command("load", "on") == (0, "load on\n", "")


@pytest.mark.parametrize("words", [("sim:", "ON"), ("ON", "sim:"), ("on", "sim:"), ("On", "SIM:")])
def test_url_and_state_may_come_in_any_order_and_case(command: Command, words: tuple[str, ...]) -> None:
    assert command("load", *words) == (0, "load on\n", "")


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("on", "off"),
        ("on", "on", "sim:"),
        ("sim:", "on", "tcp://localhost:1"),
        ("sim:",),
        ("sim:", "maybe"),
        ("sim:", "sim:", "on"),
    ],
)
def test_anything_but_a_url_and_a_state_is_a_usage_error(command: Command, words: tuple[str, ...]) -> None:
    assert command("load", *words).code == 2


def test_a_refusal_has_an_exit_code_of_its_own(command: Command, controller: Callable[[Answer], str]) -> None:
    code, out, err = command("load", controller(stubborn), "on")
    assert (code, out) == (6, "")
    assert "it is off" in err


def test_the_hint_of_a_refusal_is_an_option_that_the_command_has(
    command: Command, controller: Callable[[Answer], str]
) -> None:
    _, _, err = command("load", controller(stubborn), "on")
    hint = re.findall(r"--[a-z][\w-]* \w+", err)
    assert hint == ["--load-mode-1 manual"]
    option, value = hint[0].split()
    at = SETTINGS.index(option) + 1
    assert command("settings", "--dry-run", *SETTINGS[:at], value, *SETTINGS[at + 1 :]).code == 0


def test_a_state_that_stays_unknown_has_one_too(command: Command, controller: Callable[[Answer], str]) -> None:
    """The controller answers the reading that comes first, and then nothing more."""
    received: list[Frame] = []

    def answer(frame: Frame) -> bytes:
        received.append(frame)
        return stubborn(frame) if len(received) == 1 else b""

    code, out, err = command("load", controller(answer), "on", *QUICK)
    assert (code, out) == (7, "")
    assert "It may be on or off" in err


def test_a_switch_that_was_not_sent_is_reported_as_such(command: Command, silent: str) -> None:
    code, out, err = command("load", silent, "on", *QUICK)
    assert (code, out) == (7, "")
    assert "was not sent" in err
    assert err.count("\n") == 1


def test_a_dry_run_shows_the_frame_and_needs_no_link(command: Command) -> None:
    code, out, err = command("settings", *SETTINGS, "--dry-run")
    assert (code, err) == (0, "")
    wire = bytes.fromhex(next(line for line in out.splitlines() if line.startswith("frame")).removeprefix("frame"))
    (frame,) = frames(FrameDecoder().feed(wire))
    assert frame.command == CommandCode.WRITE_SETTINGS
    settings = ControlSettings.from_bytes(frame.data)
    assert (settings.battery_capacity, settings.load_mode_2) == (120, 5)
    assert "load mode 1               dusk-to-dawn" in out
    assert "unverified on hardware" in out


def frames(events: list[Event]) -> list[Frame]:
    return [event for event in events if isinstance(event, Frame)]


def test_without_a_terminal_nothing_is_written_unless_told(
    command: Command, controller: Callable[[Answer], str]
) -> None:
    asked: list[Frame] = []

    def answer(frame: Frame) -> bytes:
        asked.append(frame)
        return Frame(0, frame.command, OFF if frame.command == CommandCode.READ_REALTIME else b"").encode()

    url = controller(answer)
    code, out, err = command("settings", url, *SETTINGS)
    assert (code, out, asked) == (2, "", [])
    assert "--yes" in err
    assert command("settings", url, *SETTINGS, "--yes").code == 0
    # A reading comes before the first command on a connection.
    assert [frame.command for frame in asked] == [CommandCode.READ_REALTIME, CommandCode.WRITE_SETTINGS]


@pytest.mark.parametrize(("reply", "expected"), [(b"", 4), (Frame(0, CommandCode.WRITE_SETTINGS, b"\1").encode(), 5)])
def test_settings_without_a_valid_answer_may_have_been_written(
    command: Command, controller: Callable[[Answer], str], reply: bytes, expected: int
) -> None:
    url = controller(lambda frame: stubborn(frame) if frame.command == CommandCode.READ_REALTIME else reply)
    code, out, err = command("settings", url, *SETTINGS, "--yes", *QUICK)
    assert (code, out) == (expected, "")
    assert "may have been written or not" in err


def test_settings_that_were_not_sent_are_reported_as_such(command: Command, silent: str) -> None:
    code, out, err = command("settings", silent, *SETTINGS, "--yes", *QUICK)
    assert (code, out) == (4, "")
    assert "Command AD was not sent" in err
    assert "may have been written" not in err


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (("read", "sim:", "--timeout", "nan"), "timeout"),
        (("read", "sim:", "--timeout", "1e9"), "timeout"),
        (("load", "sim:", "on", "--retries", "101"), "retries"),
        (("watch", "sim:", "--interval", "inf"), "interval"),
        (("watch", "sim:", "--interval", "1e-9"), "interval"),
        (("watch", "sim:", "--interval", "nan"), "interval"),
        (("watch", "sim:", "--timeout", "nan"), "timeout"),
        (("watch", "sim:", "--interval", "nan", "--svg", "view.svg"), "interval"),
        (("simulate", "--time-scale", "nan"), "time_scale"),
        (("simulate", "--seed", "1" * 5000), "seed"),
    ],
)
def test_a_number_out_of_range_is_a_usage_error_that_names_the_range(
    command: Command, words: tuple[str, ...], option: str
) -> None:
    code, out, err = command(*words)
    assert (code, out) == (2, "")
    assert f"{option} must be " in err or f"--{option}" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--capacity", "105"),
        ("--battery-type", "lithium"),
        ("--temperature-compensation", "11"),
        ("--load-mode-1", "16h"),
        ("--load-mode-2", "manual"),
    ],
)
def test_values_that_the_protocol_does_not_have_are_refused(command: Command, option: str, value: str) -> None:
    at = SETTINGS.index(option) + 1
    code, out, err = command("settings", "--dry-run", *SETTINGS[:at], value, *SETTINGS[at + 1 :])
    assert (code, out) == (2, "")
    assert f"'{option}'" in err  # by the name that the user typed
