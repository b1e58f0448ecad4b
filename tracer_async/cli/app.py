"""The group of all commands, and how their errors are reported."""

from __future__ import annotations

import contextlib
import os
import sys
from io import TextIOWrapper
from typing import Any

import click

from tracer_async import __version__
from tracer_async.cli.control import load, settings
from tracer_async.cli.decode import decode
from tracer_async.cli.doctor import doctor
from tracer_async.cli.exit_codes import ExitCode, exit_code, table
from tracer_async.cli.gateway import gateway
from tracer_async.cli.history import history
from tracer_async.cli.listen import listen
from tracer_async.cli.options import URL_VARIABLE, verbose_option
from tracer_async.cli.ports import ports
from tracer_async.cli.read import read
from tracer_async.cli.record import record
from tracer_async.cli.replay import replay
from tracer_async.cli.share import share
from tracer_async.cli.simulate import simulate
from tracer_async.cli.watch import watch
from tracer_async.errors import TracerError

__all__ = ["cli", "run"]


_HELP = f"""Read and control EPsolar Tracer solar charge controllers with the MT-5 port.
Data goes to standard output, messages go to standard error.

\b
URL is one of these; the default is the environment variable {URL_VARIABLE}:
  /dev/ttyUSB0, COM3, serial:///dev/ttyUSB0   a serial port
  192.168.1.20:8088, tcp://HOST:PORT          a TCP bridge; also tls://
  unix:/run/tracer.sock, sim:                 a Unix socket, a simulator
"""


class _Commands(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # The reader of the output has closed it, which is not a failure. click would make one of it.
            _discard_output()
            ctx.exit(ExitCode.OK)
        except KeyboardInterrupt:  # click would write a line about it
            ctx.exit(_interrupted())


@click.group(
    cls=_Commands,
    help=_HELP,
    epilog=f"\b\nExit codes:\n{table()}",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="tracer-async", message="%(prog)s %(version)s")
@verbose_option
@click.pass_context
def cli(ctx: click.Context) -> None:
    """See `_HELP`."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        ctx.color = False  # rich respects these variables, click does not


for _command in (
    read,
    watch,
    load,
    settings,
    ports,
    simulate,
    share,
    listen,
    decode,
    record,
    replay,
    doctor,
    gateway,
    history,
):
    cli.add_command(_command)


def run() -> int:
    """Run the command with the process's arguments and return its exit code. An error is reported in one sentence."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without a degree sign still gets its numbers
    try:
        code = _run()
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
        return ExitCode.OK
    except OSError as error:
        _complain(str(error))
        _discard_output()
        return ExitCode.FAILED
    return code


def _run() -> int:
    try:
        # Not standalone: click would call every end of a pipe and every Ctrl-C a failure of its own.
        code: int | None = cli.main(prog_name="tracer-async", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _interrupted()
    except TracerError as error:
        _complain(str(error))
        return exit_code(error)
    return code or ExitCode.OK


def _interrupted() -> ExitCode:
    if sys.stderr.isatty():
        click.echo(err=True)  # the shell's prompt does not belong behind the ^C
    return ExitCode.INTERRUPTED


def _complain(sentence: str) -> None:
    click.echo(f"{click.style('Error:', fg='red')} {sentence}", err=True)


def _discard_output() -> None:
    """Discard what is still buffered, so that writing it does not fail again at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
