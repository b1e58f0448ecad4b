"""The gateway of `stress.soak_gateway`: ``python -m stress.gateway_process CONFIG.toml COUNTS``.

At SIGUSR1 it appends a line with its number of tasks and of objects to the file COUNTS.
"""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import sys
from pathlib import Path
from types import FrameType

from tracer_async.gateway.process import run_gateway


def main() -> None:
    """Run the gateway."""
    config, counts = map(Path, sys.argv[1:])

    def count(_signum: int, _frame: FrameType | None) -> None:
        gc.collect()
        # What was there at the start is frozen, and is not counted.
        values = [len(asyncio.all_tasks()), len(gc.get_objects())]
        with counts.open("a", encoding="ascii") as file:
            file.write(json.dumps(values) + "\n")

    signal.signal(signal.SIGUSR1, count)
    run_gateway(config)


if __name__ == "__main__":
    main()
