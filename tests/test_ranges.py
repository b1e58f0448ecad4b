"""Every numeric option and field: which values it accepts, and the error for all others.

The ranges are repeated here, so that the test does not depend on the table in the code. The error messages use the
words of ``docs/ranges.md``.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Awaitable, Callable
from dataclasses import fields
from decimal import Decimal
from fractions import Fraction
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracer_async import (
    BatteryType,
    ClientOptions,
    ControlSettings,
    Fleet,
    Frame,
    LinkClosedError,
    LoadMode,
    LoadState,
    ManualControl,
    RealtimeData,
    Subscription,
    TracerClient,
    poll,
)
from tracer_async.capture import Burst, Recording, decode_chunks
from tracer_async.protocol import SessionOptions
from tracer_async.protocol._numbers import RANGES, Range
from tracer_async.sharing import share
from tracer_async.simulator import Faults, Installation, Replay, SimulatedTracer, serve_tcp

PAGE = (Path(__file__).parents[1] / "docs" / "ranges.md").read_text(encoding="utf-8")
URL = "tcp://127.0.0.1:1"
DATA = RealtimeData.from_bytes(bytes.fromhex("CE04A4060000E8035604A005010000500000000037E80300"))
CAPTURE = Frame(0, 0xA0, DATA.to_bytes()).encode(start_up=False)
RECORDING = Recording(None, (Burst("controller", CAPTURE),))
SETTINGS = {
    "battery_type": BatteryType.GEL,
    "battery_capacity": 100,
    "temperature_compensation": 0,
    "load_mode_1": LoadMode.OFF,
    "load_mode_2": LoadMode.OFF,
}
LARGEST = 1.7976931348623157e308
HUGE = 10**5000  # more digits than Python writes


class Option(NamedTuple):
    name: str
    where: str
    whole: bool
    flag: bool
    takes: Callable[[float], bool]
    edges: tuple[float, ...]
    use: Callable[[Any], Awaitable[object] | object]

    def __str__(self) -> str:
        return f"{self.name}-{self.where}"


def whole(name: str, low: int, high: int, where: str, use: Callable[[Any], Any], step: int = 1) -> Option:
    values = range(low, high + 1, step)
    edges = (low - 1, low, low + 1, high - 1, high, high + 1, high + step)
    return Option(name, where, True, False, lambda value: value in values, edges, use)


def positive(name: str, where: str, use: Callable[[Any], Any]) -> Option:
    return Option(name, where, True, False, lambda value: value >= 1, (-1, 0, 1, 2, HUGE), use)


def number(
    name: str,
    low: float,
    high: float,
    where: str,
    use: Callable[[Any], Any],
    *,
    above: bool = False,
    below: bool = False,
) -> Option:
    def takes(value: float) -> bool:
        return (low < value if above else low <= value) and (value < high if below else value <= high)

    edges = (*(math.nextafter(edge, to) for edge in (low, high) for to in (-math.inf, math.inf)), low, high)
    return Option(name, where, False, False, takes, edges, use)


def flag(name: str, where: str, use: Callable[[Any], Any]) -> Option:
    return Option(name, where, True, True, lambda value: value in (0, 1), (-1, 0, 1, 2, False, True), use)


# The ways in.


def client(name: str, value: Any) -> object:
    return TracerClient(URL, **{name: value})


def session(name: str, value: Any) -> object:
    return SessionOptions(name="it", **{name: value})


async def fleet_member(name: str, value: Any) -> None:
    async with Fleet() as fleet:
        fleet.add(URL, **{name: value})


def first_backoff(value: Any) -> object:
    return TracerClient(URL, backoff=(value, LARGEST))


def last_backoff(value: Any) -> object:
    return TracerClient(URL, backoff=(0.001, value))


async def with_max_age(value: Any) -> None:
    async with TracerClient("sim:") as tracer:
        await tracer.read_realtime(max_age=value)


async def with_frames(value: Any) -> None:
    async with TracerClient("sim:") as tracer:
        tracer.frames(value)


async def with_poll(value: Any) -> None:
    async with TracerClient("sim:") as tracer:
        tracer.poll(value)


async def with_share(name: str, value: Any) -> None:
    with TemporaryDirectory() as folder:
        async with TracerClient("sim:") as tracer, share(tracer, f"unix:{folder}/socket", **{name: value}):
            pass


async def with_port(value: Any) -> None:
    try:
        async with serve_tcp(STILL, "192.0.2.1", value):  # an address that no machine uses
            pass
    except OSError:
        pass


def settings_with(name: str, value: Any) -> object:
    return ControlSettings(**(SETTINGS | {name: value})).to_bytes()


def realtime_with(name: str, value: Any) -> object:
    return DATA._replace(**{name: value}).to_bytes()


def installation(name: str, value: Any) -> object:
    place = Installation(**({"sunrise": 0.0, "sunset": 24.0} | {name: value}))
    return SimulatedTracer(installation=place).realtime().to_bytes()


def simulator(name: str, value: Any) -> object:
    return SimulatedTracer(**{name: value}).realtime().to_bytes()


STILL = SimulatedTracer(time_scale=0.0)


def assign(name: str, value: Any) -> object:
    setattr(STILL, name, value)
    return STILL.realtime().to_bytes()


CLIENT_WAYS = {"TracerClient": client, "Fleet.add": fleet_member}
OPTIONS = [
    *(
        option
        for where, way in CLIENT_WAYS.items()
        for option in (
            whole("controller_id", 0, 255, where, partial(way, "controller_id")),
            number("timeout", 0, 3600, where, partial(way, "timeout"), above=True),
            number("connect_timeout", 0, 3600, where, partial(way, "connect_timeout"), above=True),
            number("fence", 0, 3600, where, partial(way, "fence")),
            whole("retries", 0, 100, where, partial(way, "retries")),
            whole("max_timeouts", 1, 1_000_000, where, partial(way, "max_timeouts")),
        )
    ),
    whole("controller_id", 0, 255, "SessionOptions", partial(session, "controller_id")),
    number("timeout", 0, 3600, "SessionOptions", partial(session, "timeout"), above=True),
    number("link_timeout", 0, 3600, "SessionOptions", partial(session, "link_timeout"), above=True),
    number("fence", 0, 3600, "SessionOptions", partial(session, "fence")),
    whole("retries", 0, 100, "SessionOptions", partial(session, "retries")),
    whole("max_timeouts", 1, 1_000_000, "SessionOptions", partial(session, "max_timeouts")),
    number("backoff[0]", 0.001, LARGEST, "TracerClient", first_backoff),
    number("backoff[1]", 0.001, LARGEST, "TracerClient", last_backoff),
    number("max_age", 0, LARGEST, "read_realtime", with_max_age),
    number("max_age", 0, LARGEST, "share", partial(with_share, "max_age")),
    number("reply_within", 0, 3600, "share", partial(with_share, "reply_within"), above=True),
    whole("max_clients", 1, 10_000, "share", partial(with_share, "max_clients")),
    number("idle_timeout", 1, 1e9, "share", partial(with_share, "idle_timeout")),
    number("interval", 0.001, 1e9, "poll", lambda value: poll(TracerClient(URL), value)),
    number("interval", 0.001, 1e9, "TracerClient.poll", with_poll),
    number("interval", 0.001, 1e9, "Fleet.add", partial(fleet_member, "interval")),
    positive("connecting", "Fleet", lambda value: Fleet(connecting=value)),
    positive("capacity", "Fleet", lambda value: Fleet(capacity=value)),
    positive("maxsize", "Subscription", Subscription),
    positive("maxsize", "frames", with_frames),
    whole("chunk_size", 1, 1 << 30, "decode_chunks", lambda value: list(decode_chunks(CAPTURE, chunk_size=value))),
    whole("controller_id", 0, 255, "Frame", lambda value: Frame(value, 0, b"").encode()),
    whole("command", 0, 255, "Frame", lambda value: Frame(0, value, b"").encode()),
    flag("load", "ManualControl", lambda value: ManualControl(value).to_bytes()),
    whole("hours", 1, 15, "LoadMode.hours", LoadMode.hours),
    whole("battery_type", 0, 2, "ControlSettings", partial(settings_with, "battery_type")),
    whole("battery_capacity", 10, 2550, "ControlSettings", partial(settings_with, "battery_capacity"), step=10),
    whole("temperature_compensation", 0, 10, "ControlSettings", partial(settings_with, "temperature_compensation")),
    whole("load_mode_1", 0, 18, "ControlSettings", partial(settings_with, "load_mode_1")),
    whole("load_mode_2", 1, 15, "ControlSettings", partial(settings_with, "load_mode_2"))._replace(
        takes=lambda value: value in {*range(1, 16), 18}, edges=(0, 1, 15, 16, 17, 18, 19)
    ),
    *(
        number(name, 0, 655.35, "RealtimeData", partial(realtime_with, name))
        for name in RealtimeData._fields
        if name.endswith(("_voltage", "_current")) and name != "battery_over_voltage"
    ),
    whole("battery_temperature", -30, 225, "RealtimeData", partial(realtime_with, "battery_temperature")),
    *(
        flag(name, "RealtimeData", partial(realtime_with, name))
        for name in RealtimeData._fields
        if isinstance(getattr(DATA, name), bool)
    ),
    whole("seed", 0, 2**63, "SimulatedTracer", partial(simulator, "seed")),
    whole("seed", 0, 2**63, "Faults", lambda value: Faults("drop", seed=value).next_random()),
    number("time_scale", 0, 1e6, "SimulatedTracer", partial(simulator, "time_scale")),
    number("start_hour", 0, 24, "SimulatedTracer", partial(simulator, "start_hour"), below=True),
    number("state_of_charge", 0, 1, "SimulatedTracer", partial(simulator, "state_of_charge")),
    number("state_of_charge", 0, 1, "attribute", partial(assign, "state_of_charge")),
    number("irradiance", 0, 1500, "attribute", partial(assign, "irradiance")),
    number("SimulatedTracer.battery_voltage", 8, 40, "attribute", partial(assign, "battery_voltage")),
    number("load_watts", 0, 10_000, "attribute", partial(assign, "load_watts")),
    number("load_watts", 0, 10_000, "Installation", partial(installation, "load_watts")),
    number("panel_watts", 0, 10_000, "Installation", partial(installation, "panel_watts")),
    number("panel_voltage", 15, 150, "Installation", partial(installation, "panel_voltage")),
    number("Installation.battery_capacity", 5, 10_000, "Installation", partial(installation, "battery_capacity")),
    number("rated_current", 1, 100, "Installation", partial(installation, "rated_current")),
    number("sunrise", 0, 24, "Installation", partial(installation, "sunrise"), below=True),
    number("sunset", 0, 24, "Installation", partial(installation, "sunset"), above=True),
    number("cloudiness", 0, 1, "Installation", partial(installation, "cloudiness")),
    number("temperature", -20, 60, "Installation", partial(installation, "temperature")),
    number("speed", 0, 1e6, "Replay", lambda value: Replay(RECORDING, speed=value)),
    whole("port", 0, 65535, "serve_tcp", with_port),
]
EVERY_OPTION = pytest.mark.parametrize("option", OPTIONS, ids=str)

# Ways in that take None for something else.
OPTIONAL = {"irradiance-attribute", "SimulatedTracer.battery_voltage-attribute", "max_timeouts-SessionOptions"}

NO_NUMBERS = st.one_of(
    st.none(),
    st.text(),
    st.binary(),
    st.complex_numbers(),
    st.decimals(),
    st.fractions(),
    st.lists(st.integers(), max_size=2),
    st.sampled_from(
        (
            np.int64(1),
            np.uint8(1),
            np.bool_(True),
            np.float32(1.0),
            np.array([[1], [2]]),
            np.array(1.0),
            np.datetime64("NaT", "s"),
        )
    ),
    st.sampled_from((Decimal("sNaN"), Decimal("1E+999999"), Decimal(1), Fraction(HUGE, 3), object(), int, LARGEST.hex)),
)
NUMBERS = st.one_of(
    st.integers(),
    st.integers(-300, 300),
    st.floats(),
    st.floats(-300, 300),
    st.sampled_from((HUGE, -HUGE, 2**63, 2**64, -(2**64), LARGEST, -LARGEST, 5e-324, -0.0)),
    st.sampled_from((np.float64(1.5), np.float64(math.nan), np.float64(math.inf), LoadMode.MANUAL, LoadState.ON)),
)


def texts() -> dict[str, str]:
    """The last column of the page's table, by the first."""
    rows = [row.strip("| ").split(" | ") for row in PAGE.splitlines() if row.startswith("| `")]
    return {row[0].strip("`"): row[-1] for row in rows}


