# Every target sets itself up: Python 3.11 or newer and make are all that is needed.
#   make test PYTHON=python3.13 VENV=.venv-3.13     another Python, beside the first
#   make test WORKERS=0                             all tests in one process
PYTHON ?= python3 python3.13 python3.12 python3.11
VENV ?= .venv
WORKERS ?= auto
KEEP ?=
QUICK ?=
BASE ?=

RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
BENCH := $(VENV)-bench
BENCH_READY := $(BENCH)/.ready

.PHONY: help setup test test-all check format demo bench bench-compare clean
.DEFAULT_GOAL := help

help: ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1	\2/p' $(MAKEFILE_LIST) | expand -t 14

demo: $(READY) ## the whole job on this machine, shown in a table (KEEP=1: leave the servers running)
	@exec $(RUN) examples/demo.py $(if $(filter-out 0,$(KEEP)),--keep)

test: $(READY) ## every test, with branch coverage of the package
	$(RUN) -m pytest -n $(WORKERS) --dist worksteal --cov

test-all: test ## every test, and those of the clients that need an environment of their own
	$(RUN) -m nox --session apart

check: $(READY) ## lint, format, types, architecture
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(RUN) -m pyright --pythonpath $(RUN)
	$(VENV)/bin/lint-imports

format: $(READY) ## rewrite the code as `make check` wants it
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

bench: $(BENCH_READY) ## the benchmarks, beside the peers, into bench-results/ (QUICK=1: rough, within two minutes)
	$(BENCH)/bin/python -m benchmarks $(if $(filter-out 0,$(QUICK)),--quick)

bench-compare: $(BENCH_READY) ## the hot paths of this tree against those of another revision: BASE=<revision>
	$(BENCH)/bin/python -m benchmarks.compare $(if $(filter-out 0,$(QUICK)),--quick) "$(BASE)"

setup: $(READY) ## only the environment

clean: ## remove the environment and all caches
	rm -rf $(VENV) $(BENCH) bench-results .coverage .coverage.* .hypothesis .nox .import_linter_cache .mypy_cache .pytest_cache .ruff_cache dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Hashes are asked for all that is downloaded; the package itself is built by the pinned hatchling, with nothing else downloaded.
install = -m pip install --quiet --disable-pip-version-check --require-hashes
install_package = -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .

$(READY): requirements/dev.txt requirements/openai-2.txt pyproject.toml
	@$(call make_environment,$(VENV))
	@$(RUN) $(install) --requirement requirements/dev.txt
	@rm -rf $(VENV)/openai-2
	@$(RUN) $(install) --no-deps --target $(VENV)/openai-2 --requirement requirements/openai-2.txt
	@$(RUN) $(install_package)
	@touch $@

# An environment of its own: some of the peers change what others install when they are imported.
$(BENCH_READY): requirements/bench.txt pyproject.toml
	@$(call make_environment,$(BENCH))
	@$(BENCH)/bin/python $(install) --requirement requirements/bench.txt
	@$(BENCH)/bin/python $(install_package)
	@touch $@

define make_environment
if $(1)/bin/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then exit 0; fi; \
for python in $(PYTHON); do \
  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
    echo "Setting up $(1) with $$("$$python" --version)"; exec "$$python" -m venv $(1); \
  fi; \
done; \
echo "Python 3.11 or newer is needed, and none of these is one: $(PYTHON)." >&2; \
echo "Name yours: make PYTHON=/path/to/python3.12" >&2; exit 1
endef
