# make demo | test | check | bench
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
BIN := $(VENV)/bin

LOWEST := .venv-lowest
LOWEST_READY := $(LOWEST)/.ready

# one thread a test; files whole, because tests of a file share a study
PARALLEL := --numprocesses logical --maxprocesses 4 --dist loadfile

# not run at the lowest versions: they test arithmetic on torch alone, which is the same version there, and processes
TORCH_ALONE := engine/test_graphs.py engine/test_gpu.py engine/test_devices.py execute/

.PHONY: audit environments demo test check lint lowest format bench soak hashes clean

demo: $(READY)        ## the quickstart study, offline: leaderboard, verdict and report
	$(BIN)/tuneoff run studies:quickstart

test: $(READY)        ## the whole test suite
	$(BIN)/python -m pytest $(PARALLEL)

check: lint           ## format, lint, types, fast tests
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow"

lint: $(READY)        ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

soak: $(READY)        ## kills, damage, full disks, hostile models and random input in great numbers, within an hour
	$(BIN)/python benchmarks/soak.py

audit: $(READY)       ## known vulnerabilities of the pinned packages, where the service of pip-audit is reachable
	$(BIN)/python -m pip install --quiet pip-audit
	$(BIN)/python -m pip_audit --requirement constraints.txt --no-deps --disable-pip

lowest: $(LOWEST_READY)   ## fast tests at the lower bounds of the dependencies; their deprecations are no errors
	$(LOWEST)/bin/python -m pytest $(PARALLEL) -m "not slow" -W default $(addprefix --ignore=tests/,$(TORCH_ALONE))

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY)       ## speed compared with HF Trainer and peft
	$(BIN)/python benchmarks/speed.py

# torch apart: its wheel, and so its hash, differs from index to index; pinned, because a looser requirement would
# install gigabytes of CUDA packages
$(READY): pyproject.toml requirements-hashed.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement requirements-hashed.txt
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	-$(BIN)/python -m pip check  # an older environment may hold what is no longer needed
	touch $@

hashes:               ## requirements-hashed.txt from constraints.txt (needs uv)
	echo "# constraints.txt without torch, whose wheel differs from index to index, with the hashes of all files: make hashes" > requirements-hashed.txt
	grep -v "^torch==" constraints.txt | uv pip compile --quiet --no-deps --generate-hashes --no-header --no-annotate --universal --python-version 3.11 - >> requirements-hashed.txt

environments: $(READY) $(LOWEST_READY)

$(LOWEST_READY): pyproject.toml constraints-lowest.txt
	test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --constraint constraints-lowest.txt torch==2.13.0
	$(LOWEST)/bin/python -m pip install --quiet --constraint constraints-lowest.txt --editable '.[demo,sentencepiece]' pytest pytest-xdist mlxtend playwright
	touch $@

clean:
	rm -rf $(VENV) $(LOWEST) .mypy_cache .ruff_cache .pytest_cache
