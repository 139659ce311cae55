# Two commands for a user:      make chat    make test
# Two for a developer:          make check   make test
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
MODEL  ?= smollm2
# Set-up talks on stderr, so that `echo question | make -s chat` puts the answer alone on stdout.
PIP    := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: chat test test-slow check format docs install clean
.DELETE_ON_ERROR:

chat: $(VENV)/installed
	@$(BIN)/llmchat ls --quiet | grep -qxF "$(MODEL)" || $(BIN)/llmchat pull "$(MODEL)"
	@$(BIN)/llmchat chat --model "$(MODEL)" $(ARGS)

# Two processes, each with whole files: half of the time is waiting.
test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile $(ARGS)

# What takes longer: whole chats on the real model, its perplexity, real training, kills at random moments.
test-slow: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m slow $(ARGS)

check: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python docs/generate.py --check

format: $(VENV)/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/installed
	$(BIN)/python docs/generate.py

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	@echo "installing into $(VENV) (a few minutes the first time)" >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) >&2
	@$(PIP) --editable . >&2
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	@echo "installing the development tools into $(VENV)" >&2
	@$(PIP) --editable '.[dev]' >&2
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache
