# Everything here sets itself up: the first time in minutes, the second in seconds.
#   make run      set up and start Parkway            make test    set up and run the whole test suite
#   make check    lint, types, import rules           make bench   list the benchmarks
#   make setup    only what running needs             make lock    write the exact pins anew
# Without a GPU, TORCH_FROM='--index-url https://download.pytorch.org/whl/cpu' takes a torch that is gigabytes smaller.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
ARGS ?=
TORCH_FROM ?=
SHELL := bash

.PHONY: run test check bench setup setup-dev servers lock

run: setup
	$(BIN)/parkway up $(ARGS)

test: setup-dev servers
	$(if $(ARGS),$(BIN)/python -m pytest $(ARGS),tools/test)

check: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright

bench:
	@sed -ns '1s|"""||gp' bench/[a-z]*.py | paste <(ls bench/[a-z]*.py | sed 's|bench/\(.*\).py|  $(BIN)/python -m bench.\1|') -

setup: $(VENV)/.run
setup-dev: $(VENV)/.dev

# The servers that tests start (PostgreSQL, nginx). Installed where that is possible: on Debian, as root.
servers:
	@tools/servers

lock: setup-dev
	tools/lock

# torch alone carries no hash here: its CPU wheel and its CUDA wheel differ in it. Its version is exact in pyproject.toml.
$(VENV)/.run: pyproject.toml constraints-run.txt tools/build_kernels.py $(wildcard src/parkway/engine/native/*.[ch])
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --no-deps $(TORCH_FROM) 'torch==2.13.0'
	$(PIP) install --no-deps --require-hashes -r constraints-run.txt
	@$(BIN)/python -c 'import torch' 2>/dev/null || { echo 'installing what the CUDA build of torch needs' && $(PIP) install 'torch==2.13.0'; }
	@tools/compiler
	$(PIP) install --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.run constraints.txt
	$(PIP) install --no-deps --require-hashes -r constraints.txt
	touch $@
