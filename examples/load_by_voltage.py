"""Switch the load off when the battery runs low and on again when it has recovered.

``python examples/load_by_voltage.py [URL [INTERVAL [COUNT]]]``

It uses two thresholds, because the battery voltage rises as soon as the load is off. With one threshold the load would
be switched on and off repeatedly.
"""

import asyncio
import sys
from contextlib import suppress

from tracer_async import LoadError, TracerClient

OFF_BELOW = 11.8
ON_ABOVE = 12.6


async def main(url: str, interval: float, count: int) -> None:
    """Check the battery every *interval* seconds, *count* times. If *count* is 0, repeat without end."""
    async with TracerClient(url) as tracer:
        async for reading in tracer.poll(interval):
            if reading.data is None:
                print("no reading:", reading.error)
            elif reading.data.load_on and reading.data.battery_voltage < OFF_BELOW:
                await switch(tracer, on=False)
            elif not reading.data.load_on and reading.data.battery_voltage > ON_ABOVE:
                await switch(tracer, on=True)
            count -= 1
            if count == 0:
                break


async def switch(tracer: TracerClient, *, on: bool) -> None:
    """Switch the load. If the controller refuses or does not answer, the next reading decides again."""
    try:
        await tracer.set_load(on)
    except LoadError as error:
        print(error)
    else:
        print("load", "on" if on else "off")


if __name__ == "__main__":
    arguments = [*sys.argv[1:], *("sim:", "5", "0")[len(sys.argv) - 1 :]]
    with suppress(KeyboardInterrupt):  # Ctrl-C ends the program without a traceback
        asyncio.run(main(arguments[0], float(arguments[1]), int(arguments[2])))
