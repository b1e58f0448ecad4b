"""Only totals that are on the disk are handed out, and no crash, full disk or damaged file takes any of them back."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.energy_readings import power_reading
from tracer_async.gateway.energy import MeterState
from tracer_async.gateway.energy_file import EnergyFile, decode_states
from tracer_async.gateway.energy_ledger import EnergyLedger
from tracer_async.gateway.events import Controller, DayEnergy, EnergyTotals

ROOF = Controller("roof", "The roof", "roof-1", 10.0)
SHED = Controller("shed", "The shed", "shed-1", 10.0)
ROOT = Path(__file__).parents[2]
# 2026-06-01 12:00 UTC.
NOON = 1_780_315_200.0
DAY = date(2026, 6, 1)


def open_ledger(file: Path, flush_seconds: float = 3600.0) -> EnergyLedger:
    ledger = EnergyLedger(file, zone=UTC, flush_seconds=flush_seconds)
    ledger.load()
    return ledger


def record(ledger: EnergyLedger, watt_hours: int, controller: Controller = ROOF, *, start: float = NOON) -> None:
    """Record readings that count so many watt-hours of charge, and half of it for the load."""
    for tick in range(watt_hours + 1):
        ledger.record(controller, power_reading(start + 10.0 * tick, 360.0, 180.0), start + 10.0 * tick)


async def loaded(file: Path, controller_id: str = "roof-1") -> EnergyTotals:
    """Return the totals that the next start has."""
    ledger = open_ledger(file)
    totals = ledger.stored(controller_id)
    await ledger.aclose()
    return totals


def content(file: Path) -> bytes:
    return file.read_bytes()


def overwrite(file: Path, raw: bytes) -> None:
    file.write_bytes(raw)


def remove(file: Path) -> None:
    file.unlink()


def backup_of(file: Path) -> Path:
    return file.with_name(f"{file.name}.bak")


def copied(file: Path, folder: str) -> Path:
    """Copy the directory of the file, as a restart would find it now. Return the copy of the file."""
    copy = file.parents[1] / folder
    shutil.copytree(file.parent, copy)
    return copy / file.name


def names(directory: Path) -> set[str]:
    return {entry.name for entry in directory.iterdir()}


def identity(file: Path) -> tuple[int, int]:
    return file.stat().st_ino, file.stat().st_mtime_ns


def near(value: float) -> Any:
    return pytest.approx(value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    return tmp_path / "state" / "energy.json"


# Totals


async def test_totals_are_handed_out_when_they_are_on_the_disk_and_survive_a_restart(file: Path) -> None:
    ledger = open_ledger(file)
    record(ledger, 6)
    assert ledger.stored("roof-1") == EnergyTotals()
    await ledger.flush()
    totals = ledger.stored("roof-1")
    assert totals == EnergyTotals(near(6.0), near(3.0), DAY, near(6.0), near(3.0), 0.0)
    await ledger.aclose()
    again = open_ledger(file)
    assert again.stored("roof-1") == totals
    record(again, 2, start=NOON + 160.0)
    await again.aclose()
    assert again.stored("roof-1") == EnergyTotals(near(8.0), near(4.0), DAY, near(8.0), near(4.0), 100.0)


async def test_a_controller_that_is_not_configured_any_more_keeps_its_totals(file: Path) -> None:
    ledger = open_ledger(file)
    record(ledger, 6)
    record(ledger, 3, SHED)
    await ledger.aclose()
    for _ in range(3):
        ledger = open_ledger(file)
        record(ledger, 1, SHED)
        await ledger.aclose()
    assert (await loaded(file)).charge == near(6.0)


async def test_totals_belong_to_the_id_and_not_to_the_name(file: Path) -> None:
    ledger = open_ledger(file)
    record(ledger, 6)
    record(ledger, 2, Controller("renamed", "Renamed", "roof-1", 10.0), start=NOON + 70.0)
    await ledger.aclose()
    assert ledger.stored("roof-1").charge == near(9.0)
    assert ledger.stored("roof") == EnergyTotals()


async def test_the_days_are_on_the_disk(file: Path) -> None:
    ledger = open_ledger(file)
    for day in (2, 0, 1):
        record(ledger, day + 1, start=NOON + day * 86_400.0)
    await ledger.aclose()
    days = decode_states(content(file))["roof-1"].days
    # In the order in which they were counted.
    assert list(days) == [DayEnergy(date(2026, 6, day), near(day), near(day / 2)) for day in (3, 1, 2)]


# Writing


async def test_run_writes_at_once_and_then_from_time_to_time(file: Path) -> None:
    ledger = open_ledger(file, flush_seconds=0.001)
    running = asyncio.create_task(ledger.run())
    async with asyncio.timeout(30):
        while not ledger.state.connected:
            await asyncio.sleep(0.001)
        assert decode_states(content(file)) == {}
        for part in range(1, 4):
            record(ledger, 1, start=NOON + 1000.0 * part)
            while ledger.stored("roof-1").charge < part * 0.999:
                await asyncio.sleep(0.001)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await ledger.aclose()
    assert ledger.state.delivered == 6


async def test_without_a_new_reading_nothing_is_written(file: Path) -> None:
    ledger = open_ledger(file)
    record(ledger, 6)
    await ledger.flush()
    before = identity(file)
    await ledger.flush()
    await ledger.aclose()
    assert identity(file) == before


class SlowDisk:
    """Holds each `fsync` until it is released."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached = threading.Event()
        self.release = threading.Event()
        self.threads: set[threading.Thread] = set()
        fsync = os.fsync

        def slow(descriptor: int) -> None:
            self.threads.add(threading.current_thread())
            self.reached.set()
            assert self.release.wait(30)
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", slow)


