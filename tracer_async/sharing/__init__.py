"""Share one controller among any number of programs that speak the MT-5 protocol, and listen beside another master.

``async with share("/dev/ttyUSB0", "tcp://127.0.0.1:8088", "pty:/tmp/tracer") as sharing: ...``
``async with Listener("/dev/ttyUSB1") as listener: async for reading in listener.readings(): ...``
"""

from tracer_async.sharing._hub import SharingStats
from tracer_async.sharing._listener import Listener
from tracer_async.sharing._observer import ObservedExchange
from tracer_async.sharing._share import Sharing, share

__all__ = ["Listener", "ObservedExchange", "Sharing", "SharingStats", "share"]
