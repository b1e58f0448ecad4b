"""Tells systemd that a command that runs as a service is ready."""

from __future__ import annotations

import os

from tracer_async.gateway.systemd import notify

__all__ = ["is_service", "notify_ready"]


def is_service() -> bool:
    """Return whether systemd waits for a notification."""
    return bool(os.environ.get("NOTIFY_SOCKET"))


def notify_ready() -> None:
    """Tell systemd, if it waits for that, that the service is ready."""
    notify("READY=1")
