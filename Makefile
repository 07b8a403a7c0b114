# SPDX-License-Identifier: GPL-2.0-or-later
#
# make validate   do the main job: from nothing to a verdict
# make test       run the unit tests, the functional tests and the lab's tests
# make fuzz       give damaged inputs to all readers, e.g. MINUTES=60
# make fuzz-load  load corrupted device streams into QEMU
# make debug-kernel  test the simulated device on a kernel that finds errors
# make docs       build the documentation in out/docs
# make setup      make a working .venv/bin/vfio-p2p

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# The arguments of vfio-p2p, e.g. make validate ARGS="--seed 43"
ARGS ?=

# How long 'make fuzz' takes.
MINUTES ?= 10

# The tests of 'make lab', which need the lab's VMs.
LAB_TESTS := tests/functional/hosts tests/functional/test_lab.py
FUNCTIONAL_TESTS := $(filter-out $(LAB_TESTS), \
	$(wildcard tests/functional/test_*.py))
AVOCADO = PYTHONWARNINGS="ignore:pkg_resources" $(BIN)/avocado \
	--config tests/functional/avocado.conf run --job-results-dir out/avocado

.PHONY: setup packages validate test lint types unit functional lab docs
.PHONY: check-c debug-kernel fuzz fuzz-load requirements clean

setup: packages $(VENV)/runtime.stamp

packages:
	@sh tools/install-packages.sh packages.txt

# pip is run since an interrupted venv has a Python, and possibly no pip.
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

$(VENV)/docs.stamp: requirements-docs.txt $(VENV)/dev.stamp
	$(BIN)/python -m pip install --quiet --require-hashes \
		-r requirements-docs.txt
	@touch $@

validate: setup
	$(BIN)/vfio-p2p validate $(ARGS)

test: unit functional lab

lint: setup $(VENV)/dev.stamp
	$(BIN)/ruff check harness tests tools benchmarks docs

# The extensions of the documentation are checked, too, and import Sphinx.
types: setup $(VENV)/docs.stamp
	$(BIN)/mypy

# The modules and the guest of images/: sparse, gcc's analyzer, more warnings.
check-c: setup
	@sh tools/install-packages.sh packages-test.txt
	PYTHON=$(BIN)/python tools/check-c.sh

unit: setup $(VENV)/dev.stamp
	$(BIN)/pytest tests/unit

# QEMU and the testbed are built first, since Avocado limits the time of each
# test.
functional: setup $(VENV)/dev.stamp
	@sh tools/install-packages.sh packages-test.txt
	@if pkg-config --exists libvirt; then \
		$(BIN)/python -m pip install --quiet --require-hashes \
			--no-build-isolation -r requirements-libvirt.txt \
		|| echo "Without libvirt's binding, its tests are cancelled."; \
	fi
	$(BIN)/vfio-p2p build
	$(BIN)/vfio-p2p testbed image
	$(BIN)/vfio-p2p testbed image --device mtty
	$(BIN)/vfio-p2p testbed image --device p2pvf
	$(BIN)/vfio-p2p testbed image --kernel own
	$(AVOCADO) --max-parallel-tasks=2 $(FUNCTIONAL_TESTS)

# One at a time: the lab's VMs take most of a small machine.
lab: setup $(VENV)/dev.stamp
	@sh tools/install-packages.sh packages-test.txt
	$(BIN)/vfio-p2p build
	$(AVOCADO) --max-parallel-tasks=1 $(LAB_TESTS)

# atheris is used where its wheel can be installed.
$(VENV)/fuzz.stamp: requirements-fuzz.txt $(VENV)/dev.stamp
	$(BIN)/python -m pip install --quiet --require-hashes \
		--only-binary :all: -r requirements-fuzz.txt \
		|| echo "There is no atheris for this Python."
	@touch $@

fuzz: setup $(VENV)/fuzz.stamp
	$(BIN)/python tests/fuzz/fuzz.py --minutes $(MINUTES) $(ARGS)

fuzz-load: setup $(VENV)/dev.stamp
	$(BIN)/python tools/fuzz-load.py $(ARGS)

# It takes half an hour; 50 migrations, and the device's own test.
debug-kernel: setup
	$(BIN)/vfio-p2p testbed selftest --kernel debug
	$(BIN)/vfio-p2p validate --variant patched --kernel debug --seeds 5 \
		--scenario ping-pong-two-devices-with-traffic --out out/debug

docs: setup $(VENV)/docs.stamp
	$(BIN)/sphinx-build -W --keep-going --quiet docs out/docs

# The pins, with the hashes of all files that the index has.
requirements: setup
	$(BIN)/python -m pip install --quiet pip-tools
	for list in requirements requirements-dev requirements-docs \
			requirements-libvirt requirements-fuzz \
			images/testbed/requirements; do \
		$(BIN)/pip-compile --quiet --generate-hashes --no-header \
			--no-emit-index-url --no-emit-find-links \
			--allow-unsafe --strip-extras \
			-o $$list.txt $$list.in || exit; \
	done

clean:
	rm -rf $(VENV) .tox out
