"""The help, the manual page and the completion in the shell."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tests.cli.conftest import Command, environment
from tracer_async.cli.app import cli
from tracer_async.cli.exit_codes import ExitCode, meanings
from tracer_async.cli.manual import manual_page

COMMANDS = sorted(cli.commands)


@pytest.mark.parametrize("words", [(), *((name,) for name in COMMANDS)], ids=" ".join)
def test_help_fits_on_one_screen_of_80_by_40(
    command: Command, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = command(*words, "--help")
    assert code == 0
    lines = out.splitlines()
    assert len(lines) < 40  # the prompt has a row, too
    assert max(map(len, lines)) <= 80


def test_help_is_also_under_its_short_name(command: Command) -> None:
    for name in COMMANDS:
        assert command(name, "-h") == command(name, "--help")


def test_every_option_that_is_often_used_has_a_short_form() -> None:
    for name in ("read", "watch", "load", "settings"):
        shorts = {option for parameter in cli.commands[name].params for option in parameter.opts if len(option) == 2}
        assert shorts >= {"-t", "-r", "-v", "-f"}
    watch = {option for parameter in cli.commands["watch"].params for option in parameter.opts}
    assert watch >= {"-i", "-n", "-p", "-w"}


# The manual page


def _with_subcommands(group: click.Group, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        yield prefix + name, command
        if isinstance(command, click.Group):
            yield from _with_subcommands(command, f"{prefix}{name} ")


def test_the_manual_page_has_every_command_option_and_exit_code() -> None:
    page = manual_page().replace("\\-", "-")
    assert "history export" in dict(_with_subcommands(cli))
    for name, command in _with_subcommands(cli):
        section = page.partition(f".SS tracer-async {name}")[2].partition(".SS ")[0]
        assert section
        for parameter in command.params:
            for option in parameter.opts:
                if option.startswith("--") and not getattr(parameter, "hidden", False):
                    assert option in section
    for code, meaning in meanings().items():
        assert f"\\fB{code.value}\\fR\n{meaning}" in page
    assert set(meanings()) == set(ExitCode)
    assert "TRACER_URL" in page
    assert "\b" not in page


@pytest.mark.skipif(not shutil.which("groff"), reason="needs groff")
def test_groff_has_nothing_to_say_against_the_manual_page() -> None:
    done = subprocess.run(
        ["groff", "-man", "-ww", "-Tascii"],
        input=manual_page().encode("ascii"),
        capture_output=True,
        check=True,
    )
    assert done.stderr == b""
    text = re.sub(r"\x1b\[[0-9;]*m|.\x08", "", done.stdout.decode())
    assert "tracer-async - read and control" in text
    assert "/dev/ttyUSB0, COM3, serial:///dev/ttyUSB0   a serial port" in text


def test_the_manual_page_is_written_by_its_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tracer_async.cli.manual"],
        capture_output=True,
        text=True,
        env=environment(),
        check=True,
    )
    assert done.stdout == manual_page()


# Completion

PAGE = (Path(__file__).parents[2] / "docs" / "command.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_line_in_the_docs_gives_the_shell_a_script(shell: str) -> None:
    variable, value = re.findall(rf"(_TRACER_ASYNC_COMPLETE)=({shell}_source)", PAGE)[0]
    done = subprocess.run(
        [sys.executable, "-c", "from tracer_async.cli import main; main()"],
        capture_output=True,
        text=True,
        env=environment(**{variable: value}),
        check=False,
    )
    assert done.returncode == 0
    assert f"{variable}={shell}_complete" in done.stdout


def test_commands_and_options_are_completed() -> None:
    for words, expected in (("tracer-async wa", "watch"), ("tracer-async watch --inter", "--interval")):
        done = subprocess.run(
            [sys.executable, "-c", "from tracer_async.cli import main; main()"],
            capture_output=True,
            text=True,
            env=environment(_TRACER_ASYNC_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(words.count(" "))),
            check=False,
        )
        assert done.stdout.strip() == f"plain,{expected}"


def test_every_command_is_in_the_docs() -> None:
    for name in COMMANDS:
        assert f"| `tracer-async {name} " in PAGE or f"| `tracer-async {name}`" in PAGE
