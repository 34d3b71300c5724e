# Everything that a person or a machine does with a checkout. `make demo` and `make test` need root, and what
# the apt-get line in README.md installs; nothing else is taken from the system, nothing is installed outside .venv.

SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# RunAgent's own client pins a web stack of its own (fastapi, uvicorn, websockets): it never shares an environment.
COMPAT := .venv-compat
RUNAGENT := runagent==0.1.49
# Playwright carries a JavaScript runtime of 40 MiB that nothing else needs; the browser is the distribution's.
BROWSER := .venv-browser
# What `make bench` measures beside: an environment for each, because what they pin does not agree.
PEERS := .venv-peers
PEER := fastapi litserve bentoml sandlock
# A fuzzer wants its own build of everything that it watches, and has wheels for few machines.
FUZZ := .venv-fuzz
# Hashes for every file, wheels only: nothing that is fetched can run code before its hash was compared.
PIP_INSTALL := -m pip --disable-pip-version-check --quiet install --require-hashes --only-binary :all:
EDITABLE := -m pip --disable-pip-version-check --quiet install --no-deps --no-build-isolation --no-index --editable .
INSTALL := $(BIN)/python $(PIP_INSTALL)
UV ?= $(shell command -v $(BIN)/uv || command -v uv)
COMPILE = $(UV) pip compile --quiet --universal --python-version 3.11 --no-build --generate-hashes \
          --no-header --no-annotate --no-emit-index-url --no-emit-find-links $(if $(UPGRADE),--upgrade)

.DEFAULT_GOAL := help
.PHONY: help demo test compat browser runtimes frameworks fuzz timing bench guard profile growth crowd siege soak deploys causes protections lint lock clean preflight root

help:
	@echo 'make demo         serve the examples, call them, let the hostile one try to get out (root)'
	@echo 'make test         all tests; a skip that tests/skips.toml does not list is a failure (root)'
	@echo 'make compat       real RunAgent clients and a certified OpenID provider with a real daemon (root)'
	@echo 'make browser      the page at /docs in headless Chromium; keeps screenshots in build/browser (root)'
	@echo 'make runtimes     agents on every other CPython that is here, the escape suite among it (root)'
	@echo 'make frameworks   agents with LangGraph, pandas and others from the package index, in real sandboxes (root)'
	@echo 'make protections  take each protection away in turn and name the test that then fails (root)'
	@echo 'make causes       end calls and instances in every way, and print what caller, log and metrics say (root)'
	@echo 'make soak         changing load while every kind of process is killed; SECONDS=600 (root)'
	@echo 'make deploys      20 deploys, 20 rollbacks, 5 broken ones, 5 kill -9 of the supervisor, under load (root)'
	@echo 'make crowd        many callers, a thousand instances, clients that go away: figures (root)'
	@echo 'make fuzz         each parser, led by what its inputs reach; SECONDS=60 for each, PARSER=name for one'
	@echo 'make timing       ask a gateway what must look alike, and say whether a clock can tell it apart'
	@echo 'make bench        every figure that we aim at, beside others; ONLY="cold warm" for parts (root)'
	@echo 'make guard        has anything become slower? ratios and instructions against benchmarks/guard.toml (root)'
	@echo 'make profile      where the time of a call and of a start goes, stage by stage (root)'
	@echo 'make growth       latency and memory with 1, 10, 100 of everything; MOST=1000 (root)'
	@echo 'make siege        hostile clients for SECONDS=60: are limits exact, and do others notice? (root)'
	@echo 'make lint         ruff, mypy --strict, codespell, import contracts'
	@echo 'make lock         write the requirements*.lock files again; UPGRADE=1 takes the newest versions'
	@echo 'make clean        remove the .venv folders and what tools leave in the tree'

demo: root $(VENV)/.runtime
	@$(BIN)/python examples/demo.py

