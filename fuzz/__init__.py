"""Fuzz targets: ``python -m fuzz decoder`` and ``python -m fuzz link`` hunt with atheris, for as long as they are let.

A target is a function from bytes to None that raises where an invariant does not hold, and knows nothing of atheris:
the tests replay the same functions over seeds and mutations of them.
"""
