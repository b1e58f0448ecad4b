"""The arguments and options that several commands have."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from tracer_async import TracerClient, TracerError
from tracer_async.transport import parse_address

__all__ = [
    "URL_VARIABLE",
    "client_of",
    "format_options",
    "link_options",
    "resolved_url",
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


url_argument = click.argument(
    "url", required=False, metavar="[URL]", callback=lambda ctx, _param, url: resolved_url(ctx, url or "")
)


def link_options(command: F) -> F:
    """Add what every command has that talks to a controller."""
    for option in (
        click.option(
            "--retries", type=click.IntRange(0), default=2, show_default=True, help="Ask again so often, unanswered."
        ),
        click.option(
            "--timeout",
            type=click.FloatRange(0, min_open=True),
            default=1.0,
            show_default=True,
            metavar="SECONDS",
            help="Wait so long for each answer.",
        ),
    ):
        command = option(command)
    return verbose_option(command)


def client_of(url: str, timeout: float, retries: int) -> TracerClient:
    """Return the client that the link options ask for. Raises UsageError for a number out of range."""
    with usage_errors():
        return TracerClient(url, timeout=timeout, retries=retries)


@contextmanager
def usage_errors() -> Iterator[None]:
    """Make a usage error of each ValueError: the library knows the ranges, and its text names option and range."""
    try:
        yield
    except TracerError:  # some are a ValueError, too, and have exit codes of their own
        raise
    except ValueError as error:
        raise click.UsageError(f"{error}.") from error


def format_options(command: F) -> F:
    """Add the choice of a format for programs; the parameter ``output`` is "json", "csv", "line-protocol" or None."""
    for name, words in (
        ("line-protocol", "Print InfluxDB line protocol."),
        ("csv", "Print CSV with a header."),
        ("json", "Print a JSON object a line."),
    ):
        command = click.option(
            f"--{name}", f"as_{name.replace('-', '_')}", is_flag=True, expose_value=False, callback=_choose, help=words
        )(command)
    return command


def _choose(ctx: click.Context, param: click.Parameter, chosen: bool) -> None:
    name = str(param.opts[0])
    if chosen:
        before = ctx.params.get("output")
        if before:
            raise click.UsageError(f"{name} and --{before} exclude each other.", ctx)
        ctx.params["output"] = name.removeprefix("--")
    else:
        ctx.params.setdefault("output", None)


def verbose_option(command: F) -> F:
    """Add -v, which logs to standard error; the group and its commands take it alike."""
    return click.option(
        "-v",
        "--verbose",
        count=True,
        expose_value=False,
        callback=_log,
        help="Log to standard error; -vv logs more.",
    )(command)


def _log(ctx: click.Context, _param: click.Parameter, verbosity: int) -> None:
    # Without -v nothing is logged: what went wrong is said once, as an error or in the live view.
    verbosity = ctx.meta["verbosity"] = max(verbosity, ctx.meta.get("verbosity", 0))
    level = (logging.CRITICAL, logging.INFO, logging.DEBUG)[min(verbosity, 2)]
    logging.basicConfig(format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    logging.getLogger("tracer_async").setLevel(level)
    logging.getLogger().setLevel(level)
