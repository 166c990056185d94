# make demo              the main job, end to end, on invented scans, in a few minutes
# make demo RAW=DIR      the same on your own scans (folders in the layout of the MSD)
# make test              lint and tests, two at a time (JOBS=2)
# make test-slow         the longer proofs
# make test-oracle       tests against tensorflow-addons, in a Python 3.11 of their own
PYTHON ?= python3
VENV   ?= .venv
ORACLE_PYTHON ?= python3.11
ORACLE_VENV   ?= .venv-oracle
JOBS   ?= 2
RAW    ?=
DEMO   ?= $(if $(RAW),demo_own,demo)

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
ORACLE_REQUIREMENTS := tests/parity/oracle_requirements.txt
ORACLE_INSTALLED := $(ORACLE_VENV)/.installed

.PHONY: demo test test-slow test-oracle lint format install install-oracle clean

install: $(INSTALLED)

$(INSTALLED): setup.py
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 10) and 'Python 3.10 or newer is needed; name one with make PYTHON=...')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

install-oracle: $(ORACLE_INSTALLED)

# The stamp comes last, so that a half-built environment is not taken for a whole one.
$(ORACLE_INSTALLED): $(ORACLE_REQUIREMENTS)
	@$(ORACLE_PYTHON) -c "import sys; sys.exit(sys.version_info[:2] != (3, 11))" || { \
	  echo "tensorflow-addons needs Python 3.11, and $(ORACLE_PYTHON) is none; name one with make test-oracle ORACLE_PYTHON=..." >&2; exit 1; }
	rm -f $@
	$(ORACLE_PYTHON) -m venv $(ORACLE_VENV)
	$(ORACLE_VENV)/bin/python -m pip install --quiet --requirement $(ORACLE_REQUIREMENTS)
	TF_CPP_MIN_LOG_LEVEL=3 $(ORACLE_VENV)/bin/python -W ignore -c "import tensorflow_addons"
	touch $@

demo: install
	$(BIN)/python -m tools.demo --output_dir=$(DEMO) $(if $(RAW),--raw_dir=$(RAW))

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Most of the time goes into tracing, which takes one core. A file's tests stay together:
# they share what they trained. A worker that is killed, as for want of memory, ends all:
# restarted, it would hang.
test: lint
	$(BIN)/python -m pytest --numprocesses=$(JOBS) --dist=loadfile --max-worker-restart=0

test-slow: install
	$(BIN)/python -m pytest -m slow

test-oracle: install install-oracle
	U2NET_ORACLE_PYTHON=$(abspath $(ORACLE_VENV))/bin/python $(BIN)/python -m pytest tests/parity/test_oracle.py

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(ORACLE_VENV) demo build *.egg-info .pytest_cache .ruff_cache
