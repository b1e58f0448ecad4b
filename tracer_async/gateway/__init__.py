"""The gateway: one service between the controllers and everything that their owners use.

It owns the lines, polls each controller once, and hands each reading to MQTT, Prometheus, InfluxDB, a database and a
dashboard. It is an application of the library and uses public names only. Needs ``tracer-async[gateway]``.
"""
