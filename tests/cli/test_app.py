"""What holds for the command as a whole."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.cli.conftest import Command, environment
from tracer_async import __version__
from tracer_async.cli.exit_codes import ExitCode, exit_code, table
from tracer_async.errors import AmbiguousReplyError, EchoError, LoadUnknownError, PortBusyError, TracerError


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=False)


def test_importing_it_imports_neither_click_nor_rich() -> None:
    done = python("import sys, tracer_async.cli; print([name for name in ('click', 'rich') if name in sys.modules])")
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("missing", ["click", "rich"])
@pytest.mark.parametrize("entry", ["from tracer_async.cli import main; main()", "import tracer_async.__main__"])
def test_without_its_extra_it_says_what_to_install(missing: str, entry: str) -> None:
    done = python(f"import sys; sys.modules[{missing!r}] = None; {entry}")
    assert done.returncode == ExitCode.MISSING_EXTRA
    assert done.stdout == ""
    assert "pip install 'tracer-async[cli]'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_lists_every_exit_code(command: Command) -> None:
    code, out, _ = command("--help")
    assert code == 0
    for line in table().splitlines():
        assert line.strip() in out


@pytest.mark.parametrize("name", ["read", "watch", "load", "settings", "simulate", "decode"])
def test_every_command_has_help(command: Command, name: str) -> None:
    code, out, _ = command(name, "--help")
    assert code == 0
    assert out.startswith(f"Usage: tracer-async {name} ")


def test_version(command: Command) -> None:
    assert command("--version") == (0, f"tracer-async {__version__}\n", "")


def test_an_unknown_command_is_a_usage_error(command: Command) -> None:
    assert command("frobnicate").code == 2


def test_errors_that_have_no_code_of_their_own_have_their_parents() -> None:
    assert exit_code(PortBusyError("serial:///dev/ttyUSB0", "busy")) is ExitCode.NO_LINK
    assert exit_code(EchoError("sim:", 0xA0, 1.0, 1)) is ExitCode.NO_ANSWER
    assert exit_code(TracerError("?")) is ExitCode.FAILED


def test_every_error_that_may_leave_a_command_in_doubt_has_a_code_of_its_own() -> None:
    assert exit_code(AmbiguousReplyError("sim:", 0xAD, b"")) is ExitCode.AMBIGUOUS
    assert exit_code(LoadUnknownError("sim:", wanted=True)) is ExitCode.LOAD_UNKNOWN


@pytest.mark.parametrize("closed", [(1,), (0, 1, 2)], ids=["standard output", "all three"])
@pytest.mark.parametrize(
    "arguments",
    [
        ("read", "sim:"),
        ("read", "sim:", "--json"),
        ("watch", "sim:", "--count", "1"),
        ("load", "sim:", "on"),
        ("decode", os.devnull, "--json"),
        ("--help",),
    ],
    ids=" ".join,
)
def test_a_closed_standard_stream_discards_what_is_written_to_it(
    closed: tuple[int, ...], arguments: tuple[str, ...]
) -> None:
    """Without a descriptor of its own for it, the event loop would get number 1, and libuv aborts."""
    program = f"import os; [os.close(number) for number in {closed}]; os.execv({sys.executable!r}, {{}})"
    command = [sys.executable, "-m", "tracer_async", *arguments]
    done = python(program.format(command))
    assert done.returncode == (ExitCode.NO_CAPTURE if "decode" in arguments else ExitCode.OK)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_output_that_cannot_be_written_is_one_sentence() -> None:
    done = python(
        "import os, sys; os.dup2(os.open('/dev/full', os.O_WRONLY), 1); sys.argv = ['', 'read', 'sim:', '--json'];"
        "from tracer_async.cli import main; main()"
    )
    assert done.returncode == ExitCode.FAILED
    assert done.stderr.count("\n") == 1
