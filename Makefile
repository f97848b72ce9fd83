PROFILE ?= tiny
ARGS ?=
PYTHON ?= $(shell command -v python3.11 || command -v python3)
FIND_LINKS = $(if $(PIP_FIND_LINKS),--find-links "$(PIP_FIND_LINKS)")
BIN = .venv/bin

# Half a hundred processes import the same libraries: compiled once, each starts seconds sooner.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: book test serve clean

book: .venv/installed            # train what is missing, run stale chapters, render _build/html
	$(BIN)/python -m hybridlib book --profile $(PROFILE) $(ARGS)

test: .venv/installed            # style and all tests, the slow ones too
	$(BIN)/ruff check . && $(BIN)/ruff format -q --check .
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal $(ARGS)

serve: .venv/installed                     # the rendered book at http://localhost:8000
	$(BIN)/python -m http.server --directory _build/html

clean:                           # results under data/ and .venv stay
	rm -rf _build runs

.venv/installed: requirements.txt requirements-unsloth.txt pyproject.toml
	@echo "installing requirements.txt and requirements-unsloth.txt into .venv"
	@if command -v uv > /dev/null; then \
	  { test -d .venv || uv venv -q --seed -p $(PYTHON) .venv; } && \
	  uv pip install -q -p .venv $(FIND_LINKS) -r requirements.txt && \
	  uv pip install -q -p .venv --no-deps --no-build-isolation -r requirements-unsloth.txt -e .; \
	else \
	  { test -x $(BIN)/pip || $(PYTHON) -m venv .venv; } && \
	  $(BIN)/python -m pip install -q --no-compile -r requirements.txt && \
	  $(BIN)/python -m pip install -q --no-deps --no-build-isolation -r requirements-unsloth.txt -e .; \
	fi
	@touch $@
