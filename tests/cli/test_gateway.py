"""``tracer-async gateway``."""

from __future__ import annotations

import importlib.util
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.cli.conftest import Command, Start, environment
from tracer_async.cli.exit_codes import ExitCode

ROOF = '[controllers.roof]\nurl = "sim:"\n'


def test_the_example_passes_the_check(command: Command, tmp_path: Path) -> None:
    code, example, err = command("gateway", "--example")
    assert (code, err) == (0, "")
    path = tmp_path / "gateway.toml"
    path.write_text(example)
    code, out, err = command("gateway", "--check", str(path))
    assert (code, err) == (0, "")
    assert out == f"{path} has no errors: 2 controllers; outputs: history, web\n"
    assert set(tmp_path.iterdir()) == {path}


def test_the_check_prints_all_errors_and_is_a_usage_error(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(f"{ROOF}intervall = 5\n[mqtt]\nurl = 'http://broker'\n")
    for arguments in (("--check", str(path)), (str(path),)):
        code, out, err = command("gateway", *arguments)
        assert (code, out) == (ExitCode.USAGE, "")
        assert err.splitlines() == [
            f"Error: {path}: controllers.roof.intervall: unknown key; did you mean interval?",
            f'Error: {path}: mqtt.url: found "http://broker"; the URL must begin with mqtt:// or mqtts://',
        ]


def test_a_file_that_is_not_there_is_a_usage_error(command: Command, tmp_path: Path) -> None:
    code, out, err = command("gateway", str(tmp_path / "none.toml"))
    assert (code, out) == (ExitCode.USAGE, "")
    assert err == f"Error: {tmp_path / 'none.toml'}: cannot be read: No such file or directory\n"


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--check",),
        ("--example", "x.toml"),
        ("--demo", "x.toml"),
        ("--demo", "--example"),
        ("--check", "--example"),
        ("a.toml", "b.toml"),
    ],
    ids=" ".join,
)
def test_it_does_one_thing_at_a_time(command: Command, arguments: tuple[str, ...]) -> None:
    assert command("gateway", *arguments).code == ExitCode.USAGE


def test_a_service_that_cannot_start_is_one_sentence(command: Command, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "gateway.toml"
    path.write_text(f"state_directory = 'file/state'\n{ROOF}")
    done = subprocess.run(
        [sys.executable, "-m", "tracer_async", "gateway", path],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
        timeout=30,
    )
    assert done.returncode == ExitCode.FAILED
    assert "cannot be used: Not a directory" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("missing", "words"),
    [("pydantic", ("--example",)), ("pydantic", ("--check", "FILE")), ("aiohttp", ("--check", "FILE"))],
)
def test_without_its_packages_it_says_what_to_install(missing: str, words: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(f"{ROOF}[web]\n")
    arguments = ["tracer-async", "gateway", *(str(path) if word == "FILE" else word for word in words)]
    program = (
        f"import sys; sys.modules[{missing!r}] = None; sys.argv = {arguments!r};"
        "from tracer_async.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment(), check=False, timeout=30
    )
    assert done.returncode == ExitCode.MISSING_EXTRA
    assert done.stdout == ""
    assert done.stderr.endswith("needs a package that is not installed: pip install 'tracer-async[gateway]'\n")
    assert done.stderr.count("\n") == 1


def test_its_help_needs_none_of_its_packages() -> None:
    program = (
        "import sys; sys.modules['pydantic'] = sys.modules['aiohttp'] = None; sys.argv = ['', 'gateway', '--help'];"
        "from tracer_async.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment(), check=False, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(importlib.util.find_spec("aiohttp") is None, reason="needs aiohttp")
def test_the_demo_prints_the_address_of_a_dashboard_that_answers(start: Start, tmp_path: Path) -> None:
    process = start("gateway", "--demo", TMPDIR=str(tmp_path))
    assert process.stdout is not None
    match = re.fullmatch(r"dashboard: (http://127\.0\.0\.1:\d+/)\n", process.stdout.readline())
    assert match is not None
    with urllib.request.urlopen(match[1], timeout=30) as answer:
        assert answer.status == 200
        assert b"<html" in answer.read().lower()
    with urllib.request.urlopen(f"{match[1]}api/controllers", timeout=30) as answer:
        text = answer.read().decode()
    assert all(f'"{name}"' in text for name in ("house", "barn", "boat"))
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "", "")
    assert not list(tmp_path.iterdir())


def test_ctrl_c_ends_the_demo_with_its_own_code(start: Start, tmp_path: Path) -> None:
    process = start("gateway", "--demo", TMPDIR=str(tmp_path))
    assert process.stdout is not None
    assert process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == ExitCode.INTERRUPTED


def test_the_service_runs_from_a_file(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(f"{ROOF}interval = 0.2\n")
    process = start("gateway", str(path))
    assert process.stderr is not None
    lines = iter(process.stderr.readline, "")
    assert any("started: 1 controller; outputs: none" in line for line in lines)
    assert any("roof is online" in line for line in lines)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert (tmp_path / "energy.json").exists()
