"""Run a target with atheris: ``python -m fuzz decoder|session [libFuzzer's options, or files to replay]``.

Inputs that reach new code are kept between runs in ``.cache/fuzz/<target>``. An input that breaks an invariant is
written next to that folder. Pass the name of such a file to replay it.
"""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["tracer_async"]):  # modules imported before this block are not instrumented
    from fuzz import fuzz_decoder, fuzz_session
    from fuzz.make_corpus import SEEDS, write_corpus

TARGETS = {"decoder": fuzz_decoder.check, "session": fuzz_session.check}
CACHE = Path(".cache", "fuzz")


def main(arguments: list[str]) -> None:
    """Fuzz until libFuzzer's options say stop, or replay files."""
    name, *options = arguments[1:] or [""]
    if name not in TARGETS:
        sys.exit(f"usage: python -m fuzz {'|'.join(TARGETS)} [-max_total_time=60 and the like, or files to replay]")
    if all(option.startswith("-") for option in options):
        folder = CACHE / name
        write_corpus(folder, SEEDS[name]())
        options = [f"-artifact_prefix={CACHE}/{name}-", "-max_len=512", *options, str(folder)]
    atheris.Setup([arguments[0], *options], TARGETS[name])
    atheris.Fuzz()


main(sys.argv)
