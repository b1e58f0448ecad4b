"""The arguments and options that several commands have."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tracer_async import TracerClient, TracerError, poll
from tracer_async.cli.formats import Format
from tracer_async.transport import parse_address

__all__ = [
    "URL_VARIABLE",
    "Number",
    "client_of",
    "format_option",
    "interval_option",
    "link_options",
    "output_option",
    "resolved_url",
    "show_warnings",
    "trace_option",
    "url_argument",
    "usage_errors",
    "verbose_option",
]

F = TypeVar("F", bound=Callable[..., Any])

URL_VARIABLE = "TRACER_URL"


def resolved_url(ctx: click.Context, url: str) -> str:
    """Return *url*, or else the environment's, in the form that the library prints.

    Raises UsageError if there is neither, and AddressError, before anything else is done.
    """
    url = url or os.environ.get(URL_VARIABLE, "")
    if not url:
        raise click.UsageError(f"Missing URL: give it, or set {URL_VARIABLE}.", ctx)
    return str(parse_address(url))


# Nothing connects to it: only the options of its client are checked.
_ANY_URL = "tcp://127.0.0.1:1"


if TYPE_CHECKING:
    _NumberType = click.ParamType[float]
else:
    _NumberType = click.ParamType  # generic only from click 8.2 on


class Number(_NumberType):
    """A number, int or float, that the library checks: *check* raises its ValueError, with the range."""

    def __init__(self, kind: type[int | float], check: Callable[[Any], object]) -> None:
        self._kind = kind
        self._check = check
        self.name = "integer" if kind is int else "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number that *value* is. Raises BadParameter."""
        try:
            number = self._kind(value)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is not a {'whole ' if self._kind is int else ''}number.", param, ctx)
        try:
            self._check(number)
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)
        return number


def url_argument(command: F) -> F:
    """Add the argument that names the controller."""
    return click.argument(
        "url", required=False, metavar="[URL]", callback=lambda ctx, _param, url: resolved_url(ctx, url or "")
    )(command)


def interval_option(command: F) -> F:
    """Add the time from one reading to the next."""
    return click.option(
        "-i",
        "--interval",
        type=Number(float, lambda value: poll(TracerClient(_ANY_URL), value)),
        default=2.0,
        show_default=True,
        metavar="SECONDS",
        help="Time from one reading to the next.",
    )(command)


def output_option(command: F) -> F:
    """Add ``-o``."""
    return click.option(
        "-o",
        "--output",
        "path",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Write to FILE. An existing file is replaced when the new one is complete.",
    )(command)


def link_options(command: F) -> F:
    """Add what every command has that talks to a controller."""
    for option in (
        trace_option,
        click.option(
            "-r",
            "--retries",
            type=Number(int, lambda value: TracerClient(_ANY_URL, retries=value)),
            default=2,
            show_default=True,
            metavar="N",
            help="Repeat a request that is not answered up to N times.",
        ),
        click.option(
            "-t",
            "--timeout",
            type=Number(float, lambda value: TracerClient(_ANY_URL, timeout=value)),
            default=1.0,
            show_default=True,
            metavar="SECONDS",
            help="Time to wait for each answer.",
        ),
    ):
        command = option(command)
    return verbose_option(command)


def trace_option(command: F) -> F:
    """Add ``--trace``."""
    return click.option(
        "--trace",
        is_flag=True,
        expose_value=False,
        callback=_trace,
        help="Log every byte sent and received to standard error, in hexadecimal and decoded.",
    )(command)


def client_of(url: str, timeout: float, retries: int, *, start_offline: bool = False) -> TracerClient:
    """Return the client that the link options ask for. Raises UsageError for a number out of range."""
    with usage_errors():
        return TracerClient(url, timeout=timeout, retries=retries, start_offline=start_offline)


@contextmanager
def usage_errors() -> Iterator[None]:
    """Make a usage error of each ValueError: the library knows the ranges, and its text names option and range."""
    try:
        yield
    except TracerError:  # some are a ValueError, too, and have exit codes of their own
        raise
    except ValueError as error:
        raise click.UsageError(f"{error}.") from error


def format_option(*formats: Format) -> Callable[[F], F]:
    """Add ``--format`` with a choice of *formats*, and ``--json``; the parameter ``output`` is one of them or None.

    The flags ``--csv`` and ``--line-protocol`` are from before ``--format``. They still work, and are not in the help.
    """

    def add(command: F) -> F:
        for form, is_hidden in ((Format.LINE_PROTOCOL, True), (Format.CSV, True), (Format.JSON, False)):
            if form in formats:
                command = click.option(
                    f"--{form}",
                    f"as_{form.name.lower()}",
                    is_flag=True,
                    expose_value=False,
                    callback=_choose_flag,
                    hidden=is_hidden,
                    help=f"Short for --format {form}.",
                )(command)
        return click.option(
            "-f",
            "--format",
            "format_",
            type=click.Choice([form.value for form in formats]),
            expose_value=False,
            callback=_choose_format,
            help="Format of the output.",
        )(command)

    return add


def _choose_flag(ctx: click.Context, param: click.Parameter, chosen: bool) -> None:
    _choose(ctx, Format(param.opts[0].removeprefix("--")) if chosen else None)


def _choose_format(ctx: click.Context, _param: click.Parameter, chosen: str | None) -> None:
    _choose(ctx, Format(chosen) if chosen else None)


def _choose(ctx: click.Context, form: Format | None) -> None:
    before = ctx.params.setdefault("output", None)
    if form is None:
        return
    if before not in (None, form):
        raise click.UsageError(f"Two formats were given, {before} and {form}. Choose one.", ctx)
    ctx.params["output"] = form


def verbose_option(command: F) -> F:
    """Add -v, which logs to standard error; the group and its commands take it alike."""
    return click.option(
        "-v",
        "--verbose",
        count=True,
        expose_value=False,
        callback=_log,
        help="Log to standard error; -vv also logs every byte.",
    )(command)


def _log(ctx: click.Context, _param: click.Parameter, verbosity: int) -> None:
    # Without -v nothing is logged: what went wrong is said once, as an error or in the live view.
    verbosity = ctx.meta["verbosity"] = max(verbosity, ctx.meta.get("verbosity", 0))
    level = (logging.CRITICAL, logging.INFO, logging.DEBUG)[min(verbosity, 2)]
    if verbosity:
        _log_to_standard_error()
    logging.getLogger("tracer_async").setLevel(level)
    logging.getLogger().setLevel(level)


def _trace(ctx: click.Context, _param: click.Parameter, chosen: bool) -> None:
    if chosen:
        ctx.meta["trace"] = True
        _log_to_standard_error()
        logging.getLogger("tracer_async.wire").setLevel(logging.DEBUG)


def show_warnings(logger: str) -> None:
    """Let the warnings of *logger* go to standard error without -v, too."""
    log = logging.getLogger(logger)
    if log.getEffectiveLevel() > logging.WARNING:
        log.setLevel(logging.WARNING)


def _log_to_standard_error() -> None:
    from tracer_async.cli.trace import LogFormatter

    root = logging.getLogger()
    if not any(isinstance(handler.formatter, LogFormatter) for handler in root.handlers):
        handler = logging.StreamHandler()
        handler.setFormatter(LogFormatter())
        root.addHandler(handler)
