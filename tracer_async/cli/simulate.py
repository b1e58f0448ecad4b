"""``tracer-async simulate``: a simulated controller on TCP ports, Unix sockets and pseudo-terminals."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from typing import Any

import anyio
import click

from tracer_async.cli.event_loop import run_async
from tracer_async.cli.exit_codes import ExitCode
from tracer_async.cli.options import Number, usage_errors, verbose_option
from tracer_async.errors import LinkError

__all__ = ["simulate"]


def _host_ports(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    pairs = []
    for value in values:
        host, _, port = value.removeprefix("tcp://").rpartition(":")
        if not host or not (port.isascii() and port.isdigit() and len(port) <= 9) or int(port) > 65535:
            raise click.BadParameter(
                f"{value!r} is not HOST:PORT, such as 127.0.0.1:8088; the port is 0 to 65535, and 0 takes a free one.",
                ctx,
                param,
            )
        pairs.append((host.removeprefix("[").removesuffix("]"), int(port)))
    return tuple(pairs)


def _paths(ctx: click.Context, param: click.Parameter, paths: tuple[str, ...]) -> tuple[str, ...]:
    if "" in paths:
        raise click.BadParameter("the path is empty.", ctx, param)
    return paths


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
@click.option(
    "-t",
    "--tcp",
    multiple=True,
    callback=_host_ports,
    metavar="HOST:PORT",
    help="Serve on a TCP port; 0 takes a free one.",
)
@click.option("-p", "--pty", is_flag=True, help="Serve on a pseudo-terminal, as a serial port.")
@click.option(
    "-u", "--unix", type=click.Path(), multiple=True, callback=_paths, metavar="PATH", help="Serve on a Unix socket."
)
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
    from tracer_async.simulator import Faults, SimulatedTracer, serve_pty, serve_tcp, serve_unix

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
    servers = [
        *(
            (f"tcp://{host}:{port}", serve_tcp(tracer, host, port, baud_pacing=baud_pacing, faults=faults))
            for host, port in tcp
        ),
        *([("a pseudo-terminal", serve_pty(tracer, baud_pacing=baud_pacing, faults=faults))] if pty else []),
        *((f"unix:{path}", serve_unix(tracer, path=path, baud_pacing=baud_pacing, faults=faults)) for path in unix),
    ]

    async def serve() -> None:
        async with AsyncExitStack() as stack:
            for name, server in servers:
                try:
                    url = await stack.enter_async_context(server)
                except (OSError, NotImplementedError) as error:
                    # asyncio's own text repeats the address.
                    reason = getattr(error, "strerror", None) or str(error)
                    raise LinkError(name, f"cannot listen there: {reason}") from error
                click.echo(f"listening on {url}")  # which flushes
            await anyio.sleep_forever()

    log = logging.getLogger("tracer_async.simulator")
    if log.getEffectiveLevel() > logging.WARNING:
        log.setLevel(logging.WARNING)  # an error of the server is logged without -v, too
    # The end by SIGTERM is the normal one of a service.
    run_async(serve, on_sigterm=ExitCode.OK)
