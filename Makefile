# The two targets to start with: `make demo` and `make test`.  `make` alone lists all.
#
# Everything lives in .venv; nothing is installed outside of it, but for the distribution's packages that the tests
# compare with (tests/packages.txt), which `make test` installs when it may.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WHEELS := core extensions/sdk extensions/ostree extensions/oci
# What an editable install copies rather than links: metadata, launchers, manifests.
COPIED := $(WHEELS:%=%/pyproject.toml) $(wildcard extensions/*/libexec/composefs/ext/*)
# Further arguments: make test ARGS="tests/unit -k dump", make bench ARGS=--json, make bench SCALE=0.1
ARGS ?=
SCALE ?= 1
FUZZ ?= 10000
# The distribution's, where it has one: the peers are the distribution's programs, and a Python that was built by hand is
# often not optimized.
BENCH_PYTHON ?= $(firstword $(wildcard /usr/bin/python3) $(PYTHON))
# As installing a package does: a confined extension cannot keep what Python compiles of a checkout.
COMPILE := $(BIN)/python -m compileall -q $(WHEELS:%=%/src)
# One process more than there are processors, because many tests wait for what they started: with as many, two processors
# are idle for a third of the time.  Who has none left takes tests from the others: handed out by the hundred, the slow ones
# kept one process busy for eight minutes when the rest was done.
PARALLEL ?= -n $(shell expr $$(nproc) + 1) --maxprocesses 4 --dist worksteal

# What the environment, or pip's settings, say of other installations: packages found or put there would be missing here.
unexport PYTHONHOME PYTHONPATH PIP_PREFIX PIP_TARGET
export PIP_USER := 0

.DEFAULT_GOAL := help
.PHONY: help setup demo test faults fuzz lint format docs bench clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

setup: $(VENV)/.done ## build .venv with cfsctl, mkcomposefs and the developer's tools

$(VENV)/.done: $(COPIED) requirements-dev.txt
	@# A Python that is too old is told of before it makes an environment, which a newer one would not take over.
	@{ $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' && $(PYTHON) -m venv $(VENV); } || \
		{ echo "make setup needs Python 3.11 or later with venv: apt-get install python3-venv" >&2; exit 1; }
	@echo "Installing into $(VENV) …"
	@$(BIN)/pip install --quiet --disable-pip-version-check $(WHEELS:%=-e %) -r requirements-dev.txt
	@$(COMPILE)
	@touch $@

demo: setup ## pull a small ostree repository over HTTP, look at it, mount it
	@PATH="$(abspath $(BIN)):$$PATH" samples/demo.sh

test: setup ## run all tests
	@tests/install-packages
	@$(BIN)/pytest $(PARALLEL) $(ARGS)

faults: setup ## make each call that changes a repository fail; the table goes to docs/reliability.md
	@tests/install-packages
	@$(BIN)/python tests/faults/sweep.py --report docs/reliability.md $(ARGS)

fuzz: setup ## read 10,000 damaged images (FUZZ=N for another number)
	@COMPOSEFS_FUZZ=$(FUZZ) $(BIN)/pytest tests/fuzz $(ARGS)

lint: setup ## check style and types
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

format: setup ## put the source into the form that lint wants
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

docs: setup ## write docs/commands.md anew
	@$(BIN)/python docs/make_commands.py

bench: ## compare with ostree side by side (SCALE=0.1 for a tenth of the files)
	@tests/install-packages
	@$(MAKE) --no-print-directory setup VENV=.bench/venv PYTHON=$(BENCH_PYTHON)
	@.bench/venv/bin/python benchmarks/run.py --scale $(SCALE) $(ARGS)

clean: ## remove what the other targets made
	rm -rf $(VENV) .bench .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
