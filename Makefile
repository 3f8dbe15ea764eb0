# Every target makes .venv when it is missing: Python 3.11 or newer and make are enough.
PYTHON ?= python3
SEED ?=
BROKER ?= redis
# Much of the suite waits for servers to start, to fail and to come back.
JOBS ?= 3
# Of the wheelhouse: where it goes, for which Python, and what that machine has (torch==2.11,numpy).
DEST ?= .wheels
PYTHON_VERSION ?= 3.12
HAVE ?=
# Of gpu-check: cuda or cpu; QUICK=1 measures one checkpoint and leaves the tests out.
DEVICE ?=
QUICK ?=
BIN := .venv/bin
PIP_INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check --no-input --no-compile
# pip would compile file after file on one core; two files of dependencies are not for this Python.
COMPILE := $(BIN)/python -m compileall -qq -j 0 -x '/tests?/' .venv/lib || true
# Each of the many processes that the targets start would compile labelyard again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint dist up bench bench-quick chaos chaos-long wheelhouse gpu-check docs clean

help:  ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

demo: .venv/.demo  ## Classify six photographs on an embedded stack; writes demo-report/
	$(BIN)/python -m labelyard_worker.local.demo

up: .venv/.demo  ## Run Valkey, SeaweedFS and a worker on 127.0.0.1 until Ctrl-C
	$(BIN)/labelyard-worker up

test: .venv/.dev  ## Run the whole test suite
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder

lint: .venv/.dev  ## Check style, format, types and import directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p labelyard -p labelyard_worker -p benchmarks
	$(BIN)/mypy tests/typing/api.py
	$(BIN)/lint-imports
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pyright --verifytypes labelyard --ignoreexternal

dist: .venv/.dev  ## Build the sdist and the wheel into dist/
	rm -rf dist
	$(BIN)/python -m hatchling build -d dist -t sdist -t wheel

bench: .venv/.dev  ## Measure this worker beside others; writes benchmarks/results/
	$(BIN)/python -m benchmarks

bench-quick: .venv/.dev  ## The same in under three minutes
	$(BIN)/python -m benchmarks --quick

chaos: .venv/.dev  ## Two minutes of faults on real workers; writes chaos-report.json
	$(BIN)/python -m tests.chaos --broker $(BROKER) --seconds 120 $(if $(SEED),--seed $(SEED))

chaos-long: .venv/.dev  ## Twenty minutes of them
	$(BIN)/python -m tests.chaos --broker $(BROKER) --seconds 1200 $(if $(SEED),--seed $(SEED))

wheelhouse: .venv/.dev  ## Collect the wheels of gpu-check for a machine without a network
	$(BIN)/python -m benchmarks.gpu.wheelhouse --dest $(DEST) --python-version $(PYTHON_VERSION) --have '$(HAVE)'

gpu-check: .venv/.dev  ## Prove and measure the CUDA path in eight minutes; tiny on a CPU
	WHEELS=none benchmarks/gpu/check.sh $(if $(DEVICE),--device $(DEVICE)) $(if $(QUICK),--is-quick)

docs: .venv/.dev  ## Write the generated pages of docs/ again
	$(BIN)/python -m docs.generate

clean:  ## Remove .venv, caches and reports; a stack's data is kept
	rm -rf .venv build dist demo-report chaos-report.json
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find producer worker tests benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps hold what is installed; the larger set contains the smaller one.
.venv/.demo: .venv/pyvenv.cfg pyproject.toml constraints.txt
	@echo "installing labelyard[demo] into .venv (about a minute)"
	@$(PIP_INSTALL) -e '.[demo]' -c constraints.txt
	@$(COMPILE)
	@touch $@

.venv/.dev: .venv/pyvenv.cfg pyproject.toml constraints.txt
	@echo "installing labelyard[dev] into .venv (about a minute)"
	@$(PIP_INSTALL) -e '.[dev]' -c constraints.txt
	@$(COMPILE)
	@touch .venv/.demo $@

.venv/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "labelyard needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 ..." >&2; \
		exit 1; }
	@$(PYTHON) -m venv .venv
