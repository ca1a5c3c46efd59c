# Each command sets up .venv by itself, from a Python with venv, make and a package index.
#   make demo ARGS="--exit"      words after a command's own
#   make test ARGS="-n 0 -k pin" one at a time, and only some
#   make test PYTHON=python3.12  another interpreter (with no .venv there yet)
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10; do \
	"$$p" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' \
	>/dev/null 2>&1 && { echo "$$p"; break; }; done)
USUAL := server,cli,mqtt,object-storage,tracing,onnxruntime,litert,openvino,dev
EXTRAS ?= $(USUAL)
LOCKS := requirements/dev.lock requirements/build.lock
DATA ?= .data
ARGS ?=

# compiled once, as where it is installed: the programs that tests and benches start are many
unexport PYTHONDONTWRITEBYTECODE

PY := .venv/bin/python
STAMP := .venv/.installed
# two more than there are cores, as tests wait for processes, clocks and the network
SIDE_BY_SIDE = -n $(shell $(PY) -c 'import os; print(min(6, (os.cpu_count() or 1) + 2))') --dist worksteal

.PHONY: help .venv demo demo-variants screenshots run test test-all test-runtimes runtimes-table sbom check fix bench clean

help:  ## List the commands
	@awk -F ':.*## ' '/^[.a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' Makefile

.venv: $(STAMP)  ## Set up the virtual environment, of files whose hashes are in requirements/

# other extras than the usual ones have their versions from constraints.txt, without hashes
ifeq ($(EXTRAS),$(USUAL))
INSTALL = --require-hashes $(addprefix -r ,$(LOCKS)) && \
	  $(PY) -m pip install --quiet --disable-pip-version-check --no-input \
	  --no-deps --no-build-isolation -e .
else
INSTALL = -c constraints.txt -e '.[$(EXTRAS)]'
endif

