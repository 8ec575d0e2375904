# make quickstart   install into .venv, then train, evaluate and predict on real handwritten digits
# make test         the whole test suite
# make deep-exports  the networks of more than 60 layers exported and compared, some ten minutes
# make check        format, lint and types
# make docs         the documentation, built strictly into site/
# make torture      N runs and N bulk predictions killed at random, resumed, compared byte for byte (N=200)
# make fuzz         N mutated image files decoded (N=100000; SEEDS=FOLDER mutates the images there)
#
# Another interpreter: make quickstart PYTHON=/path/to/python3.12

SHELL := /bin/sh
PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11; do \
	"$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo "$$name" && break; done)
BIN := .venv/bin
RESIDUUM := $(BIN)/python -m residuum
QUICKSTART := runs/quickstart

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help quickstart test deep-exports check format docs torture fuzz clean

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

quickstart: .venv/installed
	@rm -rf $(QUICKSTART)
	@echo; echo "1. Train: resnet20 on 1,797 handwritten digits"
	$(RESIDUUM) train digits --model resnet20 --recipe quick --out $(QUICKSTART)
	@echo; echo "2. Evaluate: the digits kept out of training"
	$(RESIDUUM) evaluate $(QUICKSTART) digits
	@echo; echo "3. Predict: image files"
	$(RESIDUUM) check digits --samples $(QUICKSTART)/samples >/dev/null
	$(RESIDUUM) predict $(QUICKSTART) $(QUICKSTART)/samples
	@echo; echo "What to look at next:"
	@printf '  %-44s  %s\n' \
		'$(QUICKSTART)/report.html' 'curves, scores, mistakes: one page' \
		'$(RESIDUUM) describe resnet20' 'the network, stage by stage' \
		'$(RESIDUUM) train FOLDER' 'your own images: a sub-folder for each class' \
		'. $(BIN)/activate' 'then "residuum" alone is enough'

test: .venv/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

deep-exports: .venv/installed-dev
	RESIDUUM_DEEP_EXPORTS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/contract/test_export_contract.py -k deep

check: .venv/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: .venv/installed-docs
	$(BIN)/mkdocs build --strict

torture: N = 200
torture: .venv/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python tests/torture/torture.py -n $(N) -j 2
	OMP_NUM_THREADS=1 $(BIN)/python tests/torture/bulk.py -n $(N)

fuzz: N = 100000
fuzz: .venv/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python tests/data/fuzz.py -n $(N) -j 2 $(if $(SEEDS),--seeds "$(SEEDS)")

clean:
	rm -rf .venv site build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

define install
@echo "Installing into .venv; PyTorch is large, so the first time takes some minutes."
@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable $(1)
endef

# Each stamp is as new as the last install, so that an unchanged pyproject.toml costs nothing.
# A stamp without the environment says nothing; make has seen it by the time that the environment is made anew.
$(shell test -x .venv/bin/python || rm -f .venv/installed*)
.venv/installed: pyproject.toml constraints.txt | .venv/bin/python
	$(call install,.)
	@touch $@

.venv/installed-dev: pyproject.toml constraints.txt | .venv/bin/python
	$(call install,'.[dev]')
	@touch $@ .venv/installed

.venv/installed-docs: pyproject.toml constraints.txt | .venv/bin/python
	$(call install,'.[docs]')
	@touch $@ .venv/installed

.venv/bin/python:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "error: residuum needs Python 3.11 or newer; install it, or name it: make PYTHON=/path/to/python3.11"; \
		exit 1; }
	"$(PYTHON)" -m venv .venv || { rm -rf .venv; exit 1; }
