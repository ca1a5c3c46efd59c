# `make` lists the commands. Each one sets up .venv by itself.
.DEFAULT_GOAL := help
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10; do \
	"$$p" -c 'import sys, venv; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1 && { echo "$$p"; break; }; done)
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.10 or later with venv was found; name one with PYTHON=/path/to/python3."; exit 1; }
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[server,cli,onnxruntime,dev]'
	@touch $@

.PHONY: .venv help
.venv: $(STAMP)  ## Set up the virtual environment

help:  ## List the commands
	@grep -hE '^[.a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 14
