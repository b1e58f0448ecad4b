"""Switch the load off when the battery runs low and on again when it has recovered.

``python examples/load_by_voltage.py [URL [INTERVAL [COUNT]]]``

Two thresholds, because a battery's voltage rises as soon as its load is gone: with one, the load would flutter.
"""

import asyncio
import sys

from tracer_async import LoadError, TracerClient

OFF_BELOW = 11.8
ON_ABOVE = 12.6


async def main(url: str, interval: float, count: int) -> None:
    """Look at the battery every *interval* seconds, *count* times, or for ever if it is 0."""
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
    """Switch the load; if the controller refuses or does not answer, the next reading decides anew."""
    try:
        await tracer.set_load(on)
    except LoadError as error:
        print(error)
    else:
        print("load", "on" if on else "off")


if __name__ == "__main__":
    arguments = [*sys.argv[1:], *("sim:", "5", "0")[len(sys.argv) - 1 :]]
    asyncio.run(main(arguments[0], float(arguments[1]), int(arguments[2])))