test: root $(VENV)/.dev $(COMPAT)/.runagent
	@RUNAGENTD_MUST_RUN=1 .ci/own-cgroup $(BIN)/python -m tests --quiet --durations=15

compat: root $(VENV)/.dev $(COMPAT)/.runagent
	@RUNAGENTD_MUST_RUN=1 $(BIN)/python -m pytest --quiet tests/compat
	@$(BIN)/python -m tests.compat.rust
	@$(BIN)/python -m tests.compat.oidc

browser: root $(BROWSER)/.playwright
	@command -v chromium >/dev/null || { echo 'make browser: chromium is missing; apt-get install chromium'; exit 1; }
	@RUNAGENTD_MUST_RUN=1 .ci/own-cgroup $(BROWSER)/bin/python -m pytest --quiet tests/browser

runtimes: root $(VENV)/.dev
	@RUNAGENTD_MUST_RUN=1 .ci/own-cgroup $(BIN)/python -m tests.runtimes

frameworks: root $(VENV)/.dev
	@RUNAGENTD_MUST_RUN=1 .ci/own-cgroup $(BIN)/python -m pytest --quiet tests/frameworks/test_*.py tests/frameworks/more

protections: root $(VENV)/.dev
	@.ci/own-cgroup $(BIN)/python -m tests.protections

crowd: root $(VENV)/.dev
	@$(BIN)/python -m benchmarks.crowd

causes: root $(VENV)/.dev
	@.ci/own-cgroup $(BIN)/python -m tests.causes

soak: root $(VENV)/.dev
	@.ci/own-cgroup $(BIN)/python -m tests.soak --seconds $(or $(SECONDS),600)

deploys: root $(VENV)/.dev
	@.ci/own-cgroup $(BIN)/python -m tests.deploys

fuzz: $(FUZZ)/.atheris
	@$(FUZZ)/bin/python -m tests.fuzz --seconds $(or $(SECONDS),60) --parser '$(PARSER)'

timing: $(VENV)/.dev
	@$(BIN)/python -m tests.timing

bench: root $(VENV)/.runtime $(PEERS)
	@$(BIN)/python -m benchmarks $(if $(ONLY),--only $(ONLY))

guard: root $(VENV)/.runtime
	@$(BIN)/python -m benchmarks.guard

profile: root $(VENV)/.dev
	@$(BIN)/python -m benchmarks.profile

growth: root $(VENV)/.runtime
	@$(BIN)/python -m benchmarks.growth --most $(or $(MOST),100)

siege: root $(VENV)/.runtime
	@$(BIN)/python -m benchmarks.siege --seconds $(or $(SECONDS),60)

lint: $(VENV)/.dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/codespell
	@$(BIN)/lint-imports --no-cache --show-timings

