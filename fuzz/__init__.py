"""Fuzz targets: ``python -m fuzz decoder`` and ``python -m fuzz session`` run atheris until its options say stop.

A target is a function from bytes to None that raises where an invariant does not hold, and knows nothing of atheris:
the tests replay the same functions over seeds and mutations of them.
"""
