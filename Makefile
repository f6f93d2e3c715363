# Everything happens in .venv, which is made on first use and made anew whenever
# pyproject.toml changes. Needed beforehand: make and Python 3.10 to 3.13.

PYTHON ?= python3

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
CENSUS := census.html

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint types bench bench-peers clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(READY) ## Run the census of the standard library and write census.html
	$(BIN)/python examples/stdlib_census.py --out $(CENSUS)
	@echo "The result is in $(CURDIR)/$(CENSUS): open it in a browser."

test: lint types ## Check style and types, then run the whole test suite
	$(BIN)/python -m pytest

lint: $(READY) ## Check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY) ## Check the types of the package
	$(BIN)/mypy

bench: $(READY) ## Measure what flows cost beside raw Dask; fails if a bar is missed
	$(BIN)/python -m benchmarks

# Prefect 1.4.1 needs Python 3.8 or 3.9: found by its name, or given as PEER_PYTHON=...
bench-peers: $(READY) ## Compare with Prefect 1 and 3, in environments below .peers
	$(BIN)/python -m benchmarks peers

clean: ## Remove the environments, caches and the demo's result
	rm -rf $(VENV) .peers build dist *.egg-info $(CENSUS)
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis dask-scratch-space
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is touched last, so an install that broke off is started again.
$(READY): pyproject.toml
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --editable ".[test,viz]"
	@touch $@
