# Everything that a fresh checkout needs: Python 3.11 or later, and make.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

IS_NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
# The first Python of the right age; choose another with: make PYTHON=/path/to/python3.12 ...
CANDIDATES := python3 python3.14 python3.13 python3.12 python3.11
PYTHON ?= $(shell for python in $(CANDIDATES); do \
	$$python -c '$(IS_NEW_ENOUGH)' 2>/dev/null && echo $$python && break; done)
PIP_INSTALL := -m pip install -qq --disable-pip-version-check --no-input \
	--constraint constraints.txt

# Every command on real photographs, and the formats that it reads and writes.
SMOKE_TESTS := tests/commands tests/export/test_opening.py tests/graph/test_reading.py \
	tests/inference/test_embeddings.py tests/index/test_update.py \
	tests/index/test_duplicates.py tests/photographs/test_decoding.py

# Make's own lists cannot hold names with spaces; there are none in the package.
PACKAGE := $(shell find alexnet_deploy -type f ! -name '*.pyc')

.PHONY: help demo test floors gpu-check clean check-python check-version

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' Makefile

demo: .venv/installed ## set up .venv and run every main command on the sample photographs
	@PATH="$(CURDIR)/.venv/bin:$$PATH" tools/demo.sh

test: .venv-dev/installed ## set up .venv-dev and run the linters, the type checker and the tests
	.venv-dev/bin/ruff check
	.venv-dev/bin/ruff format --check
	.venv-dev/bin/mypy
	.venv-dev/bin/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

# torch and matplotlib are left out: they are for the trainer, and their floors' wheels bring CUDA.
floors: | check-python ## run the smoke tests with the oldest packages that pyproject.toml allows
	rm -rf .venv-floors
	$(PYTHON) -m venv .venv-floors
	.venv-floors/bin/python -m pip install -qq --disable-pip-version-check packaging
	.venv-floors/bin/python tools/floors.py cpu parquet photos duplicates > .venv-floors/floors.txt
	.venv-floors/bin/python -m pip install -qq --disable-pip-version-check --no-input \
		--constraint .venv-floors/floors.txt --editable '.[cpu,parquet,photos,duplicates]' pytest hypothesis
	.venv-floors/bin/python -m pytest -q $(SMOKE_TESTS)

gpu-check: | check-version ## run all that needs an NVIDIA GPU (ONLY=NAMES, WHEELS=DIR, PHOTOGRAPHS=DIR)
	$(PYTHON) tools/gpu_check.py $(if $(ONLY),--only '$(ONLY)') \
		$(if $(WHEELS),--wheels '$(WHEELS)') \
		$(if $(PHOTOGRAPHS),--photographs '$(PHOTOGRAPHS)')

clean: ## remove the environments, the demo's files and all caches
	rm -rf .venv .venv-dev .venv-floors demo build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The demo runs the package as it is installed elsewhere, so it is installed again when it changes.
.venv/installed: pyproject.toml constraints.txt README.md LICENSE $(PACKAGE) | check-python
	$(call create,.venv)
	@.venv/bin/python $(PIP_INSTALL) '.[cpu]'
	@touch $@

.venv-dev/installed: pyproject.toml constraints.txt | check-python
	$(call create,.venv-dev)
	@.venv-dev/bin/python $(PIP_INSTALL) --editable '.[cpu,parquet,photos,duplicates,train,dev]'
	@touch $@

define create
	@echo 'installing into $(1) (the first time this takes a few minutes) ...'
	@$(PYTHON) -m venv $(1)
endef

check-version:
	@if ! '$(PYTHON)' -c '$(IS_NEW_ENOUGH)' 2>/dev/null; then \
		echo 'Python 3.11 or later is needed, and none of these is: $(or $(PYTHON),$(CANDIDATES))'; \
		echo 'install one, or name one: make PYTHON=/path/to/python3.12 ...'; \
		exit 1; \
	fi >&2

# Of what makes environments, which gpu-check does not.
check-python: check-version
	@if ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
		echo "$(PYTHON) cannot make environments: its modules venv and ensurepip are missing"; \
		echo 'on Debian and Ubuntu: apt-get install python3-venv'; \
		exit 1; \
	fi >&2
