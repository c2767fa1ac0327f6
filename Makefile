# The two commands of a newcomer: `make quickstart` and `make test`. Each installs what it needs.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: quickstart test check clean
.DELETE_ON_ERROR:

quickstart: $(VENV)/installed
	PATH="$(abspath $(BIN)):$$PATH" scripts/quickstart

test: $(VENV)/installed-dev
	PATH="$(abspath $(BIN)):$$PATH" scripts/check

check: test

$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) quickstart
