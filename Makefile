# Developer's entry points; `make` alone lists them. Everything runs from .venv, which `make setup` builds
# from the hashed lock in constraints.txt and which every other target builds first when it is missing or stale.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules
SHELL := bash
.SHELLFLAGS := -euo pipefail -c

VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
NODE_STAMP := node_modules/.switchgear-installed
VENV_STAMP := $(VENV)/.switchgear-installed
# The newest of these that is at least 3.11 builds .venv; `make setup PYTHON=/path/to/python` overrules it.
PYTHON ?= $(firstword $(foreach python,python3.13 python3.12 python3.11 python3,$(if $(shell command -v $(python) >/dev/null && $(python) -c 'import sys; print(sys.version_info >= (3, 11) or "")' 2>/dev/null),$(python))))
REPO ?= .
# Extra arguments for pytest, for example: make test ARGS='-k ledger -x'
ARGS ?=

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- environments --------------------------------------------------------------------------------------------------

.PHONY: setup
setup: $(VENV_STAMP) ## build .venv (needs Python >= 3.11 and git)

$(VENV_STAMP): pyproject.toml constraints.txt
	@command -v git >/dev/null || { echo 'git is missing: install the package git' >&2; exit 1; }
	@[ -n "$(PYTHON)" ] || { echo 'Python 3.11 or newer is missing: install the package python3 (3.11 or newer) or give PYTHON=<interpreter>' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo 'Python cannot build environments: install the package python3-venv' >&2; exit 1; }
	[ -x $(BIN)/pip ] || $(PYTHON) -m venv --clear $(VENV)
	# uv installs ten times faster than pip; where it cannot be had, pip reads the same lock.
	sed -n '/^uv==/,/[^\\]$$/p' constraints.txt >$(VENV)/uv.txt
	if [ -x $(BIN)/uv ] || $(BIN)/pip install --quiet --require-hashes --requirement $(VENV)/uv.txt; then \
	  export VIRTUAL_ENV="$$PWD/$(VENV)"; \
	  $(BIN)/uv pip install --quiet --compile-bytecode --require-hashes --requirements constraints.txt; \
	  $(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .; \
	else \
	  echo 'uv cannot be installed here: falling back to pip' >&2; \
	  PYTHONDONTWRITEBYTECODE= $(BIN)/pip install --quiet --require-hashes --requirement constraints.txt; \
	  $(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .; \
	fi
	# An editable install compiles nothing, and imports without bytecode take twice as long.
	PYTHONDONTWRITEBYTECODE= $(PY) -m compileall -q $(wildcard runtime agents)
	touch $@

.PHONY: node
node: $(NODE_STAMP) ## install the npm tools (type checker, AsyncAPI parser, second NATS client)

$(NODE_STAMP): package.json package-lock.json
	@command -v node >/dev/null || { echo 'node is missing: install the package nodejs (18 or newer)' >&2; exit 1; }
	@command -v npm >/dev/null || { echo 'npm is missing: install the package npm' >&2; exit 1; }
	npm ci --ignore-scripts --no-audit --no-fund
	touch $@

.PHONY: lock
lock: $(VENV_STAMP) ## take newer versions of all dependencies into constraints.txt and package-lock.json
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --upgrade \
	  --no-emit-index-url --no-emit-find-links --no-annotate --no-header --quiet --output-file constraints.txt
	npm update --package-lock-only --omit-lockfile-registry-resolved --ignore-scripts --no-audit --no-fund

# --- use -----------------------------------------------------------------------------------------------------------

.PHONY: demo
demo: $(VENV_STAMP) ## run the demo on this repository, or on REPO=<path> (needs neither node nor Docker)
	$(BIN)/switchgear demo $(REPO)

# --- checks --------------------------------------------------------------------------------------------------------

.PHONY: check
check: lint types schemas-check test ## all checks

.PHONY: lint
lint: $(VENV_STAMP) ## ruff (rules and format) and the floors of the architecture
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-logo

.PHONY: fmt
fmt: $(VENV_STAMP) ## format the code and apply the safe fixes
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

.PHONY: types
types: $(VENV_STAMP) $(NODE_STAMP) ## pyright, strict
	node_modules/.bin/pyright

# Processes that share the tests; those of one file stay together.
JOBS ?= 2

.PHONY: test
test: $(VENV_STAMP) $(NODE_STAMP) ## all tests, in JOBS=2 processes; ARGS='…' goes to pytest
	$(BIN)/pytest -n $(JOBS) --dist loadfile $(ARGS)

# How much of each proof runs: seeds of the simulation, schedules of faults on real processes, minutes of a soak.
SEEDS ?= 1000
SCHEDULES ?= 10
MINUTES ?= 10

.PHONY: simulate
simulate: $(VENV_STAMP) ## the whole mesh in virtual time under random faults, SEEDS=1000 times
	$(PY) -m tests.simulation --seeds $(SEEDS) $(ARGS)

.PHONY: bugs
bugs: $(VENV_STAMP) ## plant bugs one by one and see the simulation catch each
	$(PY) -m tests.simulation --every-bug $(ARGS)

.PHONY: faults
faults: $(VENV_STAMP) ## real processes killed, frozen and cut off, in SCHEDULES=10 random ways
	$(PY) -m tests.faults.runs --schedules $(SCHEDULES) $(ARGS)

.PHONY: soak
soak: $(VENV_STAMP) ## one long run under load and faults, MINUTES=10
	$(PY) -m tests.faults.runs --soak $(MINUTES) $(ARGS)

.PHONY: recovery
recovery: $(VENV_STAMP) ## how long the mesh takes to go on after each kind of death; fails beyond what is promised
	RECOVERY=strict $(BIN)/pytest --no-header -q tests/faults/test_recovery.py $(ARGS)

.PHONY: coverage
coverage: $(VENV_STAMP) $(NODE_STAMP) ## all tests with branch coverage
	$(BIN)/pytest --cov --cov-report=term-missing:skip-covered $(ARGS)

.PHONY: schemas
schemas: $(VENV_STAMP) ## write the published contract from the types
	$(PY) -m switchgear.contract.export schemas

.PHONY: schemas-check
schemas-check: $(VENV_STAMP) ## fail when schemas/ and the types disagree
	$(PY) -m switchgear.contract.export schemas --check

.PHONY: bench
bench: $(VENV_STAMP) ## benchmarks against the bare bus and against ourselves
	$(PY) -m benchmarks

.PHONY: clean
clean: ## remove environments, caches and build results
	rm -rf $(VENV) node_modules build dist htmlcov .coverage coverage.xml \
	  .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find runtime agents tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
