"""The command ``tracer-async``. Importing this imports neither click nor rich; `main` does, or says what is missing."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command with the process's arguments, and exit with a code of `tracer_async.cli.exit_codes`."""
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