lock:
	@test -n '$(UV)' || { echo 'make lock: uv is missing; install it: $(PYTHON) -m pip install uv'; exit 1; }
	@$(COMPILE) pyproject.toml --group build --output-file requirements.lock
	@$(COMPILE) pyproject.toml --group build --group dev --constraint requirements.lock \
	    --output-file requirements-dev.lock
	@for peer in $(PEER); do \
	    $(COMPILE) --group peer-$$peer --output-file benchmarks/locks/$$peer.lock || exit 1; done
	@$(COMPILE) pyproject.toml --group build --group dev --group browser --constraint requirements-dev.lock \
	    --output-file requirements-browser.lock
	@$(COMPILE) pyproject.toml --group build --group fuzz --constraint requirements.lock \
	    --output-file requirements-fuzz.lock
	@echo '$(RUNAGENT)' | $(COMPILE) - --output-file requirements-compat.lock
	@for folder in tests/frameworks/agents/*/; do test ! -e $$folder/requirements.in || \
	    $(filter-out --generate-hashes,$(COMPILE)) $$folder/requirements.in --output-file $$folder/requirements.txt || \
	    exit 1; done

clean:
	@rm -rf $(VENV) $(COMPAT) $(BROWSER) $(FUZZ) $(PEERS) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ---- the virtual environments: one stamp for each lock

preflight:
	@.ci/preflight '$(PYTHON)'

root:
	@.ci/preflight --root '$(PYTHON)'

# A virtual environment knows its own absolute path: in a checkout that was moved or copied it is made anew.
ifneq ($(shell cat $(VENV)/.home 2>/dev/null),$(CURDIR))
.PHONY: $(VENV)/.home
endif
ifneq ($(shell cat $(COMPAT)/.home 2>/dev/null),$(CURDIR))
.PHONY: $(COMPAT)/.home
endif
ifneq ($(shell cat $(BROWSER)/.home 2>/dev/null),$(CURDIR))
.PHONY: $(BROWSER)/.home
endif
ifneq ($(shell cat $(PEERS)/.home 2>/dev/null),$(CURDIR))
.PHONY: $(PEERS)/.home
endif
ifneq ($(shell cat $(FUZZ)/.home 2>/dev/null),$(CURDIR))
.PHONY: $(FUZZ)/.home
endif

$(VENV)/.home $(COMPAT)/.home $(BROWSER)/.home $(FUZZ)/.home: %/.home: | preflight
	@echo 'making $*'
	@rm -rf $*
	@$(PYTHON) -m venv $*
	@printf '%s' '$(CURDIR)' > $@

$(VENV)/.runtime: requirements.lock pyproject.toml $(VENV)/.home
	@echo 'installing requirements.lock into $(VENV)'
	@$(INSTALL) --requirement requirements.lock
	@$(BIN)/python $(EDITABLE)
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.runtime
	@echo 'installing requirements-dev.lock into $(VENV)'
	@$(INSTALL) --requirement requirements-dev.lock
	@touch $@

.PHONY: $(PEERS)
$(PEERS): $(PEER:%=$(PEERS)/%/.installed)
	@$(MAKE) --no-print-directory $(COMPAT)/.runagent || \
	    echo "RunAgent's own server cannot be installed here, and will not be measured"

$(PEERS)/.home: | preflight
	@rm -rf $(PEERS)
	@mkdir $(PEERS)
	@printf '%s' '$(CURDIR)' > $@

# One that cannot be installed stops nothing: the table names it, with the last thing that pip said.
$(PEERS)/%/.installed: benchmarks/locks/%.lock $(PEERS)/.home
	@echo 'installing $< into $(PEERS)/$*'
	@rm -rf $(PEERS)/$*
	@$(PYTHON) -m venv $(PEERS)/$*
	@if $(PEERS)/$*/bin/python $(PIP_INSTALL) --requirement $< 2>$(PEERS)/$*/why; then touch $@; else \
	    cat $(PEERS)/$*/why; echo '$* cannot be installed here, and will not be measured'; fi

$(COMPAT)/.runagent: requirements-compat.lock $(COMPAT)/.home
	@echo 'installing requirements-compat.lock into $(COMPAT)'
	@$(COMPAT)/bin/python $(PIP_INSTALL) --requirement requirements-compat.lock
	@touch $@

$(BROWSER)/.playwright: requirements-browser.lock $(BROWSER)/.home
	@echo 'installing requirements-browser.lock into $(BROWSER)'
	@$(BROWSER)/bin/python $(PIP_INSTALL) --requirement requirements-browser.lock
	@$(BROWSER)/bin/python $(EDITABLE)
	@touch $@

$(FUZZ)/.atheris: requirements-fuzz.lock pyproject.toml $(FUZZ)/.home
	@echo 'installing requirements-fuzz.lock into $(FUZZ)'
	@$(FUZZ)/bin/python $(PIP_INSTALL) --requirement requirements-fuzz.lock || \
	    { echo 'make fuzz: atheris has wheels for CPython 3.11 to 3.13 on Linux x86-64 only'; exit 1; }
	@$(FUZZ)/bin/python $(EDITABLE)
	@touch $@
