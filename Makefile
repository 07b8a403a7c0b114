# SPDX-License-Identifier: GPL-2.0-or-later
#
# make validate   the main job: from nothing to a verdict
# make test       unit and functional tests
# make setup      leaves a working .venv/bin/vfio-p2p

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Passed on, e.g. make validate ARGS="--seed 43"
ARGS ?=

.PHONY: setup packages validate test lint types unit functional requirements
.PHONY: clean

setup: packages $(VENV)/runtime.stamp

packages:
	@sh tools/install-packages.sh packages.txt

# An interrupted one has a Python, and may have no pip.
$(VENV)/made.stamp: | packages
	$(PYTHON) tools/check-python.py
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip --version >/dev/null
	@touch $@

$(VENV)/runtime.stamp: requirements.txt pyproject.toml $(VENV)/made.stamp
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation \
		--no-index --editable .
	@touch $@

$(VENV)/dev.stamp: requirements-dev.txt $(VENV)/runtime.stamp
	$(BIN)/python -m pip install --quiet --require-hashes \
		-r requirements-dev.txt
	@touch $@

validate: setup
	$(BIN)/vfio-p2p validate $(ARGS)

test: unit functional

lint: setup $(VENV)/dev.stamp
	$(BIN)/ruff check harness tests tools benchmarks

types: setup $(VENV)/dev.stamp
	$(BIN)/mypy

unit: setup $(VENV)/dev.stamp
	$(BIN)/pytest tests/unit

# Avocado puts a time limit on each test; building QEMU is none of them.
functional: setup $(VENV)/dev.stamp
	@sh tools/install-packages.sh packages-test.txt
	$(BIN)/vfio-p2p build
	$(BIN)/vfio-p2p testbed image
	$(BIN)/vfio-p2p testbed image --device mtty
	PYTHONWARNINGS="ignore:pkg_resources" $(BIN)/avocado run \
		--job-results-dir out/avocado --max-parallel-tasks=2 \
		tests/functional

# Pins, with the hashes of all files that the index has.
requirements: setup
	$(BIN)/python -m pip install --quiet pip-tools
	for list in requirements requirements-dev \
			images/testbed/requirements; do \
		$(BIN)/pip-compile --quiet --generate-hashes --no-header \
			--no-emit-index-url --no-emit-find-links \
			--allow-unsafe --strip-extras \
			-o $$list.txt $$list.in || exit; \
	done

clean:
	rm -rf $(VENV) .tox out
