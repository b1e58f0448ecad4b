"""What docs/sharing.md says is right: its commands work, and its numbers are the defaults."""

from __future__ import annotations

import inspect
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Start, environment
from tests.cli.conftest import start as start_fixture
from tracer_async.cli.app import cli
from tracer_async.sharing import share

PAGE = (Path(__file__).parents[2] / "docs" / "sharing.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
START, USE, LIMITED = BLOCKS
start = start_fixture


def words_of(line: str, folder: Path) -> list[str]:
    """The words of a command, with a simulated controller, free ports and files in *folder*."""
    line = line.removeprefix("$ tracer-async ").replace("/dev/ttyUSB0", "sim:").replace(":8088", ":0")
    return shlex.split(line.replace("/tmp/", f"{folder}/"))


@pytest.mark.parametrize("block", [START, LIMITED], ids=["start", "limited"])
def test_the_command_prints_what_the_page_says(block: str, start: Start, tmp_path: Path) -> None:
    command, *printed = block.splitlines()
    process = start(*words_of(command, tmp_path))
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in printed]
    for line, expected in zip(lines, printed, strict=True):
        pattern = re.escape(expected.replace("/tmp/", f"{tmp_path}/")).replace("8088", r"\d+")
        assert re.fullmatch(pattern + "\n", line)
    process.send_signal(signal.SIGTERM)
    assert process.communicate() == ("", "")


def test_the_programs_on_the_page_are_answered(start: Start, tmp_path: Path) -> None:
    process = start(*words_of(START.splitlines()[0], tmp_path))
    assert process.stdout is not None
    url = process.stdout.readline().split()[-1]
    process.stdout.readline()
    for line in USE.splitlines():
        words = [word.replace("127.0.0.1:0", url) for word in words_of(line, tmp_path)]
        run = [sys.executable, "-m", "tracer_async", *words]
        done = subprocess.run(run, env=environment(), capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout


def test_the_defaults_are_those_of_the_page() -> None:
    options = {option: parameter for parameter in cli.commands["share"].params for option in parameter.opts}
    defaults = {name: parameter.default for name, parameter in inspect.signature(share).parameters.items()}
    for option, written in re.findall(r"(\d[\d.]*)(?: s| programs are served)? \(`(--[a-z-]+)`\)", PAGE):
        number, name = float(option), written
        assert options[name].default == number
        assert defaults.get(name.removeprefix("--").replace("-", "_"), number) == number
    assert "(`--reply-within`)" in PAGE


def test_every_option_is_described() -> None:
    for parameter in cli.commands["share"].params:
        for option in parameter.opts:
            if option.startswith("--") and option not in ("--trace", "--verbose"):
                assert f"{option}" in PAGE
