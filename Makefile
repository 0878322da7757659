# Everything happens in .venv and .venvs here; nothing outside this folder is changed.

# A Python 3.11 or newer with venv. Found by itself; choose with: make demo PYTHON=/path/to/python3.12
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
	"$$p" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
# What pip is asked for as PyTorch, with options. Looked at once, when .venv is made; `make clean` to choose again.
TORCH ?= torch==2.13.0
# Passed on to pytest: make test ARGS="-k stream"
ARGS ?=
# Tests that run at once. Most of them wait for processes that they start; more than the cores is too many.
WORKERS ?= 2

BIN := .venv/bin
FRAMEWORKS := $(patsubst tests/frameworks/locks/%.txt,%,$(sort $(wildcard tests/frameworks/locks/*.txt)))
# Python compiles what it imports; compiling all of torch and transformers ahead takes half a minute.
PIP := -m pip --disable-pip-version-check install --no-compile
PIP_INSTALL := $(BIN)/python $(PIP)

.DEFAULT_GOAL := help
.PHONY: help install demo frameworks verl-cpu test test-frameworks test-verl test-vllm check format bench clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo '  PYTHON=...            the Python to use (3.11 or newer)'
	@echo '  TORCH=...             the PyTorch to install, as pip is told it (default: $(TORCH))'

install: .venv/.installed-dev  ## make .venv with everything for work on this repository

demo: .venv/.installed  ## install what is needed, then train the calculator agent on this machine's CPU
	$(BIN)/python examples/calculator/agent.py

test: .venv/.installed-dev  ## run the tests, without those of the frameworks, of VERL and of vLLM
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

frameworks: $(FRAMEWORKS:%=.venvs/%/.installed)  ## make an environment of agent frameworks for each list in tests/frameworks/locks

test-frameworks: .venv/.installed $(FRAMEWORKS:%=test-%)  ## run the tests of the frameworks in each of their environments

# Hub and engine of these tests run in .venv.
$(FRAMEWORKS:%=test-%): test-%: .venv/.installed .venvs/%/.installed
	.venvs/$*/bin/python -m pytest $(or $(ARGS),tests/frameworks)

verl-cpu: .venvs/verl/.installed  ## make an environment with VERL and vLLM for the CPU

# Agents of these tests run in .venv, as they would run where there is no VERL.
test-verl: .venv/.installed .venvs/verl/.installed  ## compare our algorithms with VERL's, and train on it
	.venvs/verl/bin/python -m pytest $(or $(ARGS),tests/verl)

test-vllm: .venv/.installed .venvs/verl/.installed  ## serve and train with a real vLLM
	.venvs/verl/bin/python -m pytest $(or $(ARGS),tests/vllm)

check: .venv/.installed-dev  ## lint, formatting, strict types, architecture and documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/architecture tests/docs

format: .venv/.installed-dev  ## rewrite the code in the repository's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/.installed-dev  ## run every benchmark; results go to benchmarks/results
	@mkdir -p benchmarks/results
	@set -e; for file in benchmarks/*.py; do \
		grep -q '"--json"' $$file || continue; \
		result=benchmarks/results/$$(basename $$file .py).json; \
		echo "$$file -> $$result"; \
		$(BIN)/python $$file --json > $$result.new; \
		tail -n 1 $$result.new > $$result; rm $$result.new; \
		cat $$result; \
	done

clean:  ## remove all environments and caches; runs stay
	rm -rf .venv .venvs .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# PyTorch comes first and alone, so that nothing else decides which build of it is taken.
.venv/.torch:
	@test -n "$(PYTHON)" || { echo 'No Python 3.11 or newer with venv was found. Install one (Debian and Ubuntu:' \
		'apt install python3.11 python3.11-venv), or name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("$(PYTHON) is Python " + sys.version.split()[0] + \
		"; 3.11 or newer is needed: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .venv
	@echo 'Installing $(TORCH). This is the largest download.'
	$(PIP_INSTALL) $(TORCH)
	@touch $@

.venv/.installed: .venv/.torch pyproject.toml
	@echo 'Installing Lightning SDK and what the example needs.'
	$(PIP_INSTALL) --quiet --editable '.[train,examples]'
	@touch $@

.venv/.installed-dev: .venv/.installed
	@echo 'Installing the tools for tests and checks.'
	$(PIP_INSTALL) --quiet --upgrade 'pip>=25.1'  # --group is that young
	$(PIP_INSTALL) --quiet --group dev
	@touch $@

define fresh  # an empty environment: $(call fresh,NAME)
	@test -n "$(PYTHON)" || { echo 'No Python 3.11 or newer with venv was found: make $(MAKECMDGOALS) PYTHON=...' >&2; exit 1; }
	rm -rf .venvs/$(1)
	$(PYTHON) -m venv .venvs/$(1)
endef

# openai 2 and openai 3 cannot share an environment, nor can some frameworks. Locks hold every distribution by version,
# so nothing has to be resolved; what they leave out on purpose, and how they are made, is in the .in file beside each.
.venvs/%/.locked: tests/frameworks/locks/%.txt
	$(call fresh,$*)
	@echo 'Installing the agent frameworks of $<.'
	.venvs/$*/bin/python $(PIP) --quiet --no-deps --requirement $<
	@touch $@

# VERL is of Python 3.12 at most. It is locked in the same way, with PyTorch before and alone.
.venvs/verl/.locked: tests/verl/lock/verl.txt tests/verl/lock/vllm/pyproject.toml
	$(call fresh,verl)
	@echo 'Installing $(TORCH), VERL and vLLM for the CPU.'
	.venvs/verl/bin/python $(PIP) --compile --quiet $(TORCH)
	.venvs/verl/bin/python $(PIP) --compile --quiet --no-deps --requirement $<
	.venvs/verl/bin/python $(PIP) --compile --quiet --no-deps --no-build-isolation tests/verl/lock/vllm
	@touch $@

# Integrations are found by their entry points, which an editable installation reads once.
.venvs/%/.installed: .venvs/%/.locked pyproject.toml
	.venvs/$*/bin/python $(PIP) --quiet --no-deps --no-build-isolation --editable .
	@touch $@

.PRECIOUS: .venvs/%/.locked
