"""A program from 2015, for Python 2.7 and tracermppt 0.3. It prints its requests, replies and errors as JSON.

Arguments: a serial port or HOST:PORT, the number of requests, a seed, and the time that readings count from.
"""

import json
import random
import sys
import time

import tracermppt  # type: ignore[import-not-found]

place, count, seed, epoch = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
chance = random.Random(seed)
if place.startswith("/"):
    tracer = tracermppt.Tracer(place)
else:
    host, port = place.split(":")
    tracer = tracermppt.NetTracer(host, int(port))
for _ in range(count):
    load = chance.choice([True, False]) if chance.random() < 0.03 else None
    begun = time.time() - epoch
    try:
        reply = tracer.read_realtime() if load is None else tracer.set_load_on(load)
    except tracermppt.TracerException as error:
        reply = type(error).__name__
    sys.stdout.write(json.dumps([load, begun, time.time() - epoch, reply]) + "\n")
