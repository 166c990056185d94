# make demo              the main job, end to end, on invented scans, in a few minutes
# make demo RAW=DIR      the same on your own scans (folders in the layout of the MSD)
# make test              lint and tests
# make test-slow         the longer proofs
PYTHON ?= python3
VENV   ?= .venv
RAW    ?=
DEMO   ?= $(if $(RAW),demo_own,demo)

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test test-slow lint format install clean

install: $(INSTALLED)

$(INSTALLED): setup.py
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 10) and 'Python 3.10 or newer is needed; name one with make PYTHON=...')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

demo: install
	$(BIN)/python -m tools.demo --output_dir=$(DEMO) $(if $(RAW),--raw_dir=$(RAW))

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

test: lint
	$(BIN)/python -m pytest

test-slow: install
	$(BIN)/python -m pytest -m slow

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) demo build *.egg-info .pytest_cache .ruff_cache
