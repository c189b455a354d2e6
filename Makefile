# The commands of this project. `make help` lists them.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
HDFS_CLIENT := .cache/hdfs
HDFS_SERVER := .cache/hdfs-server

.PHONY: help run test check format clean lock bench bench-hdfs bench-catalog bench-batch gallery
.DEFAULT_GOAL := help

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile

run: .venv/run ## install, make a demo archive, serve it
	@$(BIN)/cutout_api demo demo-archive
	@$(BIN)/python app.py

test: .venv/test hdfs programs ## install what the tests need, HDFS included, and run every test
	$(BIN)/python -m pytest -n 3 --dist loadfile

check: .venv/test ## formatting, lint, strict types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/bench ## measure against today's algorithm and other readers, on local disk
	$(BIN)/python -m benchmarks $(BENCH)

bench-hdfs: .venv/bench hdfs ## the same on a real HDFS
	$(BIN)/python -m benchmarks --storage hdfs $(BENCH)

bench-catalog: .venv/bench ## measure the catalog from 10^5 to 5 x 10^7 alerts (takes an hour and 7 GB)
	$(BIN)/python -m benchmarks.catalog $(BENCH)

bench-batch: .venv/bench hdfs ## measure 10,000 stamps by one batch against single requests, on a real HDFS
	$(BIN)/python -m benchmarks.batch $(BENCH)

gallery: .venv/run ## draw every option into docs/gallery, and write docs/gallery.md
	$(BIN)/python docs/make_gallery.py

lock: .venv/run ## write requirements.lock, which the image is installed from, anew
	$(BIN)/python install/lock_requirements.py

format: .venv/test ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove what the commands above made
	rm -rf .venv .cache demo-archive *.egg-info

.venv/run: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; name one: make PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/test: .venv/run requirements-test.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements-test.txt
	@touch $@

.venv/bench: .venv/test requirements-bench.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements-bench.txt
	@touch $@

.PHONY: hdfs programs
hdfs: .venv/test
	PYTHON=$(BIN)/python install/hdfs-client.sh $(HDFS_CLIENT)
	PYTHON=$(BIN)/python install/hdfs-server.sh $(HDFS_SERVER)

programs:
	install/test-programs.sh
