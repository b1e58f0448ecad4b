"""``tracer-async gateway``: the service between the controllers and everything that their owners use."""

from __future__ import annotations

import logging
import signal
from pathlib import Path

import click

from tracer_async.cli.config_errors import config_errors_reported
from tracer_async.cli.exit_codes import ExitCode

__all__ = ["gateway"]


@click.command(short_help="Run the service: MQTT, metrics, history, web.")
@click.argument("config", required=False, type=click.Path(path_type=Path), metavar="[CONFIG.toml]")
@click.option("-c", "--check", is_flag=True, help="Only check the configuration, and print all of its errors.")
@click.option("-e", "--example", is_flag=True, help="Print a configuration with every key, explained.")
@click.option("-d", "--demo", is_flag=True, help="Run with three simulated controllers and a dashboard.")
@click.pass_context
def gateway(ctx: click.Context, *, config: Path | None, check: bool, example: bool, demo: bool) -> None:
    """Run the service that polls each controller, and hands each reading to MQTT and Home Assistant, Prometheus,
    InfluxDB, a database and a dashboard.

    \b
    tracer-async gateway --demo                      a first look
    tracer-async gateway --example > gateway.toml    where to begin
    tracer-async gateway --check gateway.toml        is it right?
    tracer-async gateway gateway.toml                run

    SIGHUP reads the configuration again and applies what changed. Ctrl-C and SIGTERM end the service. It logs to
    standard error, as the configuration says.
    """  # noqa: D301  # \b is click's
    if (config is None) != (example or demo) or example + demo + check > 1:
        raise click.UsageError("Give CONFIG.toml, with or without --check; or --example or --demo alone.", ctx)
    with config_errors_reported(ctx, "the gateway"):
        if example:
            from tracer_async.gateway.example import example as text

            click.echo(text(), nl=False)
        elif demo:
            from tracer_async.gateway.demo import run_demo

            _exit(ctx, run_demo(click.echo))
        elif config is not None and check:
            _check(config)
        elif config is not None:
            from tracer_async.gateway.process import run_gateway

            logging.getLogger().handlers.clear()  # those of -v: the configuration decides
            _exit(ctx, run_gateway(config))


def _check(path: Path) -> None:
    from tracer_async.gateway.config import LogConfig
    from tracer_async.gateway.config_file import load_config
    from tracer_async.gateway.logs import configure_logging
    from tracer_async.gateway.output_factory import check_packages
    from tracer_async.gateway.service import check_controllers, summary

    configure_logging(LogConfig(), ())
    config = load_config(path)
    check_controllers(config)
    check_packages(config)
    click.echo(f"{path} has no errors: {summary(config)}")


def _exit(ctx: click.Context, signum: signal.Signals | None) -> None:
    """End as a command does after a signal; SIGTERM is the normal end of a service."""
    ctx.exit(ExitCode.INTERRUPTED if signum is signal.SIGINT else ExitCode.OK)
