import json
import pydoc
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer_async.protocol import (
    BatteryType,
    CommandCode,
    ControlSettings,
    LoadMode,
    LoadState,
    ManualControl,
    ReadRealtime,
    RealtimeData,
    WriteSettings,
)

FLAGS = (12, 13, 14, 16, 17, 18, 19)
DOCUMENT = bytes.fromhex("CE04A4060000E8035604A005010000500000000037E80300")
CAPTURE = bytes.fromhex("DC04500D000000005904980500000029000000013A760100")

realtime_bytes = st.binary(min_size=24, max_size=24).map(
    lambda raw: bytes(byte & 1 if at in FLAGS else byte for at, byte in enumerate(raw))
)
settings = st.builds(
    ControlSettings,
    battery_type=st.sampled_from(BatteryType),
    battery_capacity=st.integers(1, 255).map(lambda tens: tens * 10),
    temperature_compensation=st.integers(0, 10),
    load_mode_1=st.sampled_from(LoadMode),
    load_mode_2=st.sampled_from([LoadMode.OFF, *(LoadMode.hours(hours) for hours in range(1, 16))]),
)


def test_example_of_the_document() -> None:
    data = RealtimeData.from_bytes(DOCUMENT)
    assert data == RealtimeData(
        battery_voltage=12.30,
        pv_voltage=17.00,
        load_current=10.00,
        over_discharge_voltage=11.10,
        battery_full_voltage=14.40,
        load_on=True,
        overload=False,
        load_short_circuit=False,
        battery_over_voltage=False,
        over_discharge=False,
        battery_full=False,
        charging=False,
        battery_temperature=25,
        charge_current=10.00,
        reserved=b"\x00\x00\x50\x00",
    )
    assert data.load_power == pytest.approx(123.0)


def test_reply_of_a_capture() -> None:
    data = RealtimeData.from_bytes(CAPTURE)
    assert (data.battery_voltage, data.pv_voltage, data.charge_current) == (12.44, 34.08, 3.74)
    assert (data.battery_temperature, data.charging, data.load_on) == (28, True, False)
    assert data.charge_power == pytest.approx(46.5256)


@given(realtime_bytes)
def test_encoding_decoded_real_time_data_gives_the_same_bytes(raw: bytes) -> None:
    assert RealtimeData.from_bytes(raw).to_bytes() == raw


@given(realtime_bytes)
def test_a_dictionary_of_real_time_data_is_json_with_every_field_and_power(raw: bytes) -> None:
    data = RealtimeData.from_bytes(raw)
    values = json.loads(json.dumps(data.to_dict()))
    assert list(values) == [*RealtimeData._fields, "charge_power", "load_power"]
    assert {name: values[name] for name in RealtimeData._fields[:-1]} == {
        name: getattr(data, name) for name in RealtimeData._fields[:-1]
    }
    assert bytes.fromhex(values["reserved"]) == data.reserved
    for name in ("charge_power", "load_power"):
        assert values[name] == pytest.approx(getattr(data, name), abs=0.00501)
        assert values[name] == round(values[name], 2)


def test_numbers_of_a_dictionary_are_rounded_to_the_resolution_of_the_controller() -> None:
    data = RealtimeData.from_bytes(CAPTURE)._replace(battery_voltage=12.7899, charge_current=7.37, load_on=1)  # type: ignore[arg-type]
    values = data.to_dict()
    assert (values["battery_voltage"], values["charge_power"]) == (12.79, 94.26)
    assert values["load_on"] is True


def test_a_value_that_the_protocol_does_not_have_is_not_converted_to_a_dictionary() -> None:
    with pytest.raises(ValueError, match="battery_voltage"):
        RealtimeData.from_bytes(CAPTURE)._replace(battery_voltage=float("nan")).to_dict()


def test_help_shows_the_unit_of_every_number() -> None:
    text = pydoc.plain(pydoc.render_doc(RealtimeData))
    table = dict(re.findall(r"^[ |]*``(\w+)`` {2,}(\S.*)", text, re.MULTILINE))
    for name in (*RealtimeData._fields, "charge_power", "load_power"):
        words = table[name]
        if name.endswith("voltage") and name != "battery_over_voltage":
            assert words.startswith("V"), name
        elif name.endswith("current"):
            assert words.startswith("A "), name
        elif name.endswith("power"):
            assert words.startswith("W "), name
    assert table["battery_temperature"].startswith("degrees Celsius")


@pytest.mark.parametrize(
    ("raw", "temperature", "volts"),
    [(bytes(24), -30, 0.0), (bytes(1 if at in FLAGS else 0xFF for at in range(24)), 225, 655.35)],
)
def test_the_smallest_and_the_largest_values_are_decoded_unchanged(raw: bytes, temperature: int, volts: float) -> None:
    data = RealtimeData.from_bytes(raw)
    assert (data.battery_temperature, data.battery_voltage, data.charge_current) == (temperature, volts, volts)
    assert data.to_bytes() == raw


@given(realtime_bytes, st.sampled_from(FLAGS), st.integers(2, 255))
def test_a_flag_is_0_or_1(raw: bytes, at: int, value: int) -> None:
    with pytest.raises(ValueError, match="flag"):
        RealtimeData.from_bytes(raw[:at] + bytes([value]) + raw[at + 1 :])


