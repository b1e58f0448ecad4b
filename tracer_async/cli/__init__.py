"""The command ``tracer-async``. Importing this imports neither click nor rich; `main` does, or says what is missing."""

from __future__ import annotations

import os
import sys

__all__ = ["main"]


def main() -> None:
    """Run the command with the process's arguments, and exit with a code of `tracer_async.cli.exit_codes`."""
    _open_closed_streams()
    try:
        try:
            import click  # noqa: F401  # only to find out whether it is there
            import rich  # noqa: F401
        except ImportError:
            from tracer_async.cli.exit_codes import exit_code
            from tracer_async.errors import MissingExtraError

            error = MissingExtraError("the command tracer-async", "cli")
            print(f"Error: {error}", file=sys.stderr)  # noqa: T201
            sys.exit(exit_code(error))
        from tracer_async.cli.app import run

        code = run()
    except KeyboardInterrupt:  # before there was anything to interrupt
        code = 130
    sys.exit(code)


def _open_closed_streams() -> None:
    """Send a standard stream that is closed (``>&-``) to the null device.

    Otherwise a socket would get its descriptor, and receive what is meant for standard output.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != descriptor:
                os.dup2(null, descriptor)
                os.close(null)
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
