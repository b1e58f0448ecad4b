"""``python -m tracer_async``: the same as the command ``tracer-async``."""

from tracer_async.cli import main

main()
