"""Read a controller once: ``python examples/read_once.py [URL]``."""

import asyncio
import sys
from contextlib import suppress

from tracer_async import TracerClient


async def main(url: str) -> None:
    """Print what the controller at *url* measures."""
    async with TracerClient(url) as tracer:
        data = await tracer.read_realtime()
    print(f"battery {data.battery_voltage:.2f} V, panel {data.pv_voltage:.2f} V, charging: {data.charge_power:.1f} W")


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):  # Ctrl-C ends the program without a traceback
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "sim:"))
