# make demo              the main job, end to end, on invented scans, in a few minutes
# make demo RAW=DIR      the same on your own scans (folders in the layout of the MSD)
# make test              lint and tests, two at a time (JOBS=2)
# make test-slow         all tests, including slow ones, with branch coverage
# make test-pythons      make test with every supported Python that is installed
# make test-seconds      make test, which notes how long each test file takes
# make artefacts         one file of each format, as this version writes it, for its tests
# make test-oracle       tests against tensorflow-addons, in a Python 3.11 of their own
PYTHON ?= python3
VENV   ?= .venv
ORACLE_PYTHON ?= python3.11
ORACLE_VENV   ?= .venv-oracle
JOBS   ?= 2
RAW    ?=
DEMO   ?= $(if $(RAW),demo_own,demo)

# Versions that are not installed are reported and skipped.
PYTHONS ?= 3.10 3.11 3.12 3.13

# Where it is set, as in many container images, each of the many processes that tests
# start would compile all modules anew.
unexport PYTHONDONTWRITEBYTECODE

BIN := $(VENV)/bin
# Python compiles what it imports, a small part of what there is to compile.
INSTALL := python -m pip install --quiet --no-compile
INSTALLED := $(VENV)/.installed
BENCH_INSTALLED := $(VENV)/.installed-bench
ORACLE_REQUIREMENTS := tests/parity/oracle_requirements.txt
ORACLE_INSTALLED := $(ORACLE_VENV)/.installed

.PHONY: demo test test-slow test-pythons test-oracle test-seconds artefacts lint format \
  install install-bench install-oracle clean

install: $(INSTALLED)

$(INSTALLED): setup.py u2net_tf/runtime.txt
	$(PYTHON) -c "import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14) and 'Python 3.10 to 3.13 is needed; name one with make PYTHON=...')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/$(INSTALL) --editable ".[dev]"
	touch $@

install-bench: $(BENCH_INSTALLED)

$(BENCH_INSTALLED): $(INSTALLED)
	$(BIN)/$(INSTALL) --editable ".[dev,bench,browser]"
	touch $@

install-oracle: $(ORACLE_INSTALLED)

# The stamp comes last, so that a half-built environment is not taken for a whole one.
$(ORACLE_INSTALLED): $(ORACLE_REQUIREMENTS)
	@$(ORACLE_PYTHON) -c "import sys; sys.exit(sys.version_info[:2] != (3, 11))" || { \
	  echo "tensorflow-addons needs Python 3.11, and $(ORACLE_PYTHON) is none; name one with make test-oracle ORACLE_PYTHON=..." >&2; exit 1; }
	rm -f $@
	$(ORACLE_PYTHON) -m venv $(ORACLE_VENV)
	$(ORACLE_VENV)/bin/$(INSTALL) --requirement $(ORACLE_REQUIREMENTS)
	TF_CPP_MIN_LOG_LEVEL=3 $(ORACLE_VENV)/bin/python -W ignore -c "import tensorflow_addons"
	touch $@

demo: install
	$(BIN)/python -m tools.demo --output_dir=$(DEMO) $(if $(RAW),--raw_dir=$(RAW))

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy

# A file's tests stay together, for they share what they trained, and the files that take
# longest come first (tests/conftest.py). A worker that is killed, as for want of memory,
# ends all: restarted, it would hang.
PYTEST := $(BIN)/python -m pytest --numprocesses=$(JOBS) --dist=loadfile \
  --no-loadscope-reorder --max-worker-restart=0

test: lint
	$(PYTEST)

# PyTorch and MONAI, which benchmarks run beside ours, and what drives a browser, are
# needed by slow tests only.
test-slow: install-bench
	$(PYTEST) -m "" --cov --cov-report=term:skip-covered

# The order in which `make test` takes the files.
test-seconds: install
	$(PYTEST) --record-seconds

test-pythons:
	@tested=0; for version in $(PYTHONS); do \
	  if python$$version -c "" 2>/dev/null; then \
	    echo "Python $$version"; \
	    $(MAKE) --no-print-directory test PYTHON=python$$version VENV=$(VENV)-$$version || exit 1; \
	    tested=$$((tested + 1)); \
	  else \
	    echo "Python $$version: not tested, there is no python$$version here"; \
	  fi; \
	done; echo "$$tested Python versions tested"; [ $$tested -gt 0 ]

# One file of each format, as this version writes it: see the script.
artefacts: install
	$(BIN)/python tests/artefacts/make_artefacts.py

test-oracle: install install-oracle
	U2NET_ORACLE_PYTHON=$(abspath $(ORACLE_VENV))/bin/python $(BIN)/python -m pytest tests/parity/test_oracle.py

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(VENV)-3.* $(ORACLE_VENV) demo build *.egg-info .pytest_cache .ruff_cache .mypy_cache .coverage*
