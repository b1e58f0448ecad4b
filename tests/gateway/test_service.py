"""The service as a process: start, SIGHUP, the end, and what it tells systemd and the log."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.hub_outputs import RecordingOutput
from tracer_async.gateway._clock import uptime
from tracer_async.gateway.config_file import load_config
from tracer_async.gateway.energy_ledger import EnergyLedger
from tracer_async.gateway.service import Gateway, GatewayError

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

ROOF = '[controllers.roof]\nurl = "sim:"\ninterval = 0.2\n'
SHED = '[controllers.shed]\nurl = "sim:?seed=1"\ninterval = 0.2\n'
MQTT = '[mqtt]\nurl = "mqtt://127.0.0.1"\n'
INFLUX = '[influx]\nurl = "http://127.0.0.1"\n'

PATIENCE = 20.0


class Service:
    """A running service, seen through its journal, its log and systemd's socket."""

    def __init__(self, folder: Path, text: str, **variables: str) -> None:
        self.path = folder / "gateway.toml"
        self.journal = folder / "journal"
        self.journal.touch()
        self.log_file = folder / "log"
        self.write(text)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(folder / "notify"))
        self.socket.settimeout(PATIENCE)
        self.messages: list[dict[str, str]] = []
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("WATCHDOG", "JOURNAL", "STATE"))
        }
        with self.log_file.open("wb") as log:
            status = os.fstat(log.fileno())
            # Such as `>&-`, which closes standard output.
            redirection = variables.pop("redirection", "")
            if variables.pop("journald", ""):
                environment["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino}"
            self.process = subprocess.Popen(
                [
                    *("sh", "-c", f'exec "$@" {redirection}', "sh"),
                    *(sys.executable, "-m", "tests.gateway.service_process", self.path, self.journal),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                cwd=ROOT,
                env=environment | {"NOTIFY_SOCKET": str(folder / "notify")} | variables,
            )

    def write(self, text: str) -> None:
        self.path.write_text(text, encoding="utf-8")

    def message(self, name: str) -> dict[str, str]:
        """Wait for a message to systemd that has this assignment."""
        while True:
            text = self.socket.recv(4096).decode()
            self.messages.append(dict(line.split("=", 1) for line in text.splitlines()))
            if name in self.messages[-1]:
                return self.messages[-1]

    def entries(self, **conditions: object) -> list[dict[str, Any]]:
        lines = self.journal.read_text(encoding="utf-8").splitlines()
        return [entry for entry in map(json.loads, lines) if conditions.items() <= entry.items()]

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, self.log
            assert self.process.poll() is None, self.log
            time.sleep(0.02)

    def until_more_events(self) -> None:
        """Wait until each output has two events more."""
        before = len(self.entries(what="event"))
        self.until(lambda: len(self.entries(what="event")) >= before + 8)

    def reload(self, text: str) -> None:
        self.write(text)
        self.process.send_signal(signal.SIGHUP)
        self.message("RELOADING")
        self.message("READY")

    @property
    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8")

    def end(self, signum: signal.Signals = signal.SIGTERM) -> float:
        """End it; return how many seconds that took."""
        began = time.monotonic()
        self.process.send_signal(signum)
        self.process.wait(PATIENCE)
        return time.monotonic() - began


Start = Callable[..., Service]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    services: list[Service] = []

    def start(text: str, **variables: str) -> Service:
        folder = tmp_path / str(len(services))
        folder.mkdir()
        services.append(Service(folder, text, **variables))
        services[-1].message("READY")
        return services[-1]

    yield start
    for service in services:
        service.process.kill()
        service.process.wait()
        service.socket.close()


# SIGHUP


def test_a_changed_file_touches_only_what_changed(start: Start) -> None:
    service = start(ROOF + SHED + MQTT + INFLUX)
    service.until_more_events()
    service.reload(f'{ROOF}{SHED}title = "Shed"\n{MQTT}prefix = "solar"\n{INFLUX}[controllers.barn]\nurl = "sim:"')
    service.until(lambda: service.entries(what="event", name="barn", output="mqtt"))
    service.until_more_events()
    influx = service.entries(output="influx")
    assert [entry for entry in influx if entry["what"] in ("run", "drain")] == [influx[2]]
    assert [(entry["what"], entry["name"]) for entry in influx if entry["what"] in ("add", "remove")] == [
        ("add", "roof"),
        ("add", "shed"),
        ("add", "shed"),
        ("add", "barn"),
    ]
    # The connections are the same: the requests are counted on.
    for name in ("roof", "shed"):
        requests = [entry["requests"] for entry in influx if entry["what"] == "event" and entry["name"] == name]
        assert requests == sorted(requests)
        assert len(set(requests)) == len(requests)
    runs = service.entries(output="mqtt", what="run")
    assert len(runs) == 2
    assert [entry["number"] for entry in service.entries(output="mqtt", what="drain")] == [runs[0]["number"]]


def test_controllers_and_outputs_can_be_removed(start: Start) -> None:
    service = start(ROOF + SHED + MQTT + INFLUX)
    service.until_more_events()
    service.reload(ROOF + INFLUX)
    assert [(entry["output"], entry["name"]) for entry in service.entries(what="remove")] == [("influx", "shed")]
    assert len(service.entries(what="drain", output="mqtt")) == 1
    mqtt = len(service.entries(output="mqtt"))
    service.until_more_events()
    assert len(service.entries(output="mqtt")) == mqtt
    removed = service.entries(output="influx").index(service.entries(output="influx", what="remove")[0])
    assert {entry["name"] for entry in service.entries(output="influx")[removed + 1 :]} == {"roof"}


@pytest.mark.parametrize(
    ("text", "logged"),
    [
        (f"{ROOF}intervall = 3\n[mqtt]\nurl = 'http://h'", ["roof.intervall: unknown key", "mqtt.url: found"]),
        ("[controllers", ["is not TOML"]),
        (None, ["cannot be read"]),
        (f"{SHED}{MQTT}username = 'raise'", ["cannot be made"]),
    ],
    ids=["errors", "syntax", "no file", "an output that cannot be made"],
)
def test_a_file_with_errors_leaves_everything_as_it_is(start: Start, text: str | None, logged: list[str]) -> None:
    service = start(ROOF + MQTT + INFLUX)
    service.until_more_events()
    if text is None:
        service.path.unlink()
        service.process.send_signal(signal.SIGHUP)
        service.message("READY")
    else:
        service.reload(text)
    assert all(part in service.log for part in logged)
    assert "was not applied" in service.log
    assert "was applied" not in service.log
    service.until_more_events()
    assert len(service.entries(what="run")) == len(service.entries(what="add")) == 2
    assert not service.entries(what="drain")
    requests = [entry["requests"] for entry in service.entries(output="mqtt", what="event")]
    assert requests == sorted(requests)
    service.reload(ROOF + INFLUX)
    assert len(service.entries(what="drain", output="mqtt")) == 1


def test_many_signals_at_once_end_with_the_last_file(start: Start) -> None:
    service = start(ROOF + MQTT)
    for number in range(20):
        service.write(f"{ROOF}title = 'title {number}'\n{MQTT}")
        service.process.send_signal(signal.SIGHUP)
    service.until(lambda: (service.entries(what="add") or [{}])[-1].get("title") == "title 19")
    service.until_more_events()


@pytest.mark.parametrize(
    ("top", "tables", "names"),
    [
        ("time_zone = 'Asia/Tokyo'\n", "", "time_zone"),
        ("state_directory = 'elsewhere'\n", "", "state_directory"),
        ("", "[energy]\nflush_seconds = 7\n", r"\[energy\]"),
        ("time_zone = 'Asia/Tokyo'\n", "[energy]\nflush_seconds = 7\n", r"time_zone, \[energy\]"),
    ],
)
def test_what_only_a_new_start_applies_is_a_warning_that_asks_for_it(
    start: Start, top: str, tables: str, names: str
) -> None:
    service = start(ROOF + MQTT)
    warning = rf"WARNING .*gateway\.toml: not applied because it needs a restart of the gateway: {names}$"
    for number in (1, 2):  # It is still not applied at the second signal.
        service.reload(f"{top}{ROOF}title = 'title {number}'\n{MQTT}{tables}")
        service.until(lambda: service.log.count("was applied") == number)  # noqa: B023
        assert len(re.findall(warning, service.log, re.MULTILINE)) == number
        # The rest is applied.
        assert service.entries(what="add")[-1]["title"] == f"title {number}"
    assert len(service.entries(what="run")) == 1
    service.reload(ROOF + MQTT)
    service.until(lambda: service.log.count("was applied") == 3)
    assert service.log.count("restart") == 2
    assert not (service.path.parent / "elsewhere").exists()


# The end


@pytest.mark.parametrize("behaviour", ["", "late"])
def test_sigterm_ends_it_in_order_with_everything_written(start: Start, behaviour: str) -> None:
    service = start(f"{ROOF}{SHED}{MQTT}username = '{behaviour or 'solar'}'\n{INFLUX}[energy]\nflush_seconds = 3600")
    service.until_more_events()
    assert service.end() < 5
    assert service.process.returncode == 0
    for output in ("mqtt", "influx"):
        entries = service.entries(output=output)
        assert entries[-1]["what"] == "drain"
        assert entries[-1]["held"] == len([entry for entry in entries if entry["what"] == "event"])
    totals = (service.path.parent / "energy.json").read_text(encoding="utf-8")
    assert "roof" in totals
    assert "shed" in totals
    assert "ERROR" not in service.log
    assert "WARNING" not in service.log
    service.message("STOPPING")


@pytest.mark.slow
@pytest.mark.parametrize("behaviour", ["slow", "thread"])
def test_an_output_that_hangs_delays_the_end_by_less_than_5_s(start: Start, behaviour: str) -> None:
    service = start(f"{ROOF}{MQTT}username = '{behaviour}'\n{INFLUX}")
    service.until_more_events()
    assert service.end() < 5 + 1  # the machine may be busy
    assert service.process.returncode == 0
    assert service.entries(output="influx")[-1]["what"] == "drain"
    assert "roof" in (service.path.parent / "energy.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("redirection", [">&-", "2>&-", ">&- 2>&-"])
def test_a_thread_that_hangs_does_not_delay_the_end_if_standard_streams_are_closed(
    start: Start, redirection: str
) -> None:
    service = start(f"{ROOF}{MQTT}username = 'thread'\n", redirection=redirection)
    service.until(lambda: service.entries(what="event"))
    assert service.end() < 5 + 1  # the machine may be busy
    assert service.process.returncode == 0


def test_sigterm_ends_a_reload_too(start: Start) -> None:
    service = start(f"{ROOF}{MQTT}username = 'late'\n")
    service.until_more_events()
    service.write(ROOF)
    service.process.send_signal(signal.SIGHUP)
    service.message("RELOADING")
    assert service.end() < 5
    assert service.entries(output="mqtt")[-1]["what"] == "drain"


def test_ctrl_c_ends_it_as_well(start: Start) -> None:
    service = start(ROOF + MQTT)
    assert service.end(signal.SIGINT) < 5
    assert service.process.returncode == 130
    assert "Traceback" not in service.log


# systemd


def test_systemd_hears_of_the_start_of_reloads_and_of_the_end(start: Start) -> None:
    service = start(ROOF + MQTT)
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    service.process.send_signal(signal.SIGHUP)
    reloading = service.message("RELOADING")
    assert reloading["RELOADING"] == "1"
    assert before <= int(reloading["MONOTONIC_USEC"]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert service.message("READY")["READY"] == "1"
    service.end()
    assert service.message("STOPPING")["STOPPING"] == "1"


def test_the_watchdog_hears_often_enough_and_the_status_is_in_words(start: Start) -> None:
    service = start(ROOF + MQTT, WATCHDOG_USEC="400000")
    for _ in range(5):
        assert service.message("WATCHDOG")["WATCHDOG"] == "1"
    while service.message("STATUS")["STATUS"] != "1 of 1 controllers online":
        pass


@pytest.mark.parametrize(("later", "online"), [(0.0, b"1 of 1"), (1000.0, b"0 of 1")])
def test_a_controller_whose_last_reading_is_old_is_not_online_in_the_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later: float, online: bytes
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "100000")
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        monkeypatch.setattr("tracer_async.gateway.service.uptime", lambda: uptime() + later)
        gateway, output = in_process(tmp_path, ROOF + MQTT)

        async def check() -> None:
            running = asyncio.create_task(gateway.run())
            await output.until(lambda events: events)
            with suppress(BlockingIOError):
                while sock.recv(4096):  # messages from before the reading
                    pass
            async with asyncio.timeout(PATIENCE):
                message = await asyncio.get_running_loop().sock_recv(sock, 4096)
            assert message.endswith(b"STATUS=" + online + b" controllers online")
            gateway.stop()
            await running

        asyncio.run(check())


def test_the_watchdog_hears_nothing_once_polling_has_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(0)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "100000")
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        monkeypatch.setattr("tracer_async.gateway.hub.Hub.is_polling", lambda _: False)
        gateway, _ = in_process(tmp_path, ROOF)
        asyncio.run(stopped_after(gateway, 0.5))
        received = []
        while True:
            try:
                received.append(sock.recv(4096))
            except BlockingIOError:
                break
    assert b"READY=1" in received
    assert not [message for message in received if b"WATCHDOG" in message]
    (line,) = (item.getMessage() for item in caplog.records if "polling has stopped" in item.getMessage())
    assert line.endswith("systemd restarts the service after WatchdogSec")


def test_once_polling_has_stopped_the_log_asks_for_a_restart_where_no_watchdog_does_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    monkeypatch.setattr("tracer_async.gateway.hub.Hub.is_polling", lambda _: False)
    gateway, _ = in_process(tmp_path, ROOF)
    asyncio.run(stopped_after(gateway, 0.5))
    (line,) = (item.getMessage() for item in caplog.records if "polling has stopped" in item.getMessage())
    assert line.endswith("restart the service")


# The log


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_log_has_one_line_an_event_and_no_secret(start: Start, form: str) -> None:
    service = start(f"{ROOF}{MQTT}username = 'secret'\npassword = 'hunter2-hunter2'\n[log]\nformat = '{form}'")
    service.until(lambda: "the password" in service.log)
    service.reload(f"{ROOF}{MQTT}username = 'secret'\npassword = 'other-secret'\n[log]\nformat = '{form}'")
    service.until(lambda: service.log.count("the password") == 2)
    service.end()
    assert "hunter2" not in service.log
    assert "other-secret" not in service.log
    lines = [line for line in service.log.splitlines() if "the password" in line]
    if form == "json":
        entries = [json.loads(line) for line in service.log.splitlines()]
        assert {"time", "level", "logger", "message"} <= entries[0].keys()
        assert "the password ***\nis '***'" in {entry["message"] for entry in entries}
    else:
        assert lines[0].endswith(r"ERROR the password ***\nis '***'")
        assert all(
            re.match(r"\d{4}-\d\d-\d\dT[\d:]{8}[+-]\d\d:\d\d [A-Z]+ \S", line) for line in service.log.splitlines()
        )


def test_lines_for_journald_begin_with_their_priority_and_have_no_time(start: Start) -> None:
    service = start(f"{ROOF}{MQTT}username = 'secret'\npassword = 'hunter2-hunter2'", journald="yes")
    service.until(lambda: "the password" in service.log)
    service.reload(f"time_zone = 'Asia/Tokyo'\n{ROOF}{MQTT}username = 'secret'\npassword = 'hunter2-hunter2'")
    service.end()
    priorities = {line[:3] for line in service.log.splitlines()}
    assert {"<3>", "<4>", "<6>"} <= priorities
    assert "<6>roof is online" in service.log
    assert all(re.match(r"<[3467]>", line) for line in service.log.splitlines())


def test_the_level_of_the_log_can_be_chosen(start: Start) -> None:
    service = start(f"{ROOF}{MQTT}username = 'secret'\npassword = 'hunter2-hunter2'\n[log]\nlevel = 'error'")
    service.until(lambda: "the password" in service.log)
    service.end()
    assert len(service.log.splitlines()) == 1


# What ends it with an error


def in_process(folder: Path, text: str) -> tuple[Gateway, RecordingOutput]:
    path = folder / "gateway.toml"
    path.write_text(text)
    output = RecordingOutput()
    return Gateway(path, load_config(path, environment={}), make_output=lambda *_: output), output


async def stopped_after(gateway: Gateway, seconds: float) -> None:
    asyncio.get_running_loop().call_later(seconds, gateway.stop)
    await gateway.run()


async def test_a_hub_that_fails_ends_the_service_with_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no more ink")

    monkeypatch.setattr(EnergyLedger, "record", fail)
    gateway, output = in_process(tmp_path, ROOF + MQTT)
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(GatewayError, match=r"polling ended: .*no more ink"):
            await gateway.run()
    assert output.drained_with == 0


async def test_a_state_directory_has_one_gateway(tmp_path: Path) -> None:
    first, output = in_process(tmp_path, ROOF + MQTT)
    second, _ = in_process(tmp_path, ROOF + MQTT)
    running = asyncio.create_task(first.run())
    await output.next_event()
    with pytest.raises(GatewayError, match=r"^Another gateway uses .*\. Stop it, or set state_directory"):
        await second.run()
    first.stop()
    await running


async def test_a_state_directory_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    gateway, _ = in_process(tmp_path, f"state_directory = 'file/state'\n{ROOF}")
    with pytest.raises(GatewayError, match=r"the state directory .*file/state cannot be used: Not a directory"):
        await gateway.run()


async def test_the_state_directory_is_made(tmp_path: Path) -> None:
    gateway, _ = in_process(tmp_path, f"state_directory = 'a/b'\n{ROOF}")
    await stopped_after(gateway, 0.1)
    assert (tmp_path / "a" / "b" / "energy.json").exists()


async def test_stopping_leaves_no_task_behind(tmp_path: Path) -> None:
    gateway, output = in_process(tmp_path, ROOF + MQTT)
    before = asyncio.all_tasks()
    running = asyncio.create_task(gateway.run())
    await output.next_event()
    gateway.stop()
    await running
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