@given(st.binary(max_size=200).filter(lambda raw: len(raw) != 24))
def test_real_time_data_is_24_bytes(raw: bytes) -> None:
    with pytest.raises(ValueError, match="24"):
        RealtimeData.from_bytes(raw)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("battery_voltage", -0.01),
        ("pv_voltage", 655.36),
        ("load_current", float("nan")),
        ("charge_current", float("inf")),
        ("battery_temperature", -31),
        ("battery_temperature", 226),
        ("reserved", b"\x00"),
    ],
)
def test_the_error_for_a_value_that_does_not_fit_names_the_field(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        RealtimeData.from_bytes(CAPTURE)._replace(**{field: value}).to_bytes()  # type: ignore[arg-type]


@pytest.mark.parametrize("state", LoadState)
def test_a_load_state_is_decoded_unchanged(state: LoadState) -> None:
    assert LoadState.from_bytes(state.to_bytes()) is state
    assert bool(state) is (state is LoadState.ON)


def test_a_load_state_prints_as_on_or_off() -> None:
    assert (str(LoadState.ON), f"{LoadState.OFF}", f"{LoadState.ON:>4}") == ("on", "off", "  on")
    assert json.dumps([LoadState.ON, LoadState.OFF]) == "[1, 0]"


def test_the_first_byte_of_a_longer_load_reply_is_decoded() -> None:
    assert LoadState.from_bytes(b"\x01" + bytes(12)) is LoadState.ON


@pytest.mark.parametrize("load", [2, -1])
def test_a_number_other_than_0_and_1_is_not_a_load_state(load: int) -> None:
    with pytest.raises(ValueError, match=rf"^load must be .*, not {load}$"):
        LoadState(load)


@pytest.mark.parametrize("raw", [b"", b"\x02", b"\xff"])
def test_bytes_that_are_not_a_load_state_raise_value_error(raw: bytes) -> None:
    with pytest.raises(ValueError, match=rf"^a load state is .*, not {raw[0] if raw else 0}$"):
        LoadState.from_bytes(raw)


@given(settings)
def test_settings_are_decoded_unchanged(value: ControlSettings) -> None:
    raw = value.to_bytes()
    assert len(raw) == 7
    assert raw[:2] == b"\x00\x00"
    assert ControlSettings.from_bytes(raw) == value
    assert ControlSettings.from_bytes(b"\x07\x08" + raw[2:]) == value


def test_settings_bytes_have_the_order_of_the_document() -> None:
    value = ControlSettings(
        temperature_compensation=4,
        battery_type=BatteryType.FLOODED,
        battery_capacity=120,
        load_mode_1=LoadMode.MANUAL,
        load_mode_2=LoadMode.hours(3),
    )
    assert value.to_bytes() == bytes([0, 0, 4, 2, 12, 17, 3])


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("temperature_compensation", [-1, 11]),
        ("battery_type", [-1, 3]),
        ("battery_capacity", [0, 5, 15, 2560, -10]),
        ("load_mode_1", [-1, 19]),
        ("load_mode_2", [-1, 0, 16, 17, 19]),
    ],
)
def test_the_error_for_settings_out_of_range_has_the_name_and_the_range(field: str, values: list[int]) -> None:
    right = {
        "temperature_compensation": 3,
        "battery_type": 1,
        "battery_capacity": 100,
        "load_mode_1": 17,
        "load_mode_2": 18,
    }
    assert ControlSettings(**right).battery_type is BatteryType.SEALED  # type: ignore[arg-type]
    for value in values:
        with pytest.raises(ValueError, match=rf"^{field} must be .*\d.*, not {value}$"):
            ControlSettings(**right | {field: value})  # type: ignore[arg-type]


def test_settings_are_7_bytes() -> None:
    with pytest.raises(ValueError, match="7 bytes"):
        ControlSettings.from_bytes(bytes(6))


@pytest.mark.parametrize("hours", [0, 16])
def test_hours_of_load_are_1_to_15(hours: int) -> None:
    with pytest.raises(ValueError, match="1 to 15"):
        LoadMode.hours(hours)


def test_each_number_of_hours_gives_the_mode_with_that_number() -> None:
    assert [LoadMode.hours(hours) for hours in range(1, 16)] == list(range(1, 16))


def test_commands_have_the_code_the_data_and_the_answer_of_the_document() -> None:
    read, switch = ReadRealtime(), ManualControl(LoadState.ON)
    assert (read.code, read.to_bytes(), read.decode_reply(CAPTURE)) == (
        CommandCode.READ_REALTIME,
        b"",
        RealtimeData.from_bytes(CAPTURE),
    )
    assert (switch.code, switch.to_bytes(), switch.decode_reply(b"\x00")) == (
        CommandCode.MANUAL_CONTROL,
        b"\x01",
        LoadState.OFF,
    )


@given(settings)
def test_the_reply_to_a_write_of_settings_has_no_data(value: ControlSettings) -> None:
    write = WriteSettings(value)
    assert (write.code, write.to_bytes()) == (CommandCode.WRITE_SETTINGS, value.to_bytes())
    write.decode_reply(b"")
    with pytest.raises(ValueError, match="no data"):
        write.decode_reply(b"\x00")


def test_settings_are_never_retried() -> None:
    assert not WriteSettings.repeatable
    assert ReadRealtime.repeatable
