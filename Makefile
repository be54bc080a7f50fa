# Tiptoe's tasks. Every target sets up what it needs: `make demo` or `make test` on a fresh clone is enough.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2
BOARD ?= ecpix5
OPTIONS = $(if $(MEMORY),--memory $(MEMORY)) $(if $(CPU),--cpu $(CPU))
STAMP := $(VENV)/.ready-$(shell cat pyproject.toml requirements.lock | cksum | cut -d' ' -f1)
DOCS := $(VENV)/.docs-$(shell cksum < requirements-docs.lock | cut -d' ' -f1)

define need
command -v $(1) >/dev/null || { echo "error: $(1) not found: install it first ($(2))" >&2; exit 1; }
endef

.PHONY: help setup compiler demo test bench synth wheel boards netlist bitstream load soak mutants docs pictures links lint format check lock clean distclean

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: $(STAMP) ## virtual environment with pinned packages
	@:

$(STAMP): pyproject.toml requirements.lock
	@$(call need,$(PYTHON),Debian: apt-get install python3 python3-venv)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $(PYTHON) is $$($(PYTHON) -V 2>&1), but Tiptoe needs 3.11 or later: use make PYTHON=python3.x" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "error: $(PYTHON) cannot make virtual environments: install python3-venv" >&2; exit 1; }
	@$(call need,g++,Debian: apt-get install g++)
	@$(call need,perl,Debian: apt-get install perl)
	@echo "setup: virtual environment in $(VENV), the packages of requirements.lock (half a minute)"
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps -r requirements.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps -e .
	@rm -f $(VENV)/.ready-*; touch $@

compiler: setup ## the C compiler for a board's processor: zig, 100 MB of the package index
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps $$(sed -n 's/^compiler = \["\(.*\)"\]/\1/p' pyproject.toml)
	@$(BIN)/python -m ziglang version

demo: setup ## build the simulated engine and carry real traffic over it
	@$(BIN)/tiptoe demo

test: setup lint ## everything that proves it, under 20 minutes on two cores
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup $(ARGS)

bench: setup ## figures in cycles, with their theoretical bounds (build/bench.json)
	@$(BIN)/tiptoe bench

synth: setup ## place and route for ECP5 against the baseline (build/synth.json); TARGET=xcup, xc7, gowin, ecp5 or all: synthesis only
	@$(BIN)/python -m tiptoe_verif.synth $(if $(TARGET),--target $(TARGET),--all --baseline --jobs $(JOBS)) $(BLOCKS)

wheel: setup ## the package as build/dist/*.whl: pip install that, and tiptoe runs without this checkout
	@$(BIN)/python -m pip wheel -q --disable-pip-version-check --no-deps -w build/dist .
	@ls build/dist/*.whl

boards: setup ## the boards there are, and what of each was verified how
	@$(BIN)/python -m tiptoe_board.commands boards

netlist: setup ## BOARD=name [MEMORY=ddr3|block|small] [CPU=vexriscv]: a board's netlist (10 minutes)
	@$(BIN)/python -m tiptoe_board.commands netlist $(BOARD) $(OPTIONS)

bitstream: setup ## BOARD=name [MEMORY=ddr3|block|small] [CPU=vexriscv]: its bitstream and a report (an hour)
	@$(BIN)/python -m tiptoe_board.commands bitstream $(BOARD) $(OPTIONS)

load: setup ## BOARD=name [CPU=vexriscv]: load the bitstream with openFPGALoader
	@$(BIN)/python -m tiptoe_board.commands load $(BOARD) $(if $(CPU),--cpu $(CPU))

soak: setup ## long seeded runs
	@$(BIN)/python -m pytest -n $(JOBS) -m soak --timeout 7200 $(ARGS)

mutants: setup ## break the driver, a row of the contract at a time: a test must notice
	@$(BIN)/python -m tiptoe_verif.mutants $(ROWS)

docs: $(DOCS) ## the pages as a site: build/docs/index.html; warnings are errors, so are pictures that have drifted (1 minute)
	@$(BIN)/python docs/pictures.py --check
	@rm -rf build/docs && $(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs
	@echo "docs: build/docs/index.html"

pictures: $(DOCS) ## draw the pictures of docs/ anew: blocks from the design, timing diagrams from a simulation
	@$(BIN)/python -m tests.timings.page
	@$(BIN)/python docs/pictures.py

links: $(DOCS) ## the pages' links to other sites: needs a network
	@$(BIN)/python -m sphinx -q -b linkcheck -d build/docs/.doctrees docs build/links

$(DOCS): requirements-docs.lock | setup
	@echo "setup: the packages of requirements-docs.lock"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps -r requirements-docs.lock
	@rm -f $(VENV)/.docs-*; touch $@

lint: setup ## ruff (rules and layout), mypy, layers and circles of imports
	@$(BIN)/ruff check --quiet --output-format concise .
	@$(BIN)/ruff format --check --quiet . || { echo "error: not laid out as ruff does it: make format" >&2; $(BIN)/ruff format --check . >&2; exit 1; }
	@echo "ruff: clean"
	@$(BIN)/mypy
	@found=$$($(BIN)/lint-imports --no-cache --no-logo 2>&1) || { echo "$$found" >&2; exit 1; }
	@echo "imports: clean"

format: setup ## let ruff lay out and fix the code
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

check: test docs bench synth ## everything that has to pass: test, docs, bench and synth

lock: ## resolve pyproject.toml anew and write requirements.lock and requirements-docs.lock
	@rm -rf build/lock && $(PYTHON) -m venv build/lock
	@build/lock/bin/pip install -qq --disable-pip-version-check -e '.[dev]'
	@{ echo '# Exact versions that `make setup` installs. Regenerate with `make lock` after changing pyproject.toml.'; \
	   build/lock/bin/pip freeze --exclude-editable; } > requirements.lock
	@build/lock/bin/pip install -qq --disable-pip-version-check -e '.[dev,docs]'
	@{ echo '# What `make docs` installs besides requirements.lock. Regenerate with `make lock`.'; \
	   build/lock/bin/pip freeze --exclude-editable | grep -vxFf requirements.lock; } > requirements-docs.lock && rm -rf build/lock

clean: ## remove build results
	@rm -rf build .pytest_cache .ruff_cache .mypy_cache

distclean: clean ## remove build results and the virtual environment
	@rm -rf $(VENV)
