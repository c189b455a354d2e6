# The commands of this project. `make help` lists them.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
HDFS_CLIENT := .cache/hdfs
HDFS_SERVER := .cache/hdfs-server

.PHONY: help run test check format clean
.DEFAULT_GOAL := help

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

run: .venv/run ## install, make a demo archive, serve it
	@$(BIN)/cutout_api demo demo-archive
	@$(BIN)/python app.py

test: .venv/test hdfs programs ## install what the tests need, HDFS included, and run every test
	$(BIN)/python -m pytest

check: .venv/test ## formatting, lint, strict types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

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

.PHONY: hdfs programs
hdfs: .venv/test
	PYTHON=$(BIN)/python install/hdfs-client.sh $(HDFS_CLIENT)
	PYTHON=$(BIN)/python install/hdfs-server.sh $(HDFS_SERVER)

programs:
	install/test-programs.sh
