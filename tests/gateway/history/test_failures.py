"""A database that is full, locked, damaged or away: nothing stops, it is visible, and nothing is lost."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.gateway.history.databases import PASSWORD, PostgreSql, Sqlite
from tests.gateway.history.events import START, assert_points, deliver, event, events, expected, running, until, values
from tracer_async.gateway.config import ControllerConfig
from tracer_async.gateway.energy_ledger import EnergyLedger
from tracer_async.gateway.events import ControllerEvent
from tracer_async.gateway.history.store import HistoryOutput
from tracer_async.gateway.hub import Hub
from tracer_async.gateway.output import Output

pytestmark = pytest.mark.slow

KILLED_WRITER = Path(__file__).with_name("killed_writer.py")


def output_of(database: Sqlite | PostgreSql, **keys: object) -> HistoryOutput:
    return HistoryOutput(database.config(**keys), directory=database.directory, zone=None)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracer_async.gateway.history.database._BUSY", 0.3)
    monkeypatch.setattr("tracer_async.gateway.history.store._RETRY", (0.02, 0.1))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def times(database: Sqlite | PostgreSql) -> list[float]:
    return [time / 1000 for (time,) in database.query("SELECT time FROM tracer_readings ORDER BY time")]


async def fails_with(output: HistoryOutput, text: str) -> None:
    await until(lambda: text in (output.state.error or ""))
    assert not output.state.connected


async def test_a_locked_database_is_reported_once_and_nothing_is_lost(
    sqlite: Sqlite, caplog: pytest.LogCaptureFixture
) -> None:
    batch = events(1000)
    output = output_of(sqlite)
    async with running(output):
        await deliver(output, batch[:100])
        with closing(sqlite3.connect(sqlite.file, isolation_level=None, check_same_thread=False)) as other:
            await asyncio.to_thread(other.execute, "BEGIN EXCLUSIVE")
            for one in batch[100:]:
                output.publish(one)
            await fails_with(output, "history.db: database is locked")
            # Readers are not locked out.
            assert len((await output.series("roof-1", START, START + 500, 5.0)).points) == 100
            await asyncio.sleep(1.0)  # several attempts
            assert output.state.delivered == 100
            other.execute("ROLLBACK")
        await until(lambda: output.state.connected)
        assert output.state.error is None
    assert times(sqlite) == [one.reading.time for one in batch]
    assert output.state.dropped == 0
    assert len(warnings(caplog)) == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"a file system cannot be mounted here: {done.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(file: Path) -> None:
    with file.open("wb", buffering=0) as ballast, suppress(OSError):
        while True:
            ballast.write(bytes(1024))


async def test_a_full_disk_is_reported_once_and_nothing_is_lost(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sqlite = Sqlite(small_disk)
    batch = events(3000)
    output = output_of(sqlite)
    async with running(output):
        await deliver(output, batch[:100])
        ballast = small_disk / "ballast"
        fill(ballast)
        for one in batch[100:]:
            output.publish(one)
        await fails_with(output, "database or disk is full")
        assert len((await output.series("roof-1", START, START + 500, 5.0)).points) == 100
        await asyncio.sleep(0.3)
        ballast.unlink()
        await until(lambda: output.state.connected)
        await until(lambda: output.state.delivered == 3000)
    assert times(sqlite) == [one.reading.time for one in batch]
    assert sqlite.query("PRAGMA integrity_check") == [("ok",)]
    assert len(warnings(caplog)) == 1


def overwrite(file: Path, data: bytes, offset: int = 0) -> None:
    """Change a file from outside. Opening it within this process would release SQLite's locks."""
    program = "import sys; f = open(sys.argv[1], 'r+b'); f.seek(int(sys.argv[2])); f.write(sys.stdin.buffer.read())"
    subprocess.run([sys.executable, "-c", program, str(file), str(offset)], input=data, check=True)


def everything(file: Path) -> None:
    overwrite(file, random.Random(1).randbytes(file.stat().st_size))


def the_beginning(file: Path) -> None:
    overwrite(file, random.Random(2).randbytes(4096))


def all_but_the_beginning(file: Path) -> None:
    overwrite(file, random.Random(3).randbytes(file.stat().st_size - 4096), 4096)


def with_zeros(file: Path) -> None:
    overwrite(file, bytes(file.stat().st_size))


def with_text(file: Path) -> None:
    file_size = file.stat().st_size
    overwrite(file, (b"this is not a database\n" * file_size)[:file_size])