RANGE_TEXTS = texts()


async def use(option: Option, value: object) -> None:
    result = option.use(value)
    if inspect.isawaitable(result):
        await result


@EVERY_OPTION
@settings(max_examples=25, deadline=None)
@given(value=NO_NUMBERS)
async def test_a_value_that_is_no_number_is_a_type_error(option: Option, value: object) -> None:
    if value is None and str(option) in OPTIONAL:
        return
    with pytest.raises(TypeError) as raised:
        await use(option, value)
    message = str(raised.value)
    assert message.startswith(f"{option.name} must be ")
    assert RANGE_TEXTS[option.name] in message
    assert message.endswith(f"({type(value).__name__})")
    assert "\n" not in message


@EVERY_OPTION
@settings(max_examples=40, deadline=None)
@given(data=st.data())
async def test_a_number_is_accepted_or_refused_with_name_range_and_value(option: Option, data: st.DataObject) -> None:
    value = data.draw(NUMBERS | st.sampled_from(option.edges))
    if option.whole and isinstance(value, float):
        with pytest.raises(TypeError) as mistyped:
            await use(option, value)
        assert str(mistyped.value).startswith(f"{option.name} must be ")
        assert str(mistyped.value).endswith(f"not {value!r} ({type(value).__name__})")
    elif option.takes(value):
        await use(option, value)
    else:
        with pytest.raises(ValueError, match=" must be ") as refused:
            await use(option, value)
        assert type(refused.value) is ValueError
        shown = f"an int of {value.bit_length()} bits" if abs(value) >= 2**64 and isinstance(value, int) else str(value)
        assert str(refused.value) == f"{option.name} must be {RANGE_TEXTS[option.name]}, not {shown}"


