"""``tracer-async share``: one controller for any number of programs that speak the protocol."""

from __future__ import annotations

from ipaddress import ip_network

import anyio
import click

from tracer_async import TracerClient
from tracer_async.cli.event_loop import run_async
from tracer_async.cli.exit_codes import ExitCode
from tracer_async.cli.options import Number, show_warnings, trace_option, url_argument, usage_errors, verbose_option
from tracer_async.cli.serving import host_ports, paths

__all__ = ["share"]


def _networks(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        try:
            ip_network(value)
        except ValueError as error:
            raise click.BadParameter(f"{error}.", ctx, param) from error
    return values


@click.command(short_help="Share a controller among programs.")
@url_argument
@click.option("--tcp", multiple=True, callback=host_ports, metavar="HOST:PORT", help="Serve on a TCP port.")
@click.option(
    "-u", "--unix", type=click.Path(), multiple=True, callback=paths, metavar="PATH", help="Serve on a Unix socket."
)
@click.option(
    "-p", "--pty", type=click.Path(), multiple=True, callback=paths, metavar="LINK", help="Serve as a serial port."
)
@click.option(
    "-a", "--allow", multiple=True, callback=_networks, metavar="NET", help="Who may connect over TCP; repeatable."
)
@click.option("-o", "--read-only", is_flag=True, help="Pass readings on, and answer nothing else.")
@click.option(
    "--max-age",
    type=float,
    default=0.0,
    show_default=True,
    metavar="SECONDS",
    help="A program may get a reading of another one that is at most this old.",
)
@click.option(
    "--reply-within",
    type=float,
    default=0.8,
    show_default=True,
    metavar="SECONDS",
    help="Do not answer a request later than this.",
)
@click.option("--max-clients", type=int, default=64, show_default=True, metavar="N", help="Maximum programs.")
@click.option(
    "--idle-timeout",
    type=float,
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="Disconnect a program without a request.",
)
@click.option(
    "-t",
    "--timeout",
    type=Number(float, lambda value: TracerClient("tcp://127.0.0.1:1", timeout=value)),
    default=0.4,
    show_default=True,
    metavar="SECONDS",
    help="Time to wait for each answer of the controller.",
)
@trace_option
@verbose_option
def share(
    *,
    url: str,
    tcp: tuple[tuple[str, int], ...],
    unix: tuple[str, ...],
    pty: tuple[str, ...],
    allow: tuple[str, ...],
    read_only: bool,
    max_age: float,
    reply_within: float,
    max_clients: int,
    idle_timeout: float,
    timeout: float,
) -> None:
    """Let several programs use one controller at the same time, until Ctrl-C.

    Each program sees a controller of its own. LINK becomes a symbolic link that opens like a serial port. Prints
    "listening on URL" for each place when it is ready; port 0 takes a free one.
    """
    from tracer_async.sharing import share as share_client

    if not (tcp or unix or pty):
        raise click.UsageError("Nothing to serve on: give --tcp HOST:PORT, --unix PATH or --pty LINK.")
    addresses = [
        *(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in tcp),
        *(f"unix:{path}" for path in unix),
        *(f"pty:{link}" for link in pty),
    ]

    async def serve() -> None:
        with usage_errors():
            async with (
                TracerClient(url, timeout=timeout, retries=1, fence=0.25) as client,
                share_client(
                    client,
                    *addresses,
                    max_age=max_age,
                    reply_within=reply_within,
                    read_only=read_only,
                    allow=allow,
                    max_clients=max_clients,
                    idle_timeout=idle_timeout,
                ) as sharing,
            ):
                for served in sharing.urls:
                    click.echo(f"listening on {served}")
                await anyio.sleep_forever()

    # Lost and restored connections, refused programs, and what an address off this machine means.
    show_warnings("tracer_async")
    # The end by SIGTERM is the normal one of a service.
    run_async(serve, on_sigterm=ExitCode.OK)
