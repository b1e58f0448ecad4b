"""Whether a command can draw a live view."""

from __future__ import annotations

import os
import sys

import click

__all__ = ["can_draw"]


def can_draw(ctx: click.Context) -> bool:
    """Return whether a live view can be drawn: on a real terminal, and one that nothing is logged to meanwhile."""
    if not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        return False
    return not ((ctx.meta.get("verbosity") or ctx.meta.get("trace")) and sys.stderr.isatty())
