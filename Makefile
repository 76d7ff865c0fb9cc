# Everything runs in .venv; `make setup` makes it, and every target that needs it does so by itself.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast lint types imports bench up down compose-test

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(INSTALLED)  ## Make .venv with everything in it

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[all]' --constraint constraints.txt
	touch $@

demo: setup  ## Train a GAN on real images and serve it (EXIT=1: stop all at the end; PRESET=lecture)
	$(BIN)/elmyr demo $(if $(EXIT),--exit) $(if $(PRESET),--preset $(PRESET))

test: lint types imports  ## Everything that CI runs
	$(BIN)/pytest

test-fast: setup  ## Only the tests without servers
	$(BIN)/pytest tests/unit --numprocesses auto --dist worksteal

lint: setup  ## Style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup  ## Static types
	$(BIN)/mypy

imports: setup  ## Who may import whom
	$(BIN)/lint-imports

bench: setup  ## Benchmarks; each number is a ratio within one run
	$(BIN)/python -m pip install --quiet --editable '.[all,bench]' --constraint constraints.txt
	$(BIN)/python -m tests.benchmarks

up: setup  ## Start the stack in the background
	$(BIN)/elmyr up --detach

down: setup  ## Stop the stack; its data stays in .elmyr
	$(BIN)/elmyr down

compose-test: setup  ## Compose the system of containers and walk the road through it (as root; Docker)
	$(BIN)/python -m tests.compose
