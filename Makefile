# Everything happens in .venv and .venvs here; nothing outside this folder is changed.

# A Python 3.11 or newer with venv. It is found automatically; choose another with: make demo PYTHON=/path/to/python3.12
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
	"$$p" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
# The PyTorch that pip installs, with options: the only dependency that is not locked, because its build depends on the machine.
# Used only when .venv is made; `make clean` to choose again.
TORCH ?= torch==2.13.0
# The major version of the OpenAI SDK in .venv, also used only when .venv is made.
OPENAI ?= 3
# Passed on to pytest: make test ARGS="-k stream"
ARGS ?=
# Tests that run at once. Most of them wait for processes that they start; more than the cores is too many.
WORKERS ?= 2

BIN := .venv/bin
# The theme advises on every build against MkDocs 2, which the lock rules out.
MKDOCS := NO_MKDOCS_2_WARNING=1 .venvs/docs/bin/python -m mkdocs
FRAMEWORKS := $(patsubst tests/frameworks/locks/%.txt,%,$(sort $(wildcard tests/frameworks/locks/*.txt)))
# Python compiles what it imports; compiling all of torch and transformers ahead takes half a minute. Images of containers
# like to forbid that it keeps this, and then every process compiles torch again: 5 seconds instead of 1, hundreds of times.
unexport PYTHONDONTWRITEBYTECODE
PIP := -m pip --disable-pip-version-check install --no-compile
PIP_INSTALL := $(BIN)/python $(PIP)
# Locks name every distribution with its version and hashes, so nothing is resolved and nothing else gets in.
LOCKED := --quiet --no-deps --require-hashes --requirement
EDITABLE := --quiet --no-deps --no-build-isolation --editable .

.DEFAULT_GOAL := help
.PHONY: help install demo frameworks verl-cpu test test-dashboard test-seam-openai2 test-hosts test-trackers \
	test-frameworks test-verl test-vllm test-models test-newest check docs docs-serve format bench locks clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo '  PYTHON=...            the Python to use (3.11 or newer)'
	@echo '  TORCH=...             the PyTorch to install, as pip is told it (default: $(TORCH))'
	@echo '  OPENAI=...            the major version of the OpenAI SDK, 2 or 3 (default: $(OPENAI))'

install: .venv/.installed-dev  ## make .venv with everything needed to work on this repository

demo: .venv/.installed  ## install what is needed, then train the calculator agent on this machine's CPU
	$(BIN)/python examples/calculator/agent.py

test: .venv/.installed-dev  ## run all tests except those of frameworks, VERL, vLLM and the page in a browser
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

test-dashboard: .venv/.installed-dev build/docs/index.html  ## open the dashboard and the documentation in a browser, which has to be installed (Debian: apt install chromium)
	LIGHTNING_TEST_BROWSER=required $(BIN)/python -m pytest $(or $(ARGS),tests/dashboard)

test-seam-openai2: .venvs/openai2-seam/.installed  ## run the tests of the OpenAI seam with openai 2
	.venvs/openai2-seam/bin/python -m pytest $(or $(ARGS),tests/sdk/test_openai_seam.py tests/sdk/test_openai_clients.py \
		tests/sdk/test_engine_transport.py)

test-hosts: .venvs/hosts/.installed  ## run inside gunicorn, Celery and Jupyter, and together with Sentry, Logfire and Datadog
	.venvs/hosts/bin/python -m pytest $(or $(ARGS),tests/hosts)

test-trackers: .venvs/trackers/.installed  ## log runs to the real W&B, MLflow, Trackio and TensorBoard, offline
	.venvs/trackers/bin/python -m pytest $(or $(ARGS),tests/trackers)

test-newest: .venv/.installed-dev  ## show in one table what works with the newest releases, and what breaks
	$(BIN)/python tests/locks/newest.py --torch '$(TORCH)' --workers $(WORKERS) $(ARGS)

frameworks: $(FRAMEWORKS:%=.venvs/%/.installed)  ## make an environment of agent frameworks for each list in tests/frameworks/locks

test-frameworks: .venv/.installed $(FRAMEWORKS:%=test-%)  ## run the tests of the frameworks in each of their environments

frameworks-ends: .venv/.installed-dev .venvs/uv/.installed  ## test the lowest and the newest release of each framework that integrations allow
	$(BIN)/python tests/frameworks/gate_ends.py $(ARGS)

# Hub and engine of these tests run in .venv.
$(FRAMEWORKS:%=test-%): test-%: .venv/.installed .venvs/%/.installed
	.venvs/$*/bin/python -m pytest $(or $(ARGS),tests/frameworks)

verl-cpu: .venvs/verl/.installed  ## make an environment with VERL and vLLM for the CPU

# Agents of these tests run in .venv, as they would run where there is no VERL.
test-verl: .venv/.installed .venvs/verl/.installed  ## compare our algorithms with VERL's, and train on it
	.venvs/verl/bin/python -m pytest $(or $(ARGS),tests/verl)

test-vllm: .venv/.installed .venvs/verl/.installed  ## serve and train with a real vLLM
	.venvs/verl/bin/python -m pytest $(or $(ARGS),tests/vllm)

test-models: .venv/.installed .venvs/verl/.installed  ## train tiny models of many architectures on VERL and on vLLM
	.venvs/verl/bin/python -m pytest $(or $(ARGS),tests/models)

check: .venv/.installed-dev  ## lint, formatting, strict types, architecture and documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/architecture tests/docs

docs: .venvs/docs/.locked  ## build the documentation site into build/docs; a warning is an error
	$(MKDOCS) build

docs-serve: .venvs/docs/.locked  ## show the site at http://127.0.0.1:8000, and again when a page changes
	$(MKDOCS) serve

build/docs/index.html: | .venvs/docs/.locked
	$(MKDOCS) build

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

# uv reads neither pip's settings nor a lock that it is about to replace; pip checks the hashes when it installs.
UV_COMPILE = .venvs/uv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header
WITHOUT_TORCH = awk '/^[^ ]/ { keep = !/^(torch==|triton==|nvidia-|cuda-)/ } keep'

locks: .venvs/uv/.installed  ## write locks/ again: the newest that pyproject.toml allows, for Python 3.11 to 3.13
	$(UV_COMPILE) --extra train --extra examples --group dev pyproject.toml | $(WITHOUT_TORCH) > locks/dev.new
	$(UV_COMPILE) --extra train --extra examples --group build --constraint locks/dev.new pyproject.toml \
		| $(WITHOUT_TORCH) > locks/demo.new
	awk '/==/ && !/^openai==/ { sub(/ *\\$$/, ""); print }' locks/dev.new > locks/constraints.new
	echo 'openai>=2.20,<3' | $(UV_COMPILE) --constraint locks/constraints.new - > locks/openai2.new
	sed -i '/^opentelemetry-/d' locks/constraints.new  # each instrumentation asks for one version of it
	$(UV_COMPILE) --extra hub --group hosts --constraint locks/constraints.new pyproject.toml > locks/hosts.new
	$(UV_COMPILE) --group docs --constraint locks/constraints.new > locks/docs.new
	$(UV_COMPILE) --extra hub --group trackers pyproject.toml > locks/trackers.new
	rm locks/constraints.new
	for name in dev demo openai2 hosts docs trackers; do mv locks/$$name.new locks/$$name.txt; done

clean:  ## remove all environments and caches; runs are kept
	rm -rf .venv .venvs .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venvs/uv/.installed:
	$(call fresh,uv)
	.venvs/uv/bin/python $(PIP) --quiet uv
	@touch $@

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

.venv/.installed: .venv/.torch pyproject.toml locks/demo.txt locks/openai2.txt
	@echo 'Installing Lightning SDK and what the example needs.'
	$(PIP_INSTALL) $(LOCKED) locks/demo.txt
	$(if $(filter 2,$(OPENAI)),$(PIP_INSTALL) $(LOCKED) locks/openai2.txt)
	$(PIP_INSTALL) $(EDITABLE)
	@touch $@

.venv/.installed-dev: .venv/.installed locks/dev.txt
	@echo 'Installing the tools for tests and checks.'
	$(PIP_INSTALL) $(LOCKED) locks/dev.txt
	$(if $(filter 2,$(OPENAI)),$(PIP_INSTALL) $(LOCKED) locks/openai2.txt)
	@touch $@

# These tests need no torch, and torch is most of an environment.
.venvs/openai2-seam/.locked: locks/dev.txt locks/openai2.txt
	$(call fresh,openai2-seam)
	@echo 'Installing what the tests of the SDK need, with openai 2.'
	.venvs/openai2-seam/bin/python $(PIP) $(LOCKED) locks/dev.txt
	.venvs/openai2-seam/bin/python $(PIP) $(LOCKED) locks/openai2.txt
	@touch $@

# Nor do those of what agents live in and beside, those of trackers, and the documentation.
.venvs/hosts/.locked .venvs/trackers/.locked .venvs/docs/.locked: .venvs/%/.locked: locks/%.txt
	$(call fresh,$*)
	@echo 'Installing what is listed in $<.'
	.venvs/$*/bin/python $(PIP) $(LOCKED) $<
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
	.venvs/$*/bin/python $(PIP) $(EDITABLE)
	@touch $@

.PRECIOUS: .venvs/%/.locked
