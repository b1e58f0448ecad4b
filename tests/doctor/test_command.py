"""``tracer-async doctor``: lines, JSON and exit codes."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator

import pytest

from tests.cli.terminals import Terminal
from tracer_async.cli import main
from tracer_async.doctor import FINDING_IDS


@pytest.fixture
def doctor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], restored_logging: None
) -> Callable[..., tuple[int, str]]:
    """Run the command within this process. Returns exit code and output."""

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["tracer-async", "doctor", *arguments])
        with pytest.raises(SystemExit) as exited:
            main()
        return int(exited.value.code or 0), capsys.readouterr().out

    return run


@pytest.fixture
def refusing() -> Iterator[str]:
    """The URL of a port on which nothing listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"tcp://127.0.0.1:{bound.getsockname()[1]}"


def test_a_healthy_line_has_exit_code_0(doctor: Callable[..., tuple[int, str]]) -> None:
    code, out = doctor("sim:", "--seconds", "0")
    assert code == 0
    assert out.splitlines()[-1] == "The line is healthy."
    assert all(line.startswith(("ok ", "note ")) for line in out.splitlines()[1:-1])


def test_an_error_of_the_network_has_exit_code_3_and_names_the_page(
    doctor: Callable[..., tuple[int, str]], refusing: str
) -> None:
    code, out = doctor(refusing)
    assert code == 3
    assert "[net-refused]" in out
    assert out.splitlines()[-1].endswith("docs/doctor.md#net-refused")


def test_a_port_that_does_not_exist_has_exit_code_3(doctor: Callable[..., tuple[int, str]]) -> None:
    assert doctor("/dev/ttyUSB99")[0] == 3


def test_a_wrong_address_is_a_usage_error(doctor: Callable[..., tuple[int, str]]) -> None:
    assert doctor("nonsense")[0] == 2


def test_json_has_an_object_for_each_finding(doctor: Callable[..., tuple[int, str]], refusing: str) -> None:
    for arguments, expected in ((("sim:", "--seconds", "0"), "ok"), ((refusing,), "error")):
        _, out = doctor(*arguments, "--json")
        records = [json.loads(line) for line in out.splitlines()]
        assert {record["severity"] for record in records} == {expected}
        assert all(record["id"] in FINDING_IDS for record in records)
        assert all(list(record) == ["id", "severity", "title", "evidence", "advice"] for record in records)


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    terminals: list[Terminal] = []

    def start(*arguments: str) -> Terminal:
        terminals.append(Terminal(*arguments))
        return terminals[-1]

    yield start
    for started in terminals:
        started.close()


@pytest.mark.parametrize("arguments", [("sim:", "-s", "0"), ("/dev/ttyUSB99",)], ids=["healthy", "sick"])
def test_it_fits_on_a_screen_of_80_by_24(terminal: Callable[..., Terminal], arguments: tuple[str, ...]) -> None:
    started = terminal("doctor", *arguments)
    started.wait()
    text = re.sub(r"\x1b\[[0-9;]*m", "", started.read_all().decode())
    assert "ok" in text or "error" in text
    assert len(text.splitlines()) < 24
    assert max(map(len, text.splitlines())) <= 80
