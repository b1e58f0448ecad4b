"""A reload that changes [history] loses no reading that the old output still held."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import cast

import pytest

from tests.gateway.history.databases import PASSWORD, Sqlite, TestDatabase
from tests.gateway.history.events import until
from tests.gateway.hub_outputs import RecordingOutput
from tracer_async.gateway.config import GatewayConfig
from tracer_async.gateway.config_file import load_config
from tracer_async.gateway.history.query import HistoryReader
from tracer_async.gateway.history.store import HistoryOutput
from tracer_async.gateway.output import Controllers, Output
from tracer_async.gateway.output_factory import make_output
from tracer_async.gateway.service import Gateway

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("restored_logging")]


class Site:
    """A gateway with a history, and another output that notes what the hub has published."""

    def __init__(self, database: TestDatabase, *, flush_seconds: float = 3600) -> None:
        self.database = database
        self.recorder = RecordingOutput("mqtt")
        self.histories: list[HistoryOutput] = []
        self.stored_before: set[int] = set()
        """What the database had when the last one of these was made."""
        self._path = database.directory / "gateway.toml"
        (database.directory / "password").write_text(PASSWORD)
        (database.directory / "password").chmod(0o600)
        self.write(flush_seconds=flush_seconds)
        self.gateway = Gateway(self._path, load_config(self._path, environment={}), make_output=self._make)

    def write(
        self, *, url: str | None = None, flush_seconds: float = 3600, raw_days: int = 14, prefix: str = "tracer"
    ) -> None:
        password = "" if isinstance(self.database, Sqlite) else 'password_file = "password"\n'
        self._path.write_text(
            '[controllers.roof]\nurl = "sim:"\ninterval = 0.2\n[mqtt]\nurl = "mqtt://127.0.0.1"\n'
            f'prefix = "{prefix}"\n[history]\nurl = "{url or self.database.url}"\n'
            f"flush_seconds = {flush_seconds}\nraw_days = {raw_days}\n{password}"
        )

    def _make(
        self, section: str, config: GatewayConfig, controllers: Controllers, history: HistoryReader | None, /
    ) -> Output:
        if section != "history":
            return self.recorder
        if self.histories:
            self.stored_before = stored(self.database)
        output = make_output(section, config, controllers, history)
        self.histories.append(cast("HistoryOutput", output))
        return output

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.gateway.run())
        try:
            await until(lambda: any(output.state.connected for output in self.histories))
            yield
        finally:
            self.gateway.stop()
            await task

    async def readings(self, more: int) -> None:
        """Wait until the hub has published more readings."""
        wanted = len(self.recorder.events) + more
        await self.recorder.until(lambda events: len(events) >= wanted)

    def published(self) -> list[int]:
        """The times of the readings that the hub has published so far, in milliseconds."""
        assert all(event.online for event in self.recorder.events)
        return [round(event.reading.time * 1000) for event in self.recorder.events]

    async def reload(self, **keys: object) -> HistoryOutput:
        """Change the section; return the new output as soon as it is started."""
        count = len(self.histories)
        self.write(**keys)  # type: ignore[arg-type]
        self.gateway.reload()
        # One is made to find out whether that is possible, and then the one that runs.
        await until(lambda: len(self.histories) == count + 2)
        return self.histories[-1]


def stored(database: TestDatabase) -> set[int]:
    """The times of the stored readings, in milliseconds."""
    return {time for (time,) in database.query("SELECT time FROM tracer_readings")}


@asynccontextmanager
async def locked(sqlite: Sqlite) -> AsyncIterator[sqlite3.Connection]:
    """Lock the database for writers."""
    with closing(sqlite3.connect(sqlite.file, isolation_level=None, check_same_thread=False)) as other:
        # Not in this thread: it may wait for a transaction that needs the event loop.
        await asyncio.to_thread(other.execute, "BEGIN EXCLUSIVE")
        yield other


async def test_what_waits_is_written_when_a_reload_changes_the_history(database: TestDatabase) -> None:
    site = Site(database)
    async with site.running():
        await site.readings(10)
        held = site.published()
        assert not {*held[-5:]} & stored(database)
        await site.reload(raw_days=15)
        # Before the new output was made, so by the old one.
        assert {*held} <= site.stored_before
        await site.readings(2)
        after = site.published()[-1]
    assert after in stored(database)


@pytest.mark.parametrize("failing", [False, True], ids=["locked just now", "locked for some time"])
async def test_what_cannot_be_written_because_of_a_lock_is_written_after_a_reload(
    sqlite: Sqlite, *, failing: bool, caplog: pytest.LogCaptureFixture
) -> None:
    site = Site(sqlite, flush_seconds=1 if failing else 3600)
    async with site.running():
        async with locked(sqlite) as other:
            await site.readings(5)
            if failing:
                await until(lambda: site.histories[0].state.error is not None)
            held = site.published()
            second = await site.reload(raw_days=15)
            await until(lambda: second.state.error is not None)
            assert "locked" in str(second.state.error)
            assert not {*held[-5:]} & stored(sqlite)
            other.execute("ROLLBACK")
        await until(lambda: second.state.connected)
        assert {*held} <= stored(sqlite)
        assert second.state.dropped == 0
    warnings = [text for text in caplog.messages if "what was left at the end" in text]
    assert len(warnings) == 1
    assert "BEGIN" not in warnings[0]


async def test_what_cannot_be_written_to_the_old_database_is_written_to_the_new_one(sqlite: Sqlite) -> None:
    site = Site(sqlite)
    async with site.running():
        async with locked(sqlite) as other:
            await site.readings(5)
            before = stored(sqlite)
            held = {*site.published()} - before
            assert len(held) >= 4
            output = await site.reload(url="sqlite:///new.db")
            await until(lambda: output.state.connected)
            other.execute("ROLLBACK")
        with closing(sqlite3.connect(Path(sqlite.directory, "new.db"))) as new:
            assert held <= {time for (time,) in new.execute("SELECT time FROM tracer_readings")}


class SlowOutput(RecordingOutput):
    """Takes some time to end."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.is_ending = asyncio.Event()

    async def drain(self) -> None:
        self.is_ending.set()
        await asyncio.sleep(2)


async def test_readings_that_come_while_a_reload_waits_for_another_output_are_written_if_the_service_ends(
    database: TestDatabase,
) -> None:
    site = Site(database)
    slow = site.recorder = SlowOutput("mqtt")
    async with site.running():
        await site.readings(3)
        site.write(raw_days=15, prefix="other")
        site.gateway.reload()
        await slow.is_ending.wait()
        await site.readings(4)
    # The reload did not come to its end.
    assert len(site.histories) == 2
    assert {*site.published()} <= stored(database)
