"""How the commands that read a configuration of the gateway report its errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from tracer_async.cli.exit_codes import ExitCode
from tracer_async.errors import MissingExtraError

__all__ = ["config_errors_reported"]


@contextmanager
def config_errors_reported(ctx: click.Context, purpose: str) -> Iterator[None]:
    """Report the errors of a configuration, one on each line, and exit as after a usage error.

    Raises MissingExtraError if a package that *purpose* needs is not installed.
    """
    try:
        from tracer_async.gateway.config_errors import ConfigError
    except ModuleNotFoundError as error:
        raise MissingExtraError(purpose, "gateway") from error
    try:
        yield
    except ConfigError as error:
        for line in error.errors:
            click.echo(f"{click.style('Error:', fg='red')} {line}", err=True)
        ctx.exit(ExitCode.USAGE)