class Unprintable:
    def __repr__(self) -> str:
        raise OverflowError


@EVERY_OPTION
async def test_a_value_that_cannot_be_shown_is_a_type_error_too(option: Option) -> None:
    with pytest.raises(TypeError, match=r"not a value \(Unprintable\)$"):
        await use(option, Unprintable())
    with pytest.raises(TypeError, match=r"not 'a{59}\.\.\. \(str\)$"):
        await use(option, "a" * 1_000_000)


@EVERY_OPTION
async def test_a_bool_is_no_number(option: Option) -> None:
    for value in (False, True):
        if option.flag:
            await use(option, value)
        else:
            with pytest.raises(TypeError, match=r"must be a (whole )?number"):
                await use(option, value)


@EVERY_OPTION
async def test_no_range_is_smaller_than_its_limits(option: Option) -> None:
    """The tested values are on both sides of the limits: some are accepted, some are not."""
    taken = {option.takes(edge) for edge in option.edges}
    assert taken == {False, True} or option.name in {"backoff[0]", "backoff[1]", "max_age"}


@pytest.mark.parametrize(
    ("pair", "kind", "words"),
    [
        ((0.5, 0), ValueError, "not 0"),
        ((0.5, -1), ValueError, "not -1"),
        ((0.5, math.nan), ValueError, "not nan"),
        ((0.5, math.inf), ValueError, "not inf"),
        ((3, 1), ValueError, "at least backoff[0], which is 3.0 s, not 1"),
        ((0, 1), ValueError, "backoff[0] must be"),
        ((0.5,), ValueError, "not 1 values"),
        ((), ValueError, "not 0 values"),
        ((0.5, 1, 2), ValueError, "not 3 values"),
        ((0.5, 10**400), ValueError, "bits"),
        ((0.5, "1"), TypeError, "backoff[1]"),
        ((None, 1), TypeError, "backoff[0]"),
        ((True, 1), TypeError, "backoff[0]"),
        ("12", TypeError, "backoff must be a pair"),
        (0.5, TypeError, "backoff must be a pair"),
        (None, TypeError, "backoff must be a pair"),
        (np.array([0.5, 1.0]), TypeError, "backoff must be a pair"),
        ({0.5: 1, 1.0: 2}, TypeError, "backoff must be a pair"),
    ],
)
async def test_a_backoff_is_a_pair_of_which_the_second_is_not_the_smaller(
    pair: Any, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind) as from_client:
        TracerClient(URL, backoff=pair)
    assert words in str(from_client.value)
    async with Fleet() as fleet:
        with pytest.raises(kind) as from_fleet:
            fleet.add(URL, backoff=pair)
    assert str(from_fleet.value) == str(from_client.value)


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"connect_timeout": math.inf}, ValueError),
        ({"retries": 1.5}, TypeError),
        ({"max_timeouts": 1.5}, TypeError),
        ({"controller_id": 1.5}, TypeError),
        ({"timeout": True}, TypeError),
    ],
)
def test_options_that_were_accepted_once(options: dict[str, Any], kind: type[Exception]) -> None:
    with pytest.raises(kind, match=next(iter(options))):
        TracerClient(URL, **options)


