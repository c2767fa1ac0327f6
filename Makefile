# The two commands of a newcomer: `make quickstart` and `make test`. Each installs what it needs.
# `make chaos N=50 SEED=0` injects N faults into running searches and checks what must hold.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

N ?= 50
SEED ?= 0

.PHONY: quickstart test check chaos clean
.DELETE_ON_ERROR:

quickstart: $(VENV)/installed
	PATH="$(abspath $(BIN)):$$PATH" scripts/quickstart

test: $(VENV)/installed-dev
	PATH="$(abspath $(BIN)):$$PATH" scripts/check

check: test

chaos: $(VENV)/installed-dev
	$(BIN)/python -m tests.chaos --faults $(N) --seed $(SEED) $(if $(RESULTS),--results $(RESULTS))

$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) quickstart
