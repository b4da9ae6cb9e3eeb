# Everything runs in a private environment in .venv; a machine needs only make and Python >= 3.11.
# Another Python: make demo PYTHON=/path/to/python3.12   More pytest options: make test ARGS='-k revoke -x'

VENV   := .venv
PY     := $(VENV)/bin/python
RUFF   := $(VENV)/bin/ruff
SOURCE := pyproject.toml nbqueue/_version.py
ARGS   ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

##@ For a first look
demo: $(VENV)/.ready-demo  ## run notebooks/01_quickstart.ipynb from top to bottom and print what it found
	$(PY) notebooks/run_demo.py

test: static kernels  ## format, lint, types, then every test
	$(PY) -m pytest $(ARGS)

##@ For daily work
check: static  ## format, lint, types, layers, unit tests, contract tests on the memory broker; under a minute
	$(PY) -m pytest $(wildcard tests/unit tests/contract) tests/test_*.py -k "not (contract and (zmq or redis))" $(ARGS)

format: $(VENV)/.ready-dev  ## rewrite the files in the house format
	$(RUFF) format
	$(RUFF) check --fix

bench: $(VENV)/.ready-bench  ## nbqueue and its peers side by side, in one run
	$(PY) -m benchmarks.local $(ARGS)
	$(PY) -m benchmarks.redis

docs: $(VENV)/.ready-docs  ## build the documentation into docs/_build
	$(PY) -m sphinx --fail-on-warning --keep-going docs docs/_build

venv: $(VENV)/.ready-dev  ## make the environment with everything that development needs

clean:  ## remove the environment, caches and build output
	rm -rf $(VENV) build dist demo-output docs/_build .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help:  ## show this list
	@awk -F ':.*## ' '/^##@/ { printf "\n%s\n", substr($$0, 5) } \
	    /^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

static: $(VENV)/.ready-dev
	$(RUFF) format --check
	$(RUFF) check
	$(PY) -m mypy

python:  # the interpreter that the environment will be made with
	@$(find_python); echo "$$python"

# Each version of ipykernel that behaves in a way of its own; pure Python, so a folder for PYTHONPATH is enough.
kernels: $(addprefix $(VENV)/kernels/,6.31.0 7.3.0 7.4.0)

$(VENV)/kernels/%: | $(VENV)/.ready-dev
	@$(PY) -m pip install -qq --disable-pip-version-check --no-deps --target $@ ipykernel==$*

# One stamp for each extra: installed anew only when the project's metadata changes.
$(VENV)/.ready-%: $(SOURCE) | $(VENV)/.made
	@echo "Installing nbqueue and what make needs for: $*."
	@$(PY) -m pip install -qq --disable-pip-version-check --editable '.[$*]'
	@touch $@

$(VENV)/.made:
	@$(find_python); $(make_venv)
	@touch $@

# python3.13 first: the newest that every dependency has wheels for. A pyenv shim may be on PATH and yet not run.
define find_python
python=; for candidate in $(or $(PYTHON),python3.13 python3.12 python3.11 python3); do \
    if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
    then python=$$candidate; break; fi; \
done; \
if [ -z "$$python" ]; then \
    echo "nbqueue needs Python 3.11 or newer and found none$(if $(PYTHON), at $(PYTHON)); name one: make PYTHON=/path/to/python3" >&2; \
    exit 1; \
fi
endef

# Debian ships Python without ensurepip; virtualenv brings its own pip, and --target needs no root.
define make_venv
echo "Making $(VENV) with $$python ($$("$$python" -V)), once."; rm -rf $(VENV); \
if "$$python" -c 'import ensurepip, venv' 2>/dev/null; then "$$python" -m venv $(VENV); else \
    "$$python" -m pip install -qq --target $(VENV)/bootstrap virtualenv && \
    PYTHONPATH=$(VENV)/bootstrap "$$python" -m virtualenv --quiet $(VENV) && rm -rf $(VENV)/bootstrap || \
    { rm -rf $(VENV); \
      echo "This Python cannot make environments; install its venv module (Debian, Ubuntu: apt install python3-venv) and run make again." >&2; \
      exit 1; }; \
fi
endef

.PHONY: bench check clean demo docs format help kernels python static test venv
