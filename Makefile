# `make help` lists what there is.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
MODEL  ?= smollm2
# Set-up writes to stderr, so that `echo question | make -s chat` prints the answer alone on stdout.
PIP    := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: help chat test test-slow test-long coverage check format reference docs wheel release install clean
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

chat: $(VENV)/installed ## Chat with MODEL (default: smollm2); downloads it the first time
	@$(BIN)/llmchat ls --quiet | grep -qxF "$(MODEL)" || $(BIN)/llmchat pull "$(MODEL)"
	@$(BIN)/llmchat chat --model "$(MODEL)" $(ARGS)

# Two processes, each with whole files: half of the time is waiting.
test: $(VENV)/installed-dev ## Run the fast tests; ARGS='-k word' picks some
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile $(ARGS)

# In the order of the folders. By default, pytest-xdist starts the files with the fewest tests last,
# and some of these take the longest.
test-slow: $(VENV)/installed-dev ## Run the slow tests: real models, real training, kills, sanitizers
	$(BIN)/python -m pytest -m "slow and not long" -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

test-long: $(VENV)/installed-dev ## Run the four tests that take minutes each; CI leaves them out
	$(BIN)/python -m pytest -m long -n 2 --dist loadfile $(ARGS)

coverage: $(VENV)/installed-dev ## Run the fast tests and print the lines that none of them reaches
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile --cov --cov-report=term:skip-covered $(ARGS)

check: $(VENV)/installed-dev ## Lint, formatting, types, and the generated pages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python docs/generate.py --check

format: $(VENV)/installed-dev ## Fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

reference: $(VENV)/installed ## Write the reference pages of docs/ anew from the code
	$(BIN)/python docs/generate.py

docs: reference $(VENV)/installed-docs ## Build the documentation as a site in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

wheel: $(VENV)/installed-dev ## Build sdist and wheels, and try the one of this machine without a compiler
	rm -rf dist
	$(BIN)/python -m build --sdist --outdir dist .
	set -e; for machine in x86_64 aarch64 any; do \
	    LLMCHAT_WHEEL_MACHINE=$$machine $(BIN)/python -m build --wheel --outdir dist .; done
	PYTHON=$(PYTHON) scripts/try_wheel.sh

release: check test wheel ## Everything that a release requires

install: $(VENV)/installed ## Install llmchat into .venv

$(VENV)/installed: pyproject.toml constraints.txt
	@echo "installing into $(VENV) (a few minutes the first time)" >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) >&2
	@$(PIP) --editable . >&2
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	@echo "installing the development tools into $(VENV)" >&2
	@$(PIP) --editable '.[dev]' >&2
	@touch $@

$(VENV)/installed-docs: $(VENV)/installed
	@$(PIP) --editable '.[docs]' >&2
	@touch $@

clean: ## Remove the environment, caches and builds
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .coverage dist site