async def test_a_maximum_age_is_checked_before_the_last_reading_is_returned() -> None:
    async with TracerClient("sim:") as tracer:
        await tracer.read_realtime()
        with pytest.raises(ValueError, match="max_age must be 0 s or more, and finite, not nan"):
            await tracer.read_realtime(max_age=math.nan)


@pytest.mark.parametrize("wrong", [1.0, 0.0, 2, -1, 10**400, None, "on", b"\1", Decimal("sNaN"), np.bool_(True), 1j])
async def test_a_load_is_switched_with_a_bool_or_0_or_1(wrong: Any) -> None:
    controller = SimulatedTracer()
    async with serve_tcp(controller) as url, TracerClient(url) as tracer:
        with pytest.raises(ValueError if type(wrong) is int else TypeError, match="load must be"):
            await tracer.set_load(wrong)
    assert not controller.requests


@pytest.mark.parametrize("reserved", [None, "abcd", 4, [0, 0, 0, 0], bytearray(4), b"abc", b"abcde"])
def test_the_reserved_bytes_are_four_bytes(reserved: Any) -> None:
    with pytest.raises(ValueError if isinstance(reserved, bytes) else TypeError, match="reserved must be 4 bytes"):
        DATA._replace(reserved=reserved).to_bytes()


@given(volts=st.floats(0, 655.35))
def test_hundredths_are_the_nearest_ones(volts: float) -> None:
    data = DATA._replace(battery_voltage=volts)
    assert abs(RealtimeData.from_bytes(data.to_bytes()).battery_voltage - volts) <= 0.005 + 1e-9