$(STAMP): pyproject.toml constraints.txt $(LOCKS)
	@test -n "$(PYTHON)" || { echo "No Python 3.10 or later with venv was found." \
	  "Install one (on Debian: python3-venv) or name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	@test -x $(PY) || { echo "Making .venv with $(PYTHON)"; "$(PYTHON)" -m venv .venv; }
	@echo "Installing what pyproject.toml asks for"
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-input $(INSTALL)
	@touch $(STAMP)

demo: $(STAMP)  ## The whole chain on this machine: server, six agents, good and bad versions
	@$(PY) -m demo $(ARGS)

demo-variants: $(STAMP)  ## One model as several builds, each kind of device ending on its best one
	@$(PY) -m demo.variants

screenshots: $(STAMP)  ## Pictures of each page for docs/img, with LINK=… as `make demo` prints it
	@$(PY) -m tools.screenshots "$(LINK)" $(ARGS)

run: $(STAMP)  ## Start a server on ./.data (or DATA=…), initialised on first use
	@test -e "$(DATA)/keys" || $(PY) -m pilotwave_server.cli init --data "$(DATA)" --fleet local
	@$(PY) -m pilotwave_server.cli run --data "$(DATA)" $(ARGS)

# What fails runs once more, one at a time: real programs with real clocks share the cores here, and
# a fault shows without the others too. Both lists of failures are printed.
test: $(STAMP)  ## Run the tests that take seconds, each on one kind of database
	@$(PY) -m pytest $(SIDE_BY_SIDE) -m "not slow and not long" --databases one $(ARGS) || { test $$? = 1 && \
	  echo "== Those that failed, once more, one at a time" && \
	  $(PY) -m pytest -m "not slow and not long" --databases one -x --last-failed \
	    --last-failed-no-failures none $(ARGS); }

test-all: .venv/.torch .venv-tflite/.installed .venv-onnx2tf/.installed .venv-client/.installed .venv-helm/.installed .venv-mlserver/.installed .venv-triton/.installed  ## Run every test, on each database, with every runtime
	@$(PY) -m pytest $(SIDE_BY_SIDE) $(ARGS)

test-runtimes: .venv/.torch .venv-tflite/.installed .venv-onnx2tf/.installed  ## Install the large and the old runtimes too; test them all
	@$(PY) -m pytest -n 2 --maxprocesses 2 --dist worksteal \
	  tests/agent/runtimes tests/e2e/test_runtimes.py \
	  tests/cli/optimize/test_large_tools.py tests/cli/optimize/test_torch_export.py $(ARGS)

.venv/.torch: $(STAMP)
	@echo "Installing PyTorch, ExecuTorch, onnxscript, llama.cpp, NNCF and LiteRT's quantizer"
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-input \
	  -c constraints.txt -e '.[$(EXTRAS),torch,executorch,llama-cpp,optimize-torch,optimize-openvino,optimize-litert]'
	@touch $@

# it ended with numpy 1 and Python 3.11; beyond that, its tests are deselected with a word
.venv-tflite/.installed: | $(STAMP)
	@if $(PY) -c 'import sys; sys.exit(sys.version_info >= (3, 12))'; then \
	  echo "Making .venv-tflite"; $(PY) -m venv .venv-tflite && \
	  .venv-tflite/bin/python -m pip install --quiet --disable-pip-version-check --no-input \
	    "numpy<2" "tflite-runtime==2.14.0" && touch $@; \
	else echo "tflite-runtime ended with Python 3.11: its tests are left out"; fi

# it pins all that it needs, and takes TensorFlow before Python 3.12; without one, its tests are
# deselected with a word
.venv-onnx2tf/.installed: | $(STAMP)
	@if python3.12 -c '' 2>/dev/null; then \
	  echo "Making .venv-onnx2tf"; python3.12 -m venv .venv-onnx2tf && \
	  .venv-onnx2tf/bin/python -m pip install --quiet --disable-pip-version-check --no-input \
	    "onnx2tf==2.6.9" && touch $@; \
	else echo "onnx2tf needs python3.12, which is not here: its tests are left out"; fi

# the maker of the generated API client, of which tests/e2e/test_generated_client.py is
.venv-client/.installed: | $(STAMP)
	@echo "Making .venv-client"; $(PY) -m venv .venv-client && \
	  .venv-client/bin/python -m pip install --quiet --disable-pip-version-check --no-input \
	    "openapi-python-client==0.29.1" && touch $@

# Helm's own library and Kubernetes' schemas (350 MB), of which tests/deploy/test_helm.py is
.venv-helm/.installed: | $(STAMP)
	@echo "Making .venv-helm"; $(PY) -m venv .venv-helm && \
	  .venv-helm/bin/python -m pip install --quiet --disable-pip-version-check --no-input \
	    "helm-python-sdk==0.2.2" "kubernetes-validate==1.37.0" && touch $@

# model servers (330 and 370 MB), of which tests/agent/test_tiers_real.py and test_triton_real.py are;
# neither has builds for Python 3.13
.venv-mlserver/.installed .venv-triton/.installed: package = $(if $(findstring triton,$@),nvidia-pytriton==0.7.0,mlserver==1.7.1)
.venv-mlserver/.installed .venv-triton/.installed: | $(STAMP)
	@if $(PY) -c 'import sys; sys.exit(sys.version_info >= (3, 13))'; then \
	  echo "Making $(@D)"; $(PY) -m venv $(@D) && \
	  $(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-input \
	    "$(package)" && touch $@; \
	else echo "$(package) is not there for this Python: its tests are left out"; fi

runtimes-table: .venv/.torch .venv-tflite/.installed  ## Run each runtime's story; write the table in docs/runtimes.md
	@rm -rf .runtimes && mkdir .runtimes
	@PILOTWAVE_RUNTIMES_FOUND=$(CURDIR)/.runtimes $(PY) -m pytest tests/e2e/test_runtimes.py $(ARGS)
	@$(PY) -m tools.runtimes .runtimes

sbom: $(STAMP)  ## Bill of materials (CycloneDX) of an environment: FOLDER=/opt/pilotwave of an image
	@$(PY) -m tools.sbom "$(or $(FOLDER),.venv)" $(ARGS)

check: $(STAMP)  ## Format, lint, types, directions of imports, migrations
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(PY) -m mypy
	@.venv/bin/lint-imports
	@$(PY) -m tools.check_migrations

fix: $(STAMP)  ## Format, and mend what the linter can mend
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .

bench: $(STAMP)  ## Run every measurement in its short form; figures go to bench/results/
	@mkdir -p bench/results
	@for file in bench/*.py; do name=$$(basename "$$file" .py); \
	  case "$$name" in _*) continue;; esac; echo "== $$name"; \
	  $(PY) "$$file" --quick --json "bench/results/$$name.json" || exit 1; done

clean:  ## Remove .venv, caches and built files (never data)
	@rm -rf .venv .venv-tflite .venv-onnx2tf .venv-client .venv-helm .venv-mlserver .venv-triton .runtimes .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis \
	  .schemathesis build dist bench/results
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
