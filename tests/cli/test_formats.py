"""The formats for programs: their fields, checked by the schemas of docs/ and by a parser of line protocol."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from line_protocol_parser import parse_line
from referencing import Registry

from tests.cli.conftest import Answer, Command
from tracer_async import Frame, Reading, RealtimeData, TracerError, records
from tracer_async.cli import formats
from tracer_async.transport import parse_address

DOCS = Path(__file__).parents[2] / "docs"
FLAGS = (12, 13, 14, 16, 17, 18, 19)
# The document's example reply, with an alarm in it.
DATA = RealtimeData.from_bytes(bytes.fromhex("CE04A4060000E8035604A005010001500000000037E80300"))
DAMAGED = Frame(0, 0xA0, DATA.to_bytes()).encode(start_up=False)[:-2] + b"?\x7f"
QUICK = ("--timeout", "0.05", "--retries", "0")
SETTINGS = (
    *("--battery-type", "sealed", "--capacity", "120", "--temperature-compensation", "3"),
    *("--load-mode-1", "dusk-to-dawn", "--load-mode-2", "5h"),
)

data = st.binary(min_size=24, max_size=24).map(
    lambda raw: RealtimeData.from_bytes(bytes(byte & 1 if at in FLAGS else byte for at, byte in enumerate(raw)))
)
# Seconds since 1970 up to the year 2100, and an age of up to an hour.
readings = st.builds(Reading, st.floats(0, 4e9), data, age=st.floats(0, 3600))
texts = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1)
failures = st.builds(Reading, st.floats(0, 4e9), st.none(), texts.map(TracerError))


def schema(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((DOCS / f"{name}.schema.json").read_text("utf-8"))
    return loaded


SCHEMAS = {name: schema(name) for name in ("reading", "result", "event")}
REGISTRY: Registry[Any] = Registry().with_contents((content["$id"], content) for content in SCHEMAS.values())


def validate(line: str, name: str) -> dict[str, Any]:
    """The object on *line*, which the schema *name* accepts."""
    value: dict[str, Any] = json.loads(line)
    Draft202012Validator(SCHEMAS[name], registry=REGISTRY).validate(value)
    return value


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_valid_and_refuses_an_empty_object(name: str) -> None:
    Draft202012Validator.check_schema(SCHEMAS[name])
    assert not Draft202012Validator(SCHEMAS[name], registry=REGISTRY).is_valid({})


def test_the_schema_of_a_reading_requires_each_field_and_allows_no_other() -> None:
    validator = Draft202012Validator(SCHEMAS["reading"], registry=REGISTRY)
    reading = json.loads(formats.to_json("sim:", Reading(0.0, DATA, age=0.1)))
    assert validator.is_valid(reading)
    for field in reading:
        assert not validator.is_valid({key: value for key, value in reading.items() if key != field}), field
    assert not validator.is_valid(reading | {"another": 1})


def test_the_schema_has_the_fields_of_a_reading_in_their_order() -> None:
    fields = SCHEMAS["reading"]["$defs"]["data"]
    assert list(fields["properties"]) == fields["required"] == list(DATA.to_dict()) == list(records.DATA_FIELDS)


def test_the_page_describes_every_field() -> None:
    page = (DOCS / "output.md").read_text("utf-8")
    for name in formats.CSV_HEADER.split(","):
        assert f"| `{name}` |" in page, name


@given(readings | failures)
def test_json_holds_what_the_schema_says(reading: Reading) -> None:
    value = validate(formats.to_json("sim:", reading), "reading")
    assert value["ok"] is reading.ok
    if reading.data is not None:
        assert {name: value[name] for name in records.DATA_FIELDS} == reading.data.to_dict()
    else:
        assert value["error"] == str(reading.error)


@given(readings)
def test_a_measurement_is_never_said_to_be_newer_than_it_may_be(reading: Reading) -> None:
    value = json.loads(formats.to_json("sim:", reading))
    oldest = datetime.fromisoformat(value["time"]) - timedelta(seconds=value["age"])
    # Floats of this size are exact to a microsecond.
    assert oldest <= datetime.fromtimestamp(reading.time, UTC) - timedelta(seconds=reading.age) + timedelta(
        microseconds=2
    )
    assert value["age"] == pytest.approx(reading.age, abs=0.0011)


@given(readings | failures, texts)
def test_csv_has_the_same_values_in_the_same_columns_with_or_without_a_reading(reading: Reading, address: str) -> None:
    text = f"{formats.CSV_HEADER}\n{formats.to_csv(address, reading)}\n"
    (row,) = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    record = records.to_record(address, reading)
    expected = {
        name: str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)
        for name, value in {name: record.get(name) for name in row}.items()
    }
    assert row == expected
    assert set(record) <= set(row)


@given(readings | failures, texts)
def test_a_parser_reads_the_same_values_from_line_protocol(reading: Reading, address: str) -> None:
    point = parse_line(formats.to_line_protocol(address, reading))
    record = records.to_record(address, reading)
    del record["time"]
    tag = str(record.pop("address"))
    assert point["measurement"] == "tracer"
    assert point["tags"] == {"address": f"{tag[:-1]}%5C" if tag.endswith("\\") else tag}
    assert point["fields"] == {name: value for name, value in record.items() if value is not None}
    assert point["time"] == pytest.approx(reading.time * 1e9, abs=2000)


@pytest.mark.parametrize("url", [r"\\.\COM10", "unix:/tmp/a b,c=d", "unix:/tmp/a\\", "unix:/tmp/a\\ b", "sim:?seed=4"])
def test_the_tag_of_line_protocol_names_the_same_controller(url: str) -> None:
    address = str(parse_address(url))
    tag = parse_line(formats.to_line_protocol(address, Reading(0.0, DATA)))["tags"]["address"]
    assert parse_address(tag) == parse_address(url)


def test_line_protocol_has_typed_fields_and_nanoseconds() -> None:
    line = formats.to_line_protocol("sim:", Reading(1_700_000_000.25, DATA, age=0.0501))
    assert line.startswith("tracer,address=sim: ok=true,age=0.051,battery_voltage=12.3,")
    assert line.endswith(" 1700000000250000000")
    assert ",battery_temperature=25i," in line
    assert ',reserved="00005000",' in line


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kolkata", "America/St_Johns"])
def test_every_time_has_its_offset(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        people, programs = formats.local(1_780_000_000.9), records.utc(1_780_000_000.25)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert datetime.fromisoformat(people) == datetime.fromtimestamp(1_780_000_000, UTC)
    assert (zone == "UTC") is people.endswith("+00:00")
    assert len(people) == 25
    assert programs == "2026-05-28T20:26:40.250Z"


def test_a_line_for_people_fits_80_columns() -> None:
    data = DATA._replace(load_short_circuit=False, charging=True, charge_current=40.0, load_on=False)
    line = formats.to_plain(1_780_000_000.0, data)
    assert len(line) == 80
    assert len(line.split()) == len(formats.PLAIN_HEADER.split())


# The command


@pytest.mark.parametrize("name", ["read", "watch"])
@pytest.mark.parametrize("option", [("--json",), ("--format", "json"), ("-f", "json"), ("--json", "-f", "json")])
def test_json_of_the_command(command: Command, name: str, option: tuple[str, ...]) -> None:
    words = ("--count", "2", "--interval", "0.01") if name == "watch" else ()
    code, out, err = command(name, "sim:?seed=3", *words, *option)
    assert (code, err) == (0, "")
    for line in out.splitlines():
        value = validate(line, "reading")
        assert value["ok"] is True
        assert value["address"] == "sim:?seed=3"
        # 0.01 V and 0.01 A make powers of four digits; they are rounded to what the controller resolves.
        assert value["charge_power"] == round(value["charge_power"], 2)


@pytest.mark.parametrize("option", ["--csv", "--line-protocol"])
def test_the_options_from_before_format_still_work_and_are_hidden(command: Command, option: str) -> None:
    new = command("read", "sim:", "--format", option.removeprefix("--"))
    old = command("read", "sim:", option)
    assert old.code == new.code == 0
    assert old.out.partition("battery_voltage")[2].partition("\n")[0].partition(" ")[0] in new.out
    assert option not in command("read", "--help").out


def test_formats_exclude_each_other(command: Command) -> None:
    for words in (("--json", "--csv"), ("--json", "-f", "text"), ("-f", "csv", "--line-protocol")):
        code, out, err = command("read", "sim:", *words)
        assert (code, out) == (2, "")
        assert "Two formats" in err


@pytest.mark.parametrize("name", ["read", "watch"])
def test_the_age_is_the_time_that_the_answer_took(
    command: Command, controller: Callable[[Answer], str], name: str
) -> None:
    """The controller answers the second copy of the request only: the answer is at least one timeout old."""
    count = 0

    def answer(frame: Frame) -> bytes:
        nonlocal count
        count += 1
        return Frame(0, frame.command, DATA.to_bytes()).encode() if count == 2 else b""

    words = ("--count", "1") if name == "watch" else ()
    out = command(name, controller(answer), *words, "--timeout", "0.1", "--retries", "1", "--json").out
    value = validate(out, "reading")
    assert 0.1 <= value["age"] < 10


@pytest.mark.parametrize("form", ["json", "csv", "line-protocol"])
def test_read_without_an_answer_prints_the_error_in_the_format_too(command: Command, silent: str, form: str) -> None:
    code, out, err = command("read", silent, *QUICK, "--format", form)
    assert code == 4
    assert err.startswith("Error: ")
    message = err.removeprefix("Error: ").removesuffix("\n")
    assert failure_of(out, form) == (silent, message)


@pytest.mark.parametrize("form", ["json", "csv", "line-protocol"])
def test_watch_prints_failed_readings_in_the_format(
    command: Command, controller: Callable[[Answer], str], form: str
) -> None:
    replies = iter([b"\7", DATA.to_bytes()])
    url = controller(lambda frame: Frame(0, frame.command, next(replies)).encode())
    code, out, err = command("watch", url, "--interval", "0.01", "--count", "2", "--format", form)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert len(lines) == (3 if form == "csv" else 2)
    address, message = failure_of("\n".join(lines[:-1]), form)
    assert address == url
    assert "malformed" in message


def failure_of(out: str, form: str) -> tuple[str, str]:
    """The address and the error of a failed reading."""
    if form == "json":
        value = validate(out, "reading")
        assert value["ok"] is False
        assert value["age"] is None
        return value["address"], value["error"]
    if form == "csv":
        (row,) = csv.DictReader(io.StringIO(out))
        assert row["ok"] == "false"
        assert all(row[name] == "" for name in ("age", *records.DATA_FIELDS))
        return row["address"], row["error"]
    point = parse_line(out)
    assert point["fields"].keys() == {"ok", "error"}
    assert point["fields"]["ok"] is False
    return point["tags"]["address"], point["fields"]["error"]


def test_read_prints_no_time_without_an_offset(command: Command) -> None:
    last = command("read", "sim:").out.splitlines()[-1]
    assert datetime.fromisoformat(last.strip()).utcoffset() is not None
    time = command("watch", "sim:", "--count", "1").out.splitlines()[-1].split()[0]
    assert datetime.fromisoformat(time).utcoffset() is not None


@pytest.mark.parametrize("state", ["on", "off"])
def test_load_as_json(command: Command, state: str) -> None:
    code, out, err = command("load", "sim:", state, "--json")
    assert (code, err) == (0, "")
    assert validate(out, "result")["load_on"] is (state == "on")


def test_a_failed_load_switch_as_json(command: Command, silent: str) -> None:
    code, out, err = command("load", silent, "on", *QUICK, "--format", "json")
    assert code == 7
    assert err.count("\n") == 1
    assert "was not sent" in validate(out, "result")["error"]


def test_settings_as_json(command: Command) -> None:
    code, out, err = command("settings", "sim:", *SETTINGS, "--yes", "--json")
    assert (code, err) == (0, "")
    written = validate(out, "result")
    code, out, err = command("settings", *SETTINGS, "--dry-run", "--json")
    assert (code, err) == (0, "")
    dry = validate(out, "result")
    names = ("battery_type", "battery_capacity", "temperature_compensation", "load_mode_1", "load_mode_2")
    assert [written[name] for name in names] == [dry[name] for name in names]
    assert [written[name] for name in names] == ["sealed", 120, 3, "dusk-to-dawn", "5h"]
    assert dry["data"] in dry["frame"]


def test_every_event_of_a_capture_as_json(command: Command, tmp_path: Path) -> None:
    frames = [
        Frame(0x16, 0xA0, b""),
        Frame(0, 0xA0, DATA.to_bytes()),
        Frame(0x16, 0xAA, b"\1"),
        Frame(0, 0xAA, b"\0"),
        Frame(0x16, 0xAD, bytes.fromhex("000003000a1112")),
        Frame(0, 0xAD, b""),
        Frame(0, 0xA0, b"12"),
        Frame(0, 0xB0, b"\x1b"),
    ]
    capture = tmp_path / "capture"
    capture.write_bytes(b"?" + b"".join(frame.encode() for frame in frames) + DAMAGED)
    events = [validate(line, "event") for line in command("decode", str(capture), "--json").out.splitlines()]
    kinds = {"noise", "start-up", "read request", "reading", "load request", "load", "settings", "settings reply"}
    assert {event["kind"] for event in events} == kinds | {"malformed", "unknown", "damaged", "summary"}
    reading = next(event for event in events if event["kind"] == "reading")
    assert {name: reading[name] for name in records.DATA_FIELDS} == DATA.to_dict()
