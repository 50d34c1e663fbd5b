# make screen  the embedded screening campaign, offline, into campaigns/incompressible
# make test    lint, type check and every test; make pytest the tests alone
# make lint    ruff and mypy alone
# make faults  the fault suite at length: kills, damage, full disks; a table, and benchmarks/results/faults.json
# make fuzz    damaged files for every reader; benchmarks/results/fuzz.json
# make sbom    bill of materials of .venv (CycloneDX), into sbom.cdx.json
# make audit   known vulnerabilities of the pinned versions; needs a network
# make docs    the documentation site, into site/
PYTHON ?= python3
# Test files that run at the same time; each may start a server and a cluster of its own.
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin

.PHONY: screen test pytest lint docs clean faults fuzz sbom audit

screen: $(VENV)/.run
	$(BIN)/atomsets screen

test: lint pytest

# Bytecode is kept, whatever the environment says: hundreds of processes read the same modules.
pytest: $(VENV)/.test
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(JOBS) --dist loadfile

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@mkdir -p $(VENV)/names && for name in flows tasks; do ln -sfn ../../$$name $(VENV)/names/atomsets_$$name; done
	$(BIN)/mypy

faults: $(VENV)/.test
	$(BIN)/python -m tests.faults

fuzz: $(VENV)/.test
	$(BIN)/python -m tests.fuzz

# Tools in an environment of their own: what they need is no part of what they look at.
$(VENV)-tools/.done:
	$(PYTHON) -m venv $(VENV)-tools
	$(VENV)-tools/bin/python -m pip install --quiet 'cyclonedx-bom==7.5.0' pip-audit
	@touch $@

sbom: $(VENV)/.run $(VENV)-tools/.done
	$(VENV)-tools/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --of JSON \
		-o sbom.cdx.json $(BIN)/python

audit: $(VENV)-tools/.done
	$(VENV)-tools/bin/pip-audit --no-deps --disable-pip --requirement constraints.txt

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
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[test,docs,parents,embeddings,optimade,generate,slurm,kubernetes]'
	-@$(BIN)/python -m compileall -q -q -j 0 -x '/tests?/' $(VENV)/lib
	@touch $@ $(VENV)/.run

clean:
	rm -rf $(VENV) $(VENV)-tools sbom.cdx.json campaigns site .mypy_cache .ruff_cache .pytest_cache
