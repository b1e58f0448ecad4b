"""``tracer-async simulate``: a controller made of software, on real wires."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack

import anyio
import click

from tracer_async.cli.exit_codes import ExitCode
from tracer_async.cli.options import usage_errors, verbose_option
from tracer_async.cli.running import run_async
from tracer_async.errors import LinkError

__all__ = ["simulate"]


def _host_ports(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    pairs = []
    for value in values:
        host, _, port = value.removeprefix("tcp://").rpartition(":")
        if not (port.isascii() and port.isdigit()) or int(port) > 65535 or not host:
            raise click.BadParameter(
                f"{value!r} is no HOST:PORT; one is 127.0.0.1:8088, and port 0 takes a free one.", ctx, param
            )
        pairs.append((host.removeprefix("[").removesuffix("]"), int(port)))
    return tuple(pairs)


def _fault_specs(ctx: click.Context, param: click.Parameter, specs: tuple[str, ...]) -> tuple[str, ...]:
    from tracer_async.simulator import parse_fault

    for spec in specs:
        try:
            parse_fault(spec)
        except ValueError as error:
            raise click.BadParameter(f"{error}.", ctx, param) from error
    return specs


class _ListsFaults(click.Command):
    """Lists the kinds of faults at the end of its help; they are imported for nothing else."""

    def format_epilog(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from tracer_async.simulator import FAULT_KINDS

        with formatter.section("Faults, with the value and the probability that may be left out"):
            formatter.write_dl([(kind.example, kind.summary) for kind in FAULT_KINDS.values()])


@click.command(cls=_ListsFaults, short_help="Serve a simulated controller.")
@click.option(
    "--tcp",
    multiple=True,
    callback=_host_ports,
    metavar="HOST:PORT",
    help="Serve on a TCP port; 0 takes a free one.",
)
@click.option("--pty", is_flag=True, help="Serve on a new pseudo-terminal, which opens like a serial port.")
@click.option("--unix", type=click.Path(), multiple=True, metavar="PATH", help="Serve on a Unix socket.")
@click.option("--baud-pacing", is_flag=True, help="Answer no faster than a line of 9600 baud.")
@click.option(
    "--time-scale",
    type=click.FloatRange(0, 1_000_000),
    default=1.0,
    show_default=True,
    help="Simulated seconds a second.",
)
@click.option(
    "--fault",
    multiple=True,
    callback=_fault_specs,
    metavar="KIND[=VALUE][@PROBABILITY]",
    help="Let something go wrong now and then; see below.",
)
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="The same seed gives the same weather and the same faults.",
)
@click.option(
    "--start-hour",
    type=click.FloatRange(0, 24, max_open=True),
    default=10.0,
    show_default=True,
    help="The hour of the simulated day to start at.",
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

    Prints "listening on URL" on a line of its own when it is ready. Several --tcp, --unix and --pty serve the same
    controller at once; with none of them it is a free TCP port on 127.0.0.1.
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
                    raise LinkError(name, f"cannot be served: {reason}") from error
                click.echo(f"listening on {url}")  # which flushes
            await anyio.sleep_forever()

    log = logging.getLogger("tracer_async.simulator")
    if log.getEffectiveLevel() > logging.WARNING:
        log.setLevel(logging.WARNING)  # a server that cannot accept clients says so without -v too
    # A service that was asked to end, and did, has done well.
    run_async(serve, on_sigterm=ExitCode.OK)
