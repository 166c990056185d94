# make demo              the whole pipeline on synthetic scans, in a few minutes
# make demo RAW=DIR      the same on your own scans (folders in MSD layout)
# make test              lint and tests, in three processes (JOBS=3)
# make test-slow         all tests, including slow ones, with branch coverage
# make test-pythons      make test with every supported Python that is installed
# make test-seconds      tests, recording how long each test file takes
# make artefacts         one file of each format as this version writes it, for its tests
# make test-oracle       tests against tensorflow-addons, which runs in its own Python 3.11
PYTHON ?= python3
VENV   ?= .venv
ORACLE_PYTHON ?= python3.11
ORACLE_VENV   ?= .venv-oracle
# More than cores: tests of commands and of signals wait for other processes.
JOBS   ?= 3
# Slow tests compile large networks: a worker needs up to 8 GB.
SLOW_JOBS ?= 2
RAW    ?=
DEMO   ?= $(if $(RAW),demo_own,demo)

# Versions that are not installed are reported and skipped.
PYTHONS ?= 3.10 3.11 3.12 3.13

# Many container images set it; each of the many processes that tests start would then
# compile all modules again.
unexport PYTHONDONTWRITEBYTECODE

BIN := $(VENV)/bin
# Python compiles modules when it imports them, and imports only a few of them.
INSTALL := python -m pip install --quiet --no-compile
INSTALLED := $(VENV)/.installed
BENCH_INSTALLED := $(VENV)/.installed-bench
ORACLE_REQUIREMENTS := tests/parity/oracle_requirements.txt
ORACLE_INSTALLED := $(ORACLE_VENV)/.installed

.PHONY: demo test test-slow test-pythons test-oracle test-seconds artefacts lint format \
  install install-bench install-oracle clean

install: $(INSTALLED)

$(INSTALLED): setup.py u2net_tf/runtime.txt
	$(PYTHON) -c "import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14) and 'Python 3.10 to 3.13 is required; choose one with make PYTHON=...')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/$(INSTALL) --editable ".[dev]"
	touch $@

install-bench: $(BENCH_INSTALLED)

$(BENCH_INSTALLED): $(INSTALLED)
	$(BIN)/$(INSTALL) --editable ".[dev,bench,browser]"
	touch $@

install-oracle: $(ORACLE_INSTALLED)

# The stamp comes last, so that an incomplete environment is built again.
$(ORACLE_INSTALLED): $(ORACLE_REQUIREMENTS)
	@$(ORACLE_PYTHON) -c "import sys; sys.exit(sys.version_info[:2] != (3, 11))" || { \
	  echo "tensorflow-addons needs Python 3.11, which $(ORACLE_PYTHON) is not; choose one with make test-oracle ORACLE_PYTHON=..." >&2; exit 1; }
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

# The tests of a file stay together because they share trained models, and the slowest
# files come first (tests/conftest.py). A worker that is killed, for example for lack of
# memory, ends the run: if it were restarted, it would hang.
PYTEST := $(BIN)/python -m pytest --numprocesses=$(JOBS) --dist=loadfile \
  --no-loadscope-reorder --max-worker-restart=0

test: lint
	$(PYTEST)

# Only slow tests need PyTorch and MONAI, with which the benchmarks compare, and what
# drives a browser.
test-slow: install-bench
	$(PYTEST) --numprocesses=$(SLOW_JOBS) -m "" --cov --cov-report=term:skip-covered

# Determines the order in which `make test` runs the files.
test-seconds: install
	$(PYTEST) --record-seconds

test-pythons:
	@tested=0; for version in $(PYTHONS); do \
	  if python$$version -c "" 2>/dev/null; then \
	    echo "Python $$version"; \
	    $(MAKE) --no-print-directory test PYTHON=python$$version VENV=$(VENV)-$$version || exit 1; \
	    tested=$$((tested + 1)); \
	  else \
	    echo "Python $$version: not tested, python$$version is not installed"; \
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
