# The commands of this repository. `make demo` and `make test` set up all they need.

SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
MODELS := $(VENV)/.models
LINKS := .typeroot/.linked
FOLDERS := apps llm policies rails retrieval
# torch's threads spin after each operation unless told not to, which starves their neighbours.
export OMP_WAIT_POLICY := passive

.PHONY: demo setup test check sanitize format bench clean

demo: $(MODELS)
	$(BIN)/trackbed demo

setup: $(MODELS)

test: $(MODELS)
	$(BIN)/python -m pytest $(ARGS)

check: $(INSTALLED) $(LINKS)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy -p trackbed
	$(BIN)/python -m pytest -q tests/test_imports.py

# The native code's tests again: under sanitizers, and with AVX-512 in emulation.
sanitize: $(INSTALLED)
	$(BIN)/python tests/llm/native/check.py

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(MODELS)
	mkdir -p tests/bench/results
	$(BIN)/trackbed bench runtime --write tests/bench/results/runtime.md $(ARGS)
	$(BIN)/trackbed bench accuracy --write tests/bench/results/accuracy.md
	$(BIN)/trackbed bench rails --write tests/bench/results/rails.md $(ARGS)

clean:
	rm -rf $(VENV) build .typeroot .mypy_cache .pytest_cache .ruff_cache

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(INSTALLED): $(BIN)/python pyproject.toml constraints.txt $(wildcard llm/kernels/cpu/*.cpp llm/kernels/cpu/*.h llm/kernels/cpu/CMakeLists.txt)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

$(MODELS): $(INSTALLED)
	$(BIN)/trackbed models get smollm2-135m-instruct
	$(BIN)/trackbed models get all-minilm-l6-v2
	touch $@

# mypy reads the checkout under its import name through these links.
$(LINKS):
	mkdir -p .typeroot/trackbed
	for folder in $(FOLDERS); do ln -sfn ../../$$folder .typeroot/trackbed/$$folder; done
	touch $@
