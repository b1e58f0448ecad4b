"""A web service that owns a controller: ``python examples/aiohttp_service.py [URL [PORT]]``, then GET /reading.

The client starts and stops with the application. Concurrent HTTP requests share one request to the controller. Needs
aiohttp: ``pip install aiohttp``.
"""

import sys
from collections.abc import AsyncIterator

from aiohttp import web

from tracer_async import TracerClient, TracerError

TRACER = web.AppKey("tracer", TracerClient)


def application(url: str) -> web.Application:
    """Return the application for the controller at *url*; it also runs while the controller cannot be reached."""

    async def controller(app: web.Application) -> AsyncIterator[None]:
        async with TracerClient(url, start_offline=True) as app[TRACER]:
            yield

    app = web.Application()
    app.cleanup_ctx.append(controller)
    app.router.add_get("/reading", reading)
    return app


async def reading(request: web.Request) -> web.Response:
    """Return a reading that is at most 2 s old, or status 503 with the reason."""
    try:
        data = await request.app[TRACER].read_realtime(max_age=2.0)
    except TracerError as error:
        return web.json_response({"error": str(error)}, status=503)
    return web.json_response(
        {
            "battery_voltage": data.battery_voltage,
            "pv_voltage": data.pv_voltage,
            "charge_current": data.charge_current,
            "load_on": data.load_on,
        }
    )


if __name__ == "__main__":
    port = int(sys.argv[2]) if len(sys.argv) > 2 else 8080
    web.run_app(application(sys.argv[1] if len(sys.argv) > 1 else "sim:"), host="127.0.0.1", port=port)
