"""What the commands have in common that serve a simulated controller or a recording."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import click

from tracer_async.cli.event_loop import run_async
from tracer_async.cli.exit_codes import ExitCode
from tracer_async.cli.options import show_warnings
from tracer_async.errors import LinkError

if TYPE_CHECKING:
    from tracer_async.simulator import Faults, Replay, SimulatedTracer

__all__ = ["Places", "host_ports", "paths", "serve", "serving_options"]

F = TypeVar("F", bound=Callable[..., Any])

Places = tuple[tuple[tuple[str, int], ...], bool, tuple[str, ...]]
"""Where to serve: TCP hosts and ports, whether on a pseudo-terminal, paths of Unix sockets."""


def serving_options(command: F) -> F:
    """Add ``--tcp``, ``--pty`` and ``--unix``."""
    for option in (
        click.option(
            "-u",
            "--unix",
            type=click.Path(),
            multiple=True,
            callback=paths,
            metavar="PATH",
            help="Serve on a Unix socket.",
        ),
        click.option("-p", "--pty", is_flag=True, help="Serve on a pseudo-terminal, as a serial port."),
        click.option(
            "-t",
            "--tcp",
            multiple=True,
            callback=host_ports,
            metavar="HOST:PORT",
            help="Serve on a TCP port; 0 takes a free one.",
        ),
    ):
        command = option(command)
    return command


def host_ports(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    """Return each HOST:PORT as a pair. Raises BadParameter."""
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


def paths(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Return the paths. Raises BadParameter if one is empty."""
    if "" in values:
        raise click.BadParameter("the path is empty.", ctx, param)
    return values


def serve(
    tracer: SimulatedTracer | Replay, places: Places, *, baud_pacing: bool = False, faults: Faults | None = None
) -> None:
    """Serve *tracer* at each of *places* until Ctrl-C or SIGTERM. Print a line for each when it is ready.

    Raises LinkError if it cannot listen there.
    """
    from tracer_async.simulator import serve_pty, serve_tcp, serve_unix

    tcp, pty, unix = places
    servers: list[tuple[str, AbstractAsyncContextManager[str]]] = [
        *(
            (f"tcp://{host}:{port}", serve_tcp(tracer, host, port, baud_pacing=baud_pacing, faults=faults))
            for host, port in tcp
        ),
        *([("a pseudo-terminal", serve_pty(tracer, baud_pacing=baud_pacing, faults=faults))] if pty else []),
        *((f"unix:{path}", serve_unix(tracer, path=path, baud_pacing=baud_pacing, faults=faults)) for path in unix),
    ]

    async def listen() -> None:
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

    show_warnings("tracer_async.simulator")
    # The end by SIGTERM is the normal one of a service.
    run_async(listen, on_sigterm=ExitCode.OK)
