"""``tracer-async history export``, read back by other programs."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.gateway.history.databases import PASSWORD, Sqlite, TestDatabase
from tests.gateway.history.events import START, deliver, event, events, running, shown_age
from tracer_async.cli.history import history
from tracer_async.gateway.events import ControllerEvent, EnergyTotals
from tracer_async.gateway.history.store import HistoryOutput

pytestmark = pytest.mark.usefixtures("restored_logging")

ROOT = Path(__file__).parents[3]
BATCH = events(500)
CONFIG = """\
time_zone = "Europe/Berlin"
[controllers.roof]
url = "sim:"
id = "roof-1"
[controllers.garage]
url = "sim:"
[history]
url = "{url}"
password_file = "password"
"""


@pytest.fixture
def configuration(database: TestDatabase) -> Path:
    config = database.directory / "gateway.toml"
    text = CONFIG.format(url=database.url)
    config.write_text(text.replace('password_file = "password"\n', "") if isinstance(database, Sqlite) else text)
    (database.directory / "password").write_text(PASSWORD)
    (database.directory / "password").chmod(0o600)
    return config


def fill(database: TestDatabase) -> None:
    async def run() -> None:
        output = HistoryOutput(database.config(), directory=database.directory, zone=None)
        today = EnergyTotals(day=date(2026, 1, 1), charge_today=1234.5, load_today=0.25)
        async with running(output):
            await deliver(output, [*BATCH, event(START, energy=today)])

    asyncio.run(run())


def output_of(*arguments: object) -> bytes:
    done = CliRunner().invoke(history, ["export", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout_bytes


def records(batch: list[ControllerEvent]) -> list[dict[str, object]]:
    return [
        {
            "time": datetime.fromtimestamp(one.reading.time, UTC).isoformat(timespec="milliseconds")[:23] + "Z",
            "age": shown_age(one),
            **one.reading.data.to_dict(),
        }
        for one in batch
        if one.reading.data is not None
    ]


def in_csv(value: object) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def test_every_format_has_every_reading(database: TestDatabase, configuration: Path) -> None:
    fill(database)
    wanted = records(BATCH)
    roof = (configuration, "--controller", "roof")

    lines = output_of(*roof, "--format", "jsonl").decode().splitlines()
    assert [json.loads(line) for line in lines] == wanted

    rows = list(csv.DictReader(io.StringIO(output_of(*roof).decode())))
    assert rows == [{name: in_csv(value) for name, value in record.items()} for record in wanted]
    assert {row["age"] for row in rows} > {"", "0.0", "0.001"}

    parquet = pytest.importorskip("pyarrow.parquet")
    file = configuration.with_name("roof.parquet")
    assert output_of(*roof, "--format", "parquet", "-o", file) == b""
    table = parquet.read_table(file).to_pylist()
    assert [row["time"] for row in table] == [datetime.fromtimestamp(one.reading.time, UTC) for one in BATCH]
    assert [{**row, "time": None} for row in table] == [{**record, "time": None} for record in wanted]


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_from_and_to_are_in_the_configured_zone_and_to_is_excluded(database: TestDatabase, configuration: Path) -> None:
    fill(database)
    for start, end in (
        ("2026-01-01T01:10", "2026-01-01T01:20"),
        ("2026-01-01T00:10Z", "2026-01-01T00:20:00+00:00"),
    ):
        lines = output_of(configuration, "--controller", "roof", "--from", start, "--to", end, "--format", "jsonl")
        assert [json.loads(line) for line in lines.splitlines()] == records(BATCH)[120:240]
    days = output_of(
        configuration, "--controller", "roof", "--rows", "days", "--from", "2026-01-01", "--to", "2026-01-02"
    )
    assert days.decode().splitlines() == ["day,charge_energy,load_energy", "2026-01-01,1234.5,0.25"]
    none = output_of(configuration, "--controller", "roof", "--rows", "days", "--to", "2026-01-01")
    assert none.decode().splitlines() == ["day,charge_energy,load_energy"]


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize("zone", ["", 'time_zone = "America/New_York"', 'time_zone = "Asia/Tokyo"'])
def test_times_before_the_first_and_after_the_last_possible_one_are_limits_too(
    database: TestDatabase, configuration: Path, zone: str
) -> None:
    fill(database)
    configuration.write_text(configuration.read_text().replace('time_zone = "Europe/Berlin"', zone))
    roof = (configuration, "--controller", "roof", "--rows")
    for rows in ("readings", "days"):
        everything = output_of(*roof, rows)
        header = everything.splitlines(keepends=True)[0]
        for early in ("0001-01-01", "0001-01-01T00:00+05:00", "0001-01-01T00:00-05:00"):
            assert output_of(*roof, rows, "--from", early) == everything
            assert output_of(*roof, rows, "--to", early) == header
        for late in ("9999-12-31", "9999-12-31T23:00-05:00", "9999-12-31T23:00+05:00"):
            assert output_of(*roof, rows, "--from", late) == header
            assert output_of(*roof, rows, "--to", late) == everything


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["--controller", "attic"], 2, "attic is none of roof, garage."),
        (["--controller", "roof", "--from", "yesterday"], 2, "'yesterday' is not a time."),
        (["--controller", "roof"], 1, "the history is not available: "),
    ],
)
def test_errors_are_one_sentence(sqlite: Sqlite, arguments: list[str], code: int, error: str) -> None:
    config = sqlite.directory / "gateway.toml"
    config.write_text(CONFIG.format(url=sqlite.url).replace('password_file = "password"\n', ""))
    command = [sys.executable, "-W", "error", "-m", "tracer_async", "history", "export", str(config), *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, check=False, env=environment, cwd="/")
    assert done.returncode == code
    assert done.stdout == b""
    assert error in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()
    assert not sqlite.file.exists()
