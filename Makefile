# The first use sets everything up; later ones redo only what has changed. Downloads and the Python
# packages are kept in $XDG_CACHE_HOME/mlperf-sut (~/.cache/mlperf-sut).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/mlperf-sut
VENV := .venv
PY := $(VENV)/bin/python
# With folders, so that a deleted source causes a build.
CPP_SOURCES := CMakeLists.txt setup.py pyproject.toml tools/loadgen_source.py \
	$(shell find csrc -not -name '*.md' -not -path '*/tests*')
SHELL_SCRIPTS = $(shell git ls-files --cached --others --exclude-standard '*.sh' .ci/run)

# `make test` numbers its parts.
part = @echo "==> $(if $(PARTS),[$(1)/$(PARTS)] )$(2)"

# All checkouts share the compiled objects.
export CMAKE_CXX_COMPILER_LAUNCHER := ccache
export CCACHE_DIR := $(CACHE)/ccache
export CCACHE_BASEDIR := $(CURDIR)
export CCACHE_NOHASHDIR := 1

.PHONY: help demo test test-long chaos fuzz bench soak build env login lock lint format cpp-test cluster cluster-down cluster-packages \
	cluster-parts clean clean-cache packages FORCE

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

demo: build ## Set everything up and run MLPerf's Server scenario with a small real model
	@$(PY) -m sut.submit --scenario server || { code=$$?; [ $$code -eq 1 ] || exit $$code; \
	echo "INVALID is a result: this machine was too slow or too busy for the load. Run again: make demo" >&2; }

test: PARTS := 4
test: lint cpp-test cluster-parts ## Set everything up and run all tests except those of test-long
	$(call part,4,pytest)
	@$(PY) -m pytest --numprocesses=3 --durations=10 # most tests wait: three keep two cores busy

test-long: build cluster-parts ## Run the long tests: lost nodes, preemption, limits, one model over two nodes
	@$(PY) -m pytest -m long

chaos: build cluster-parts ## Try every fault at every stage of a run, and write docs/reliability.md (20 minutes)
	@SUT_RELIABILITY=1 $(PY) -m pytest --numprocesses=2 --dist=loadfile -m "chaos or not chaos" \
	  tests/test_chaos.py tests/test_auxiliary.py tests/test_chaos_cluster.py

fuzz: build ## Fuzz what reads wires and files, and the dispatcher; SECONDS=60 for each target (20 minutes)
	@tools/debian_packages.sh fuzz
	@tools/fuzz.sh $(PY) $(or $(SECONDS),60) cpp
	@tools/fuzz.sh $(PY) $(or $(SECONDS),60) python
	@tools/fuzz.sh $(PY) $(or $(SECONDS),60) schedules
	@SUT_EXACTLY_ONCE=100 $(PY) -m pytest -q tests/test_exactly_once.py

bench: build ## Run the benchmarks of docs/performance.md, docs/simulation.md and docs/tuning.md (an hour)
	@cmake -S . -B build/release -DSUT_BENCHMARKS=ON >build/bench.log
	@cmake --build build/release --target benchmarks >>build/bench.log
	@$(PY) -m benchmarks
	@$(PY) -m benchmarks.scale
	@$(PY) -m benchmarks.growth
	@[ -d build/peers ] || $(PY) -m pip install --quiet --target build/peers -r benchmarks/vllm_serve.txt
	@$(PY) -m benchmarks.peers --packages build/peers $(if $(ENDPOINTS),--endpoints $(ENDPOINTS))
	@$(PY) -m benchmarks.forecast
	@$(PY) -m benchmarks.simulation
	@$(PY) -m benchmarks.unlike
	@$(PY) -m benchmarks.engine_settings
	@$(PY) -m benchmarks.tuning

soak: build ## Watch memory, latencies and descriptors of a long run (MINUTES=10, QPS=5000)
	@$(PY) -m benchmarks.soak --minutes $(or $(MINUTES),10) --qps $(or $(QPS),5000)

build: build/stamp ## Build the C++ core in place, and convert the demo's model

env: $(VENV)/made-of ## Make the Python environment, .venv

login: ## Make the Python environment of a cluster's login node, .venv-login: no torch, nothing compiled
	@tools/login_env.sh .venv-login

packages:
	@tools/debian_packages.sh

$(VENV)/made-of: packages FORCE
	@tools/python_env.sh $(VENV)

build/stamp: $(VENV)/made-of $(CPP_SOURCES)
	@tools/core.sh $(PY)
	@touch $@

lint: build
	$(call part,1,Lint)
	@$(PY) -m ruff check
	@$(PY) -m ruff format --check --quiet
	@$(PY) -c 'import sys; from importlinter import cli; sys.exit(cli.lint_imports(no_logo=True, no_cache=True))'
	@$(PY) -m mypy
	@shellcheck $(SHELL_SCRIPTS)

format: env ## Format the Python sources
	@$(PY) -m ruff check --fix
	@$(PY) -m ruff format

cpp-test: build
	$(call part,2,C++ tests)
	@tools/cpp_tests.sh $(PY) plain address thread

cluster: env cluster-packages ## Open a shell on a Slurm cluster on this machine; CMD='...' runs one command there
	@PYTHONPATH=tests $(PY) -m cluster $(if $(value CMD),run "$$TYPED",shell)

# As typed: the shell on the cluster expands it.
cluster: export TYPED := $(value CMD)

cluster-down: ## Take that cluster down and delete its files
	@PYTHONPATH=tests python3 -m cluster down

cluster-packages:
	@tools/debian_packages.sh cluster

# The cluster's large files, made before the tests start and their timeouts apply.
cluster-parts: env cluster-packages
	$(call part,3,Test cluster)
	@[ "$$(id -u)" -ne 0 ] || PYTHONPATH=tests $(PY) -m cluster prepare

lock: ## Resolve pyproject.toml into requirements/*.lock (UPGRADE=1: to the newest versions)
	@tools/lock.sh $(if $(UPGRADE),--upgrade)

clean: ## Remove everything built in this checkout (runs/ is kept)
	rm -rf build $(VENV) sut/_core*.so sut/replay_engine ./*.egg-info .mypy_cache .pytest_cache .ruff_cache

clean-cache: ## Remove what all your checkouts share: downloads and the Python packages
	rm -rf "$(CACHE)"
