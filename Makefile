# make screen  the embedded screening campaign, offline, into campaigns/incompressible
# make test    lint, type check and every test
# make lint    ruff and mypy alone
# make docs    the documentation site, into site/
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: screen test lint docs clean

screen: $(VENV)/.run
	$(BIN)/atomsets screen

test: lint
	$(BIN)/python -m pytest

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.test
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one with: make PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,docs,parents,embeddings,optimade,generate,slurm,kubernetes]'
	@touch $@ $(VENV)/.run

clean:
	rm -rf $(VENV) campaigns site .mypy_cache .ruff_cache .pytest_cache
