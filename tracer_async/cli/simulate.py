"""``tracer-async simulate``: a simulated controller on TCP ports, Unix sockets and pseudo-terminals."""

from __future__ import annotations

from typing import Any

import click

from tracer_async.cli.options import Number, usage_errors, verbose_option
from tracer_async.cli.serving import serve, serving_options

__all__ = ["simulate"]


def _fault_specs(ctx: click.Context, param: click.Parameter, specs: tuple[str, ...]) -> tuple[str, ...]:
    from tracer_async.simulator import parse_fault

    for spec in specs:
        try:
            parse_fault(spec)
        except ValueError as error:
            raise click.BadParameter(f"{error}.", ctx, param) from error
    return specs


def _simulated(**options: Any) -> object:
    from tracer_async.simulator import SimulatedTracer

    return SimulatedTracer(**options)


class _ListsFaults(click.Command):
    """Lists the kinds of faults at the end of its help. The simulator is imported only for that."""

    def format_epilog(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from tracer_async.simulator import FAULT_KINDS

        with formatter.section("Faults; value and probability are optional"):
            formatter.write_dl([(kind.example, kind.summary) for kind in FAULT_KINDS.values()])


@click.command(cls=_ListsFaults, short_help="Serve a simulated controller.")
@serving_options
@click.option("--baud-pacing", is_flag=True, help="Answer no faster than a line of 9600 baud.")
@click.option(
    "-x",
    "--time-scale",
    type=Number(float, lambda value: _simulated(time_scale=value)),
    default=1.0,
    show_default=True,
    metavar="N",
    help="Simulated seconds per second.",
)
@click.option(
    "-f",
    "--fault",
    multiple=True,
    callback=_fault_specs,
    metavar="FAULT",
    help="Simulate an error now and then; see below.",
)
@click.option(
    "-s",
    "--seed",
    type=Number(int, lambda value: _simulated(seed=value)),
    default=0,
    show_default=True,
    metavar="N",
    help="Seed of the weather and of the faults.",
)
@click.option(
    "--start-hour",
    type=Number(float, lambda value: _simulated(start_hour=value)),
    default=10.0,
    show_default=True,
    metavar="HOUR",
    help="Hour of the day at the start.",
)
@verbose_option
def simulate(
    *,
    tcp: tuple[tuple[str, int], ...],
    pty: bool,
    unix: tuple[str, ...],
    baud_pacing: bool,
    time_scale: float,
    fault: tuple[str, ...],
    seed: int,
    start_hour: float,
) -> None:
    """Serve a simulated controller until Ctrl-C or SIGTERM.

    Prints "listening on URL" when it is ready, a line for each of --tcp, --unix and --pty. All of them serve the same
    controller. Without any of them, it serves on a free TCP port of 127.0.0.1.
    """
    from tracer_async.simulator import Faults, SimulatedTracer

    with usage_errors():
        faults = Faults(*fault, seed=seed)
        tracer = SimulatedTracer(seed=seed, time_scale=time_scale, start_hour=start_hour)
    if pty:
        try:
            faults.check_serial()
        except ValueError as error:
            raise click.UsageError(f"--pty: {error}.") from error
    if not (tcp or pty or unix):
        tcp = (("127.0.0.1", 0),)
    serve(tracer, (tcp, pty, unix), baud_pacing=baud_pacing, faults=faults)
