"""The open descriptors of this process: a closed connection must leave none."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path


def open_files() -> set[str]:
    """The descriptors of this process, each with its file. libuv keeps one open on /dev/null, which is left out."""
    files = set()
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the listing's own
            files.add(f"{entry.name} {os.readlink(entry)}")  # noqa: PTH115  # sockets have no path
    return {file for file in files if not file.endswith("/dev/null")}


async def wait_until_closed(descriptors: set[str]) -> None:
    """Wait until the server has noticed that its client is gone; fail if a descriptor stays open."""
    for _ in range(1000):
        if open_files() <= descriptors:
            return
        await asyncio.sleep(0.001)
    assert open_files() <= descriptors
