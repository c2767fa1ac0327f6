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

IS_NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))

# An environment that was broken off, made by an older Python or without pip is made anew.
$(VENV)/installed: pyproject.toml constraints.txt
	@$(BIN)/python -c 'import pip._internal.cli.main; $(IS_NEW_ENOUGH)' 2>/dev/null || { \
	  $(PYTHON) -c '$(IS_NEW_ENOUGH)' || { \
	    echo '$(PYTHON) is not Python 3.11 or newer: name one that is by `make PYTHON=…`' >&2; \
	    exit 1; }; \
	  $(PYTHON) -m venv $$(test ! -e $(VENV)/pyvenv.cfg || echo --clear) $(VENV); }
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) quickstart
