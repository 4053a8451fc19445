# Everything starts from plain Python 3.11+ and make. Each target sets up what it needs, from hashed locks, in .venv.

PYTHON ?= python3
DATA ?= ../shared/recordings
VENV := .venv
BIN := $(VENV)/bin
# The certificates this machine trusts, as pip and browsers do, not a list of its own.
UV := $(BIN)/uv --system-certs

.DEFAULT_GOAL := help
.PHONY: help run test check fix bench catalogue lock clean faults chaos chaos-long test-load test-clients test-local test-recordings

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/uv.done: requirements/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Cauce needs Python 3.11 or newer; run: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/uv.txt
	@touch $@

$(VENV)/run.done: $(VENV)/uv.done requirements/run.txt requirements/build.txt pyproject.toml
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements/run.txt -r requirements/build.txt
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/dev.done: $(VENV)/run.done requirements/dev.txt
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements/dev.txt
	@touch $@

.venv-%/installed: requirements/%.txt $(VENV)/uv.done
	$(UV) venv --quiet --allow-existing --python $(BIN)/python .venv-$*
	$(UV) pip sync --quiet --python .venv-$*/bin/python --require-hashes requirements/$*.txt
	@touch $@

run: $(VENV)/run.done ## Start the server on http://127.0.0.1:8000
	@exec $(BIN)/cauce serve

# What pytest makes of the tests' assertions is kept for the next run, also where the environment forbids to keep what was compiled:
# it takes each worker ten seconds.
test: export PYTHONDONTWRITEBYTECODE =
test: $(VENV)/dev.done check ## Check and test everything (about five minutes)
	$(BIN)/python -m pytest -q -n 3 --dist worksteal

check: $(VENV)/dev.done ## Format, lint, types, import contracts, module sizes
	$(BIN)/ruff format --check --quiet src tests bench catalogue
	$(BIN)/ruff check --quiet src tests bench catalogue
	$(BIN)/pyright
	$(BIN)/lint-imports --no-cache
	@find src -name '*.py' -exec wc -l {} + | awk '$$2 != "total" && $$1 > 400 {print "over 400 lines: " $$2 " (" $$1 ")"; bad = 1} END {exit bad}'
	@echo "check: clean"

fix: $(VENV)/dev.done ## Format, and mend what the linter can mend
	$(BIN)/ruff format src tests bench catalogue
	$(BIN)/ruff check --fix src tests bench catalogue

catalogue: .venv-catalogue/installed ## Make the model catalogue again, and compare its costs with those of its source
	PYTHONPATH=src .venv-catalogue/bin/python -m catalogue
	PYTHONPATH=src .venv-catalogue/bin/python -m catalogue.crosscheck

bench: $(VENV)/run.done ## Measure Cauce beside its peers, in one run; then 2,000 open streams, the log of streams, and the ledger
	$(BIN)/python -m bench
	$(BIN)/python -m bench.open_streams
	$(BIN)/python -m bench.streams
	$(BIN)/python -m bench.ledger

faults: $(VENV)/dev.done ## Write docs/reference/faults.md anew, from what the fault matrix gives
	CAUCE_WRITE_FAULTS=1 $(BIN)/python -m pytest -q tests/e2e/test_fault_matrix.py

chaos: $(VENV)/dev.done ## Break everything around streams, then find out servers that break a rule (about three minutes)
	$(BIN)/python -m tests.chaos

chaos-long: $(VENV)/dev.done ## The same with hundreds of streams at two servers, on SQLite, PostgreSQL and Redis, and with power cuts on a SQLite that does not wait for the disk (about thirteen minutes)
	$(BIN)/python -m tests.chaos --long

test-load: $(VENV)/dev.done ## Load, faults and kills against real server processes (about seven minutes)
	$(BIN)/python -m pytest -q -s tests/load

test-clients: $(VENV)/dev.done .venv-clients/installed .venv-clients-older/installed ## Official SDKs, frameworks, command lines, the JavaScript client and a browser against Cauce (about nine minutes; fetches their packages)
	$(BIN)/python -m pytest -q tests/clients

test-recordings: $(VENV)/dev.done ## Replay recorded provider traffic of DATA=DIR into the adapters
	CAUCE_RECORDINGS="$(DATA)" $(BIN)/python -m pytest -q tests/recordings

test-local: .venv-local/installed ## Run a real model, made here, through the extra `local` (builds llama.cpp: about ten minutes the first time)
	PYTHONPATH=src .venv-local/bin/python -m pytest -q tests/local

lock: $(VENV)/uv.done ## Resolve the dependencies again
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url pyproject.toml -o requirements/run.txt
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url -c requirements/run.txt --group dev pyproject.toml -o requirements/dev.txt
	$(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url -c requirements/dev.txt --group dev --extra local pyproject.toml requirements/local.in -o requirements/local.txt
	for name in clients clients-older catalogue; do $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url requirements/$$name.in -o requirements/$$name.txt || exit 1; done
	echo hatchling | $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url - -o requirements/build.txt
	echo uv | $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url - -o requirements/uv.txt

clean: ## Remove what was made here
	rm -rf $(VENV) .venv-clients .venv-clients-older .venv-catalogue .venv-local .bench .hypothesis .ruff_cache .pytest_cache dist build clients/js/dist clients/js/node_modules
