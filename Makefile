# All that is needed is make and a Python of 3.11 or later; everything else goes into .venv.

PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
SOURCES := tracer_async tests examples benchmarks stress fuzz
FUZZ_SECONDS ?= 60
ASYNC_TESTS := tests/client tests/peers tests/promise tests/transport
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test test-all test-loops lint format bench fuzz mutants soak hostile sick-fleet clean

demo: $(VENV)/demo  ## watch a simulated controller; ends by itself when its output is not a terminal
	@if [ -t 1 ]; then $(BIN)/tracer-async watch sim:; else $(BIN)/tracer-async watch sim: --count 5; fi

test: $(VENV)/dev  ## run the tests and measure what they cover
	@rm -f .coverage .coverage.*
	$(BIN)/coverage run -m pytest $(ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report --format=total --include='tracer_async/protocol/*' --fail-under=100 >/dev/null \
		|| { $(BIN)/coverage report --include='tracer_async/protocol/*'; exit 1; }
	@$(BIN)/coverage report --skip-covered --fail-under=95

test-loops: $(VENV)/dev  ## run the asynchronous tests in asyncio's debug mode, on uvloop, and with eager tasks
	$(BIN)/python -m pytest -q --asyncio-debug $(ASYNC_TESTS)
	$(BIN)/python -m pytest -q --event-loop=uvloop $(ASYNC_TESTS)
	@if $(BIN)/python -c 'from asyncio import eager_task_factory' 2>/dev/null; then \
		$(BIN)/python -m pytest -q --event-loop=eager $(ASYNC_TESTS); \
	else echo "eager tasks need Python 3.12"; fi

lint: $(VENV)/dev  ## ruff and mypy, both strict
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy

format: $(VENV)/dev
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

test-all:  ## run the tests on each Python from 3.11 on that is found here
	@found=0; for version in 3.11 3.12 3.13; do \
		if python$$version -c '' 2>/dev/null; then found=$$((found + 1)); \
			echo "== Python $$version"; \
			$(MAKE) --no-print-directory test test-loops VENV=.venv-$$version PYTHON=python$$version || exit 1; \
		else echo "== Python $$version is not on this machine"; fi; \
	done; test $$found -gt 0

fuzz: $(VENV)/dev  ## hunt with atheris, FUZZ_SECONDS for each target
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(PIP_INSTALL) 'atheris>=3' \
		|| { echo "atheris has wheels for Python 3.11 to 3.13 on Linux and macOS only" >&2; exit 1; }
	for target in decoder session; do \
		$(BIN)/python -m fuzz $$target -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 || exit 1; done

mutants: $(VENV)/dev  ## mutation testing of the protocol, some ten minutes; what is left is in docs/reliability.md
	@$(BIN)/python -c 'import mutmut' 2>/dev/null || $(PIP_INSTALL) 'mutmut>=3.8,<4'
	$(BIN)/mutmut run --max-children 1
	@$(BIN)/mutmut results

bench: .venv-bench/ready  ## measure everything into docs/performance.md; QUICK=1 within two minutes
	.venv-bench/bin/python -m benchmarks $(if $(QUICK),--quick)

.venv-bench/ready: pyproject.toml
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@if ! .venv-bench/bin/python -c 'import tmodbus' 2>/dev/null; then \
		for python in python3.13 python3.12; do \
			$$python -c '' 2>/dev/null || continue; \
			$$python -m venv .venv-bench-newer && .venv-bench-newer/bin/python -m pip install --quiet \
				--disable-pip-version-check --editable '.[bench]' && break; \
		done; fi; true
	@touch $@

soak: $(VENV)/dev  ## a million exchanges on bad lines, some ten minutes
	$(BIN)/python -m stress.soak

hostile: $(VENV)/dev  ## garbage at full speed, a minute of each kind
	$(BIN)/python -m stress.hostile

sick-fleet: $(VENV)/dev  ## 200 controllers of which a fifth is sick, for ten minutes
	$(BIN)/python -m stress.sick_fleet

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "tracer_async needs Python 3.11 or later, and none is on the PATH" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo: $(VENV)/bin/python pyproject.toml
	$(PIP_INSTALL) --editable '.[cli]'
	@touch $@

$(VENV)/dev: $(VENV)/bin/python pyproject.toml
	$(PIP_INSTALL) --editable '.[dev]'
	@touch $@ $(VENV)/demo

clean:
	rm -rf .venv .venv-* dist build mutants .cache .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis
