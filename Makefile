# Everything a person does with the project. `make` alone lists the targets.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help install demo up test lint format clean demo-model sample-archive sql-docs simulate-drift ten-nights train-smoke chaos rolling-restart load bench-engine bench-queue bench-search bench-checkpoint bench-media bench-split fuzz-media

help: ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## Make .venv with the exact versions of constraints.txt

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; name one with: make install PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
		rm -rf $(VENV); echo "Python has no venv module here: install it (on Debian: apt install python3-venv)" >&2; exit 1; }
	@echo "Installing into $(VENV): about 2 GB, some minutes on a first run"
	@# torch first and by itself: the exact version, and nothing newer that another package would accept
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt "$$(grep '^torch==' constraints.txt)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: install ## Transcribe the sample archive on an embedded stack, and stop it again
	@$(BIN)/fonoteca demo

up: install ## Run the embedded stack on a persistent folder until Ctrl-C
	@$(BIN)/fonoteca up

test: install ## Run all tests on servers of their own (PYTEST_ARGS="-k queue" for some)
	@# one torch thread a process: two processes with two each would fight over two cores
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile $(PYTEST_ARGS)

lint: install ## Check style, types, who imports whom, and that every test can be imported
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@# a test that cannot be imported is told here, and not after a quarter of an hour of all others
	@$(BIN)/python -m pytest -n0 -q --collect-only > $(VENV)/collected.txt || { tail -40 $(VENV)/collected.txt; exit 1; }

format: install ## Put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

train-smoke: install ## A tiny model through prepare, fine-tuning, kill -9, resume, measuring and its card
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n0 -q tests/training/test_train_smoke.py

bench-engine: install ## Time the engine beside the card's way and padded generate() (BENCH_ARGS="--json FILE")
	@$(BIN)/python -m tests.benchmarks.engine $(BENCH_ARGS)

bench-queue: install ## Time claims and stores while 1,000,000 segments wait, and a newcomer's first recording (BENCH_ARGS)
	@$(BIN)/python -m tests.benchmarks.queue $(BENCH_ARGS)

bench-search: install ## Time search over 2,000,000 made segments; BENCH_ARGS="--segments 10000000" for all (BENCH_ARGS)
	@$(BIN)/python -m tests.benchmarks.search $(BENCH_ARGS)

bench-checkpoint: install ## Write, open and convert a random checkpoint of full size; needs 22 GB of disk (BENCH_ARGS)
	@$(BIN)/python -m tests.benchmarks.full_size $(BENCH_ARGS)

bench-media: install ## Split an hour of five formats and 12 hours of mp3: speed and memory, beside pydub's way (BENCH_ARGS="--folder DIR")
	@$(BIN)/python -m tests.benchmarks.media $(BENCH_ARGS)

bench-split: install ## Split 6 hours whose every word is known: what is lost, what is dropped, what cuts go through (BENCH_ARGS="--seed 2")
	@$(BIN)/python -m tests.benchmarks.split_quality $(BENCH_ARGS)

chaos: install ## Kill, freeze and rob a whole system 100 times while it works; nothing may be lost (CHAOS_ARGS="--seeds 1 2 3 4 5")
	@$(BIN)/python -m tests.chaos $(CHAOS_ARGS)

rolling-restart: install ## Restart every worker in turn while recordings come in; nothing may be lost or done twice
	@$(BIN)/python -m pytest -n0 -q -m long tests/test_rolling_restart.py

load: install ## 1,000 recordings of a minute through the whole system without a model: memory, logs, leftovers (LOAD_ARGS)
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.load $(LOAD_ARGS)

fuzz-media: install ## Read 2,000 damaged media files of every format (FUZZ_ARGS="--n 2000 --seed 1")
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz_media $(FUZZ_ARGS)

simulate-drift: install ## Prove intervals, false alarms and power by simulation (SIMULATE_ARGS="--pictures docs/pictures")
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.benchmarks.simulate_drift $(SIMULATE_ARGS)

ten-nights: install ## Live through ten nights of a made-up broadcaster on the real stack (NIGHTS_ARGS="--out FOLDER")
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.ten_nights $(NIGHTS_ARGS)

sql-docs: install ## Write the data dictionary, the cookbook's answers and their pictures anew
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.sql_docs

demo-model: install ## Build a demo model from nothing in 100 minutes; so far it does not reach the one in models/, see docs/demo-model.md (DEMO_MODEL_ARGS="--minutes 10 --out DIR")
	@OMP_NUM_THREADS=1 $(BIN)/python -m training.scratch $(DEMO_MODEL_ARGS)

sample-archive: install ## Make samples/ anew from the test sentences
	$(BIN)/python -m training.sample_archive

clean: ## Remove .venv and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