@pytest.mark.parametrize("damage", [everything, the_beginning, all_but_the_beginning, with_zeros, with_text])
async def test_a_file_that_is_overwritten_is_set_aside_and_a_new_one_is_started(
    sqlite: Sqlite, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    before, after = events(3000), events(500, START + 50_000)
    output = output_of(sqlite)
    async with running(output):
        await deliver(output, before)
        await until(lambda: sqlite.count("tracer_pending") == 0)  # the first roll-up is over
        await asyncio.to_thread(sqlite.checkpoint)
        damage(sqlite.file)
        await deliver(output, after)
        await until(lambda: output.state.connected)
        series = await output.series("roof-1", START + 50_000, START + 52_500, 5.0)
        assert_points(series.points, expected(after, 5.0))
        assert output.state.notice is not None
        assert "history.db.damaged-" in output.state.notice
    (aside,) = [file for file in sqlite.directory.iterdir() if not file.name.endswith(("-wal", "-shm", "history.db"))]
    assert aside.name.startswith("history.db.damaged-")
    assert aside.stat().st_size > 100_000
    assert times(sqlite) == [one.reading.time for one in after]
    assert sqlite.query("PRAGMA integrity_check") == [("ok",)]
    assert [text for text in warnings(caplog) if "a new one was started" in text]
    assert len(warnings(caplog)) == 2


async def test_damage_where_only_readers_look_is_found_by_them(sqlite: Sqlite) -> None:
    old, new = events(8000), events(10, START + 200_000)
    output = output_of(sqlite)
    async with running(output):
        await deliver(output, old)
        await until(lambda: sqlite.count("tracer_pending") == 0)
        await asyncio.to_thread(sqlite.checkpoint)
        # The pages of a table in the order of its rows; the second quarter is never needed to add a reading.
        pages = sqlite.query("SELECT pageno FROM dbstat WHERE name = 'tracer_readings' AND pagetype = 'leaf'")
        for (page,) in pages[len(pages) // 4 : len(pages) // 2]:
            overwrite(sqlite.file, b"\xa5" * 4096, (page - 1) * 4096)
        with pytest.raises(OSError, match=r"the history is not available: .*malformed"):
            await output.series("roof-1", START, START + 40_000, 100.0)
        await until(lambda: output.state.notice is not None)
        await deliver(output, new)
    assert times(sqlite) == [one.reading.time for one in new]


async def test_garbage_at_the_start_is_set_aside(sqlite: Sqlite) -> None:
    garbage = random.Random(4).randbytes(50_000)
    sqlite.file.write_bytes(garbage)
    output = output_of(sqlite)
    async with running(output):
        await deliver(output, events(100))
    assert sqlite.count() == 100
    (aside,) = sqlite.directory.glob("history.db.damaged-*")
    assert aside.read_bytes() == garbage


@pytest.mark.parametrize("how", ["deleted", "renamed", "truncated"])
async def test_after_the_file_is_gone_a_new_one_is_started(sqlite: Sqlite, how: str) -> None:
    before, after = events(3000), events(500, START + 50_000)
    output = output_of(sqlite)
    async with running(output):
        await deliver(output, before)
        await until(lambda: sqlite.count("tracer_pending") == 0)
        await asyncio.to_thread(sqlite.checkpoint)
        if how == "deleted":
            sqlite.file.unlink()
        elif how == "renamed":
            sqlite.file.rename(sqlite.directory / "backup.db")
        else:
            os.truncate(sqlite.file, 0)
        await deliver(output, after)
        series = await output.series("roof-1", START + 50_000, START + 52_500, 5.0)
        assert_points(series.points, expected(after, 5.0))
    assert times(sqlite) == [one.reading.time for one in after]
    assert sqlite.query("PRAGMA integrity_check") == [("ok",)]


async def test_a_copy_that_is_moved_over_the_file_is_used_without_what_came_after_it(sqlite: Sqlite) -> None:
    """SQLite would apply the journal of the former file to the copy."""
    first, lost, after = events(3000), events(3000, START + 50_000), events(500, START + 100_000)
    copy = sqlite.directory / "backup.db"
    output = output_of(sqlite)
    async with running(output):
        await deliver(output, first)
        await until(lambda: sqlite.count("tracer_pending") == 0)
        sqlite.query(f"VACUUM INTO '{copy}'")
        await deliver(output, lost)
        copy.replace(sqlite.file)
        await deliver(output, after)
    assert times(sqlite) == [one.reading.time for one in first + after]
    assert sqlite.query("PRAGMA integrity_check") == [("ok",)]


async def test_a_missing_folder_is_reported_and_used_when_it_is_there(tmp_path: Path) -> None:
    sqlite = Sqlite(tmp_path / "later")
    output = output_of(sqlite)
    async with running(output):
        for one in events(10):
            output.publish(one)
        await fails_with(output, "later does not exist")
        sqlite.directory.mkdir()
        await until(lambda: output.state.connected)
    assert sqlite.count() == 10


class Count(Output):
    """An output that works."""

    def __init__(self) -> None:
        super().__init__("count")
        self.events: list[ControllerEvent] = []

    def publish(self, event: ControllerEvent) -> None:
        self.events.append(event)

    async def run(self) -> None:
        await asyncio.Event().wait()


async def test_polling_and_other_outputs_go_on_while_the_database_is_locked_and_damaged(sqlite: Sqlite) -> None:
    hub = Hub(EnergyLedger(sqlite.directory / "energy.json", zone=None, flush_seconds=60))
    hub.add("roof", ControllerConfig(url="sim:", interval=0.2))
    output, count = output_of(sqlite), Count()
    hub.start(output)
    hub.start(count)
    polling = asyncio.create_task(hub.run())
    try:
        await until(lambda: output.state.delivered > 0)
        with closing(sqlite3.connect(sqlite.file, isolation_level=None, check_same_thread=False)) as other:
            await asyncio.to_thread(other.execute, "BEGIN EXCLUSIVE")
            await fails_with(output, "locked")
            seen = len(count.events)
            await until(lambda: len(count.events) >= seen + 3)
            assert output.state.error is not None
            other.execute("ROLLBACK")
        await until(lambda: output.state.connected)
        assert sqlite.count() >= 3
        await asyncio.to_thread(sqlite.checkpoint)
        everything(sqlite.file)
        await until(lambda: output.state.notice is not None and output.state.connected)
        assert all(one.online for one in count.events)
    finally:
        polling.cancel()
        await hub.stop(output)
        await hub.stop(count)
        await hub.aclose()
    (aside,) = (file for file in sqlite.directory.glob("*damaged*") if not file.name.endswith(("-wal", "-shm")))
    assert aside.stat().st_size > 0
    stored = times(sqlite)
    assert stored
    assert set(stored) <= {round(one.reading.time, 3) for one in count.events}


@pytest.mark.slow
async def test_a_server_that_is_restarted_under_load_loses_nothing(
    postgresql: PostgreSql, caplog: pytest.LogCaptureFixture
) -> None:
    batch = events(4000)
    output = output_of(postgresql)
    async with running(output):
        await until(lambda: output.state.connected)
        published = asyncio.create_task(publish_slowly(output, batch))
        for mode in ("immediate", "fast", "immediate"):
            await until(lambda seen=output.state.delivered: output.state.delivered > seen + 100)  # type: ignore[misc]
            await asyncio.to_thread(postgresql.cluster.stop, mode)
            with pytest.raises(OSError, match="the history is not available"):
                await output.series("roof-1", START, START + 60)
            await until(lambda: output.state.error is not None)
            assert PASSWORD not in str(output.state.error)
            await asyncio.to_thread(postgresql.cluster.start)
            await until(lambda: output.state.connected)
            assert (await output.series("roof-1", START, START + 60, 5.0)).points
        await published
    assert times(postgresql) == [one.reading.time for one in batch]
    assert output.state.dropped == 0
    assert len(warnings(caplog)) == 3


async def publish_slowly(output: HistoryOutput, batch: list[ControllerEvent]) -> None:
    for one in batch:
        output.publish(one)
        await asyncio.sleep(0.002)


async def test_a_wrong_password_is_reported_without_it(postgresql: PostgreSql) -> None:
    config = postgresql.config()
    postgresql.cluster.sql("postgres", "CREATE ROLE other LOGIN PASSWORD 'x'")
    config = config.model_copy(update={"url": config.url.replace("postgres@", "other@")})
    output = HistoryOutput(config, directory=postgresql.directory, zone=None)
    task = asyncio.create_task(output.run())
    output.publish(event(START, values(1)))
    await fails_with(output, 'password authentication failed for user "other"')
    assert PASSWORD not in str(output.state.error)
    task.cancel()
    await asyncio.wait([task])
    with pytest.raises(OSError, match="password authentication failed"):
        await output.drain()


@pytest.mark.slow
def test_a_writer_that_is_killed_100_times_leaves_every_acknowledged_reading(sqlite: Sqlite) -> None:
    command = [sys.executable, str(KILLED_WRITER), str(sqlite.directory), "100"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    rounds = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert len(rounds) == 100
    assert sum(acknowledged > 0 for _, acknowledged in rounds) > 50
    stored = set(times(sqlite))
    for number, acknowledged in rounds:
        # A round writes one reading a second from its own day on.
        start = START + 86_400 * number
        assert {start + n for n in range(acknowledged)} <= stored
    assert sqlite.query("PRAGMA integrity_check") == [("ok",)]
    assert not list(sqlite.directory.glob("*damaged*"))
