# Every target sets up .venv first, and again whenever the requirements change.
# Another interpreter: make test PYTHON=/path/to/python3.12

SUPPORTED = import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c '$(SUPPORTED)' 2>/dev/null && echo $$python && break; done)
BIN = .venv/bin
READY = .venv/.ready

.DEFAULT_GOAL = help
.PHONY: help demo docs notebooks test soak lint bench clean

help:  ## list these targets
	@sed -n 's/^\([a-z]*\):.*## /make \1  \t/p' $(MAKEFILE_LIST)

demo: $(READY)  ## scan and ablate an embedded model, write a report
	@$(BIN)/interp demo

test: lint  ## lint, then run every test
	@$(BIN)/pytest -n auto --dist worksteal

soak: $(READY)  ## kill, fill, damage and starve runs for an hour; SOAK_MINUTES=5 for less
	@$(BIN)/pytest -m soak tests/runs

lint: $(READY)  ## style, types and import floors
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --quiet --check --diff
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo --no-cache

docs: $(READY)  ## build the API reference, docs/_build/index.html, and the pages that are made
	@$(BIN)/python docs/commands.py
	@$(BIN)/python docs/scaling.py
	@$(BIN)/python docs/build.py

notebooks: $(READY)  ## run every notebook, and keep what comes out
	@$(BIN)/python notebooks/execute.py

bench: $(READY)  ## run every benchmark
	@set -e; for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script; done

clean:  ## remove .venv and every cache
	@rm -rf .venv dist docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@$(or $(PYTHON),false) -c '$(SUPPORTED)' || { \
		echo "interp needs Python 3.11 or newer: install it, or name it with make PYTHON=/path/to/python3.12" >&2; \
		exit 1; }
	@echo "Setting up .venv (a few minutes the first time)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@