async def test_a_slow_disk_does_not_stall_the_event_loop(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = SlowDisk(monkeypatch)
    ledger = open_ledger(file)
    record(ledger, 6)
    flush = asyncio.create_task(ledger.flush())
    while not disk.reached.is_set():
        await asyncio.sleep(0.001)
    # The loop runs, and readings are counted. They are not on the disk yet.
    record(ledger, 2, start=NOON + 60.0)
    assert ledger.stored("roof-1") == EnergyTotals()
    disk.release.set()
    await flush
    assert ledger.stored("roof-1").charge == near(6.0)
    assert threading.main_thread() not in disk.threads
    await ledger.aclose()
    assert ledger.stored("roof-1").charge == near(8.0)


async def test_the_end_waits_for_a_write_whose_caller_was_cancelled(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = open_ledger(file)
    record(ledger, 6)
    await ledger.flush()
    disk = SlowDisk(monkeypatch)
    record(ledger, 2, start=NOON + 60.0)
    flush = asyncio.create_task(ledger.flush())
    while not disk.reached.is_set():
        await asyncio.sleep(0.001)
    flush.cancel()
    with pytest.raises(asyncio.CancelledError):
        await flush
    end = asyncio.create_task(ledger.aclose())
    # Enough for a thread and the event loop to do all that they can.
    await asyncio.sleep(0.05)
    assert not end.done()
    disk.release.set()
    await end
    assert ledger.stored("roof-1").charge == near(8.0)
    assert (await loaded(file)).charge == near(8.0)


async def test_totals_are_on_the_disk_twice_before_they_are_published_and_the_backup_comes_first(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = open_ledger(file)
    record(ledger, 6)
    await ledger.flush()
    # What is synchronized, and the total in the file, in its backup, and published at that moment.
    synced: list[tuple[str, float, float, float]] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        kind = "directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        copies = [near(decode_states(path.read_bytes())["roof-1"].charge) for path in (file, backup_of(file))]
        synced.append((kind, *copies, near(ledger.stored("roof-1").charge)))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    record(ledger, 2, start=NOON + 60.0)
    await ledger.aclose()
    assert synced == [("file", 6.0, 6.0, 6.0), ("file", 6.0, 8.0, 6.0), ("directory", 8.0, 8.0, 6.0)]


# Disks that cannot be written to


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    directory = tmp_path / "small"
    directory.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(directory)]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("mount is not installed")
    if result.returncode:
        pytest.skip(f"no file system can be mounted here: {result.stderr.strip()}")
    yield directory
    subprocess.run(["umount", "-l", str(directory)], check=True)


def remount(directory: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", str(directory)], check=True)


def fill(directory: Path) -> Path:
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as full:
        while True:
            try:
                full.write(bytes(4096))
            except OSError:
                return filler


@pytest.mark.parametrize("fault", ["full", "read-only"])
async def test_a_disk_that_cannot_be_written_to_loses_no_energy(
    small_disk: Path, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    ledger = open_ledger(small_disk / "energy.json")
    record(ledger, 6)
    await ledger.flush()
    before = ledger.stored("roof-1")
    if fault == "full":
        filler = fill(small_disk)
    else:
        remount(small_disk, "ro")
    for part in range(3):
        record(ledger, 2, start=NOON + 60.0 + 20.0 * part)
        await ledger.flush()
        assert ledger.stored("roof-1") == before
        assert not ledger.state.connected
        # A part of a file would take the space that others need.
        assert not [name for name in names(small_disk) if name.endswith(".new")]
    assert ledger.state.error == ("No space left on device" if fault == "full" else "Read-only file system")
    assert [item.levelname for item in caplog.records if "cannot be written" in item.message] == ["ERROR"]
    # What is on the disk is as good as before.
    for name in ("energy.json", "energy.json.bak"):
        assert decode_states(content(small_disk / name))["roof-1"].charge == near(6.0)
    if fault == "full":
        filler.unlink()
    else:
        remount(small_disk, "rw")
    await ledger.flush()
    assert ledger.state.connected
    assert not ledger.state.error
    assert ledger.state.delivered == 7 + 3 * 3
    assert ledger.stored("roof-1").charge == near(12.0)
    await ledger.aclose()
    assert (await loaded(small_disk / "energy.json")).charge == near(12.0)


LIMITED = """
import asyncio, resource, sys
from datetime import UTC
from pathlib import Path
from tests.gateway.energy_readings import power_reading
from tracer_async.gateway.energy_ledger import EnergyLedger
from tracer_async.gateway.events import Controller

ROOF = Controller("roof", "Roof", "roof-1", 10.0)

async def main():
    ledger = EnergyLedger(Path(sys.argv[1]), zone=UTC, flush_seconds=60.0)
    ledger.load()
    for tick in range(7):
        ledger.record(ROOF, power_reading(1.78e9 + 10.0 * tick, 360.0), 10.0 * tick)
    for limit in (0, resource.RLIM_INFINITY):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        await ledger.flush()
        print(ledger.state.error, round(ledger.stored("roof-1").charge, 9), flush=limit != 0)
    await ledger.aclose()

asyncio.run(main())
"""


def test_a_limit_on_the_size_of_files_loses_no_energy(file: Path) -> None:
    result = subprocess.run([sys.executable, "-c", LIMITED, file], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == ["File too large 0.0", "None 6.0"]


async def test_a_missing_directory_is_made_and_one_that_vanishes_is_reported(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "state" / "energy.json")
    record(ledger, 6)
    await ledger.flush()
    (tmp_path / "state").rename(tmp_path / "moved")
    record(ledger, 2, start=NOON + 60.0)
    await ledger.flush()
    assert ledger.state.error == "No such file or directory"
    (tmp_path / "moved").rename(tmp_path / "state")
    await ledger.aclose()
    assert ledger.stored("roof-1").charge == near(8.0)


# Damaged files


async def test_a_file_that_can_be_neither_read_nor_renamed_is_reported_and_kept(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = small_disk / "energy.json"
    overwrite(file, b"damaged")
    remount(small_disk, "ro")
    ledger = open_ledger(file)
    record(ledger, 6)
    await ledger.flush()
    assert ledger.state.error == "Read-only file system"
    assert any("it cannot be renamed: [Errno 30]" in item.message for item in caplog.records)
    remount(small_disk, "rw")
    await ledger.aclose()
    assert content(Path(f"{file}.damaged-1")) == b"damaged"
    assert (await loaded(file)).charge == near(6.0)


async def two_flushes(file: Path) -> bytes:
    """Write 6 Wh, then 8 Wh. Return the file."""
    ledger = open_ledger(file)
    record(ledger, 6)
    await ledger.flush()
    record(ledger, 2, start=NOON + 60.0)
    await ledger.aclose()
    return content(file)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda raw: b"",
    "zeros": lambda raw: bytes(len(raw)),
    "garbage": lambda raw: random.Random(1).randbytes(len(raw)),
    "half": lambda raw: raw[: len(raw) // 2],
    "digit": lambda raw: raw.replace(b"8.0", b"9.0", 1).replace(b"7.9", b"6.9", 1),
    "other format": lambda raw: raw.replace(b'"format": 1', b'"format": 2'),
    "no object": lambda raw: b"[1, 2]",
    "deep": lambda raw: b"[" * 100_000,
}


COPIES = pytest.mark.parametrize("copy_of", [Path, backup_of], ids=["file", "backup"])
CopyOf = Callable[[Path], Path]


@COPIES
@pytest.mark.parametrize("damage", DAMAGE)
async def test_a_damaged_copy_is_kept_and_takes_no_total_back(
    file: Path, copy_of: CopyOf, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    raw, damaged_file = await two_flushes(file), copy_of(file)
    damaged = DAMAGE[damage](raw)
    assert damaged != raw
    overwrite(damaged_file, damaged)
    ledger = open_ledger(file)
    assert ledger.stored("roof-1").charge == near(8.0)
    assert content(Path(f"{damaged_file}.damaged-1")) == damaged
    (error,) = (item.message for item in caplog.records if item.levelname == "ERROR")
    assert error.startswith(f"{damaged_file} cannot be used: ")
    assert error.endswith(f"; it is kept as {damaged_file.name}.damaged-1")
    record(ledger, 1, start=NOON + 1000.0)
    await ledger.aclose()
    for path in (file, backup_of(file)):
        assert decode_states(content(path))["roof-1"].charge == near(9.0)


@COPIES
async def test_a_missing_copy_takes_no_total_back(
    file: Path, copy_of: CopyOf, caplog: pytest.LogCaptureFixture
) -> None:
    await two_flushes(file)
    remove(copy_of(file))
    ledger = open_ledger(file)
    assert ledger.stored("roof-1").charge == near(8.0)
    assert not [item for item in caplog.records if item.levelname == "ERROR"]
    await ledger.flush()
    assert names(file.parent) == {"energy.json", "energy.json.bak", "energy.json.lock"}
    await ledger.aclose()


async def test_an_older_file_that_was_restored_is_used_and_not_its_backup(file: Path) -> None:
    ledger = open_ledger(file)
    record(ledger, 6)
    await ledger.aclose()
    old = content(file)
    await two_flushes(file)
    overwrite(file, old)
    ledger = open_ledger(file)
    assert ledger.stored("roof-1").charge == near(6.0)
    record(ledger, 1, start=NOON + 1000.0)
    await ledger.aclose()
    assert content(file) == content(backup_of(file))
    assert not any("damaged" in name for name in names(file.parent))


async def test_if_the_backup_is_damaged_too_both_are_kept_and_counting_begins_at_0(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await two_flushes(file)
    overwrite(file, b"one")
    overwrite(Path(f"{file}.bak"), b"two")
    ledger = open_ledger(file)
    assert ledger.stored("roof-1") == EnergyTotals()
    record(ledger, 1)
    await ledger.aclose()
    assert content(Path(f"{file}.damaged-1")) == b"one"
    assert content(Path(f"{file}.bak.damaged-1")) == b"two"
    errors = [item.message for item in caplog.records if item.levelname == "ERROR"]
    assert len(errors) == 3
    assert errors[-1] == f"{file}: no totals can be read, counting begins at 0"
    assert (await loaded(file)).charge == near(1.0)


@COPIES
async def test_a_copy_overwritten_while_the_service_runs_is_kept_and_written_again(
    file: Path, copy_of: CopyOf, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = open_ledger(file)
    for part in range(1, 4):
        record(ledger, 1, start=NOON + 100.0 * part)
        await ledger.flush()
        overwrite(copy_of(file), b"garbage")
        assert (await loaded(copied(file, f"restart-{part}"))).charge == near(part)
    caplog.clear()
    record(ledger, 1, start=NOON + 400.0)
    await ledger.aclose()
    assert sum(item.levelname == "ERROR" for item in caplog.records) == 1
    assert (await loaded(file)).charge == near(4.0)
    kept = [content(Path(f"{copy_of(file)}.damaged-{number}")) for number in (1, 2, 3)]
    assert kept == [b"garbage"] * 3


async def test_files_that_were_not_loaded_are_not_overwritten(file: Path) -> None:
    raw = await two_flushes(file)
    ledger = EnergyLedger(file, zone=UTC, flush_seconds=60.0)
    record(ledger, 1)
    await ledger.aclose()
    for path in (file, backup_of(file)):
        assert content(Path(f"{path}.damaged-1")) == raw


async def test_two_processes_cannot_count_in_one_file(file: Path) -> None:
    first = open_ledger(file)
    second = EnergyLedger(file, zone=UTC, flush_seconds=60.0)
    with pytest.raises(BlockingIOError, match="another gateway uses these energy totals"):
        second.load()
    await first.aclose()
    second.load()
    await second.aclose()


def test_after_the_lock_file_was_removed_only_one_process_counts_in_the_file(file: Path) -> None:
    """Otherwise each would set aside the files of the other one, at every write."""
    first, second = EnergyFile(file), EnergyFile(file)
    first.open()
    first.save({"roof": MeterState(charge=1.0)})
    Path(f"{file}.lock").unlink()
    assert second.open()["roof"].charge == 1.0
    second.save({"roof": MeterState(charge=2.0)})
    with pytest.raises(BlockingIOError, match="another gateway uses these energy totals"):
        first.save({"roof": MeterState(charge=1.5)})
    second.save({"roof": MeterState(charge=3.0)})
    second.close()
    assert names(file.parent) == {"energy.json", "energy.json.bak", "energy.json.lock"}
    assert first.open()["roof"].charge == 3.0
    first.close()


# kill -9

KILLED = """
import asyncio, os, signal, sys
from datetime import UTC
from pathlib import Path
from tests.gateway.energy_readings import power_reading
from tracer_async.gateway.energy_ledger import EnergyLedger
from tracer_async.gateway.events import Controller

ROOF = Controller("roof", "Roof", "roof-1", 10.0)

def kill_before(step):
    calls = 0
    def counted(function):
        def call(*arguments, **options):
            nonlocal calls
            calls += 1
            if calls == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)
        return call
    os.fsync, os.replace = counted(os.fsync), counted(os.replace)

async def record(file, step):
    ledger = EnergyLedger(file, zone=UTC, flush_seconds=60.0)
    ledger.load()
    for tick in range(9):
        ledger.record(ROOF, power_reading(1.78e9 + 10.0 * tick, 360.0), 10.0 * tick)
        if tick in (6, 8):
            await ledger.flush()
            print(step, ledger.stored("roof-1").charge, flush=True)
            kill_before(step)

for step in range(1, 100):
    folder = Path(sys.argv[1], str(step))
    folder.mkdir()
    child = os.fork()
    if not child:
        asyncio.run(record(folder / "energy.json", step))
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
"""


@pytest.mark.parametrize("damage", ["none", "missing", "empty", "half", "garbage"])
@COPIES
def test_a_kill_at_any_step_of_a_write_and_a_damaged_copy_take_no_published_total_back(
    tmp_path: Path, copy_of: CopyOf, damage: str
) -> None:
    result = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path], cwd=ROOT, capture_output=True, text=True, check=True
    )
    published: dict[str, float] = {}
    for line in result.stdout.splitlines():
        step, number = line.split()
        published[step] = float(number)
    # A backup and a file, each with a rename, and their directory. In the last process nothing was killed.
    assert list(published.values()) == [near(6.0)] * 5 + [near(8.0)]
    for step, total in published.items():
        file = tmp_path / step / "energy.json"
        if damage == "missing":
            remove(copy_of(file))
        elif damage != "none":
            overwrite(copy_of(file), DAMAGE[damage](content(copy_of(file))))
        assert total <= asyncio.run(loaded(file)).charge < 8.001


class Recorder:
    """Processes that record into *file*, one after the other."""

    def __init__(self, file: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.gateway.energy_recorder", file],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def run_and_kill(self, moment: random.Random) -> list[tuple[str, float]]:
        """Let a process publish some totals, kill it at a random moment, and return all that it said."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("again\n")
        self._process.stdin.flush()
        process, flushes = 0, moment.randrange(7)
        lines: list[tuple[str, float]] = []
        for line in self._process.stdout:
            if line == "ended\n":
                return lines
            word, number = line.split()
            if word == "started":
                process = int(number)
            else:
                lines.append((word, float(number)))
            if process and sum(word == "published" for word, _ in lines) >= flushes:
                # Before, during or after a write: one takes some milliseconds.
                time.sleep(moment.uniform(0.0, 0.01))
                os.kill(process, signal.SIGKILL)
                process = 0
        raise AssertionError("the recorder has ended")

    def close(self) -> None:
        self._process.communicate()


def spoil(path: Path, fault: str) -> bool:
    """Damage a copy. Return whether it will be set aside."""
    if fault == "none" or not path.exists():
        return False
    if fault == "missing":
        remove(path)
        return False
    overwrite(path, DAMAGE[fault](content(path)))
    return True


@pytest.mark.slow
def test_100_kills_at_random_moments_and_damaged_copies_take_no_published_total_back(file: Path) -> None:
    recorder, moment = Recorder(file), random.Random(10)
    before, cycles_with_flushes, damaged = 0.0, 0, 0
    try:
        for _ in range(100):
            said = recorder.run_and_kill(moment)
            copy = moment.choice([file, backup_of(file)])
            damaged += spoil(copy, moment.choice(["none", "missing", "half"]))
            ledger = EnergyLedger(file, zone=None, flush_seconds=60.0)
            ledger.load()
            loaded = ledger.stored("roof").charge
            asyncio.run(ledger.aclose())
            published = [number for word, number in said if word == "published"]
            assert published == sorted(published)
            assert max(published, default=0.0) <= loaded
            assert before <= loaded
            recorded = [number for word, number in said if word == "recorded"]
            assert loaded <= max([*recorded, before])
            # When a total was published, the next flush had not begun. So it had all that was recorded by then.
            if len(published) > 2:
                at = [index for index, (word, _) in enumerate(said) if word == "published"][-2]
                assert loaded >= max(number for word, number in said[:at] if word == "recorded")
                cycles_with_flushes += 1
            before = loaded
    finally:
        recorder.close()
    assert cycles_with_flushes > 30
    assert len(list(file.parent.glob("*.damaged-*"))) == damaged > 10