async def test_a_client_that_is_not_open_says_so_whatever_the_numbers_are() -> None:
    with pytest.raises(LinkClosedError):
        await TracerClient(URL).read_realtime(max_age=math.nan)


# The page, and the table.


def row(name: str, limits: Range) -> str:
    kind = "flag" if limits.flag else "whole number" if limits.whole else "number"
    return f"| `{name}` | {limits.where} | {kind} | {limits} |"


def test_the_page_is_the_table() -> None:
    table = [line for line in PAGE.splitlines() if line.startswith("| `")]
    assert table == [row(name, limits) for name, limits in RANGES.items()]


def test_every_range_and_every_option_that_the_page_names_is_tested() -> None:
    assert {option.name for option in OPTIONS} == set(RANGES)
    for name, limits in RANGES.items():
        tested = {option.where for option in OPTIONS if option.name == name}
        named = {place.removeprefix("capture.") for place in limits.where.replace("TracerClient.", "").split(", ")}
        assert named - {"set_load"} <= tested | ({"SimulatedTracer"} if "attribute" in tested else set()), name


def test_every_numeric_parameter_is_in_the_table() -> None:
    numeric = {"int", "float", "tuple[float, float]"}
    for function in (TracerClient, Fleet, Fleet.add, TracerClient.frames, poll, decode_chunks, Faults, SimulatedTracer):
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.annotation in numeric:
                assert name in RANGES or name == "backoff", (function, name)
    typed = {name: str(kind.__forward_arg__) for name, kind in ClientOptions.__annotations__.items()}
    assert {name for name, kind in typed.items() if kind in numeric} - {"backoff"} <= set(RANGES)
    assert {field.name for field in fields(ControlSettings)} <= set(RANGES)
    assert {f"{name}" for name in RealtimeData._fields} - {"reserved"} <= set(RANGES)
    assert {field.name for field in fields(Installation)} <= set(RANGES)
