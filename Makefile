# Everything runs in a virtual environment of its own, so a bare machine needs python3.11, pip and make only.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.10 || command -v python3)
VENV ?= .venv
EXTRA ?= cpu
TPU_VENV ?= .venv-tpu
RUN_DIR ?= runs/nuclei_demo
BIN = $(VENV)/bin
NUCLEI = examples/nuclei

.PHONY: help install demo lint test test-ci test-all attack benchmark tpu-install tpu-test tpu-check tpu-check-r50 clean

help:
	@echo "make demo      install, train on examples/nuclei, evaluate, write pictures to $(RUN_DIR)/pictures"
	@echo "make test      install and run the tests; make test-ci those that CI adds, make test-all all, the slow ones too"
	@echo "make attack    readers and writers under attack for MINUTES=60 minutes, in runs/attack (docs/reliability.md)"
	@echo "make lint      ruff and pyright, as CI runs them"
	@echo "make benchmark the training step of ResNet-50 at 512 x 512, with and without XLA"
	@echo "make tpu-test        the TPU kernels and four host replicas, tested (installs 3.3 GB)"
	@echo "make tpu-check       the small network's step compiled by the TPU's own compiler for v2 to v6e, then these tests"
	@echo "make tpu-check-r50   the same for ResNet-50 at 640 x 640; about an hour"
	@echo "make install   the virtual environment alone; EXTRA=gpu for a GPU"

install: $(VENV)/installed-$(EXTRA)

$(VENV)/installed-$(EXTRA): setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[$(EXTRA),test]'
	touch $@

demo: install
	$(BIN)/python -m tpu_retinamask.train --annotations=$(NUCLEI)/train.csv --classes=$(NUCLEI)/classes.csv \
	    --model_dir=$(RUN_DIR) --gin_file=run/nuclei_demo.gin
	$(BIN)/python -m tpu_retinamask.evaluate --annotations=$(NUCLEI)/val.csv --classes=$(NUCLEI)/classes.csv \
	    --model_dir=$(RUN_DIR)
	$(BIN)/python -m tpu_retinamask.predict --images='$(NUCLEI)/val/images/*.png' --model_dir=$(RUN_DIR) \
	    --output_dir=$(RUN_DIR)/pictures
	@echo "Pictures: $(RUN_DIR)/pictures    Figures: $(RUN_DIR)/metrics.json"

# Two processes, which share the cores; each test file stays in one of them.
PYTEST = $(BIN)/python -m pytest --numprocesses=2 --dist=loadfile

test: $(VENV)/installed-engines
	$(PYTEST)

test-ci: $(VENV)/installed-engines
	$(PYTEST) -m "ci and not slow and not tpu"

test-all: $(VENV)/installed-engines
	$(PYTEST) -m "not tpu"

# SEED= makes a run again; its faults are told with what makes them again.
MINUTES ?= 60
ATTACK_DIR ?= runs/attack
attack: $(VENV)/installed-$(EXTRA)
	PYTHONPATH=tests $(BIN)/python -m attack --minutes=$(MINUTES) --folder=$(ATTACK_DIR) $(if $(SEED),--seed=$(SEED))

# Not for the demo: Keras imports jax where it is installed, a second more at each start.
$(VENV)/installed-engines: $(VENV)/installed-$(EXTRA)
	$(BIN)/pip install --quiet --editable '.[test-engines]'
	touch $@

lint: $(VENV)/installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@# pyright looks at what a wheel would hold, for tpu_retinamask.ops lies elsewhere in a checkout.
	rm -rf build/lint && mkdir -p build/lint && cp -r tpu_retinamask build/lint/ && cp -r ops build/lint/tpu_retinamask/
	$(BIN)/pyright --pythonpath $(BIN)/python

$(VENV)/installed-lint: $(VENV)/installed-$(EXTRA)
	$(BIN)/pip install --quiet --editable '.[lint]'
	touch $@

benchmark: install
	$(BIN)/python -m tpu_retinamask.benchmark --gin_file=run/benchmark_r50_512.gin

# An environment of its own: the TPU build of TensorFlow overwrites the CPU's, and cannot run a compiled step here.
tpu-install: $(TPU_VENV)/installed

$(TPU_VENV)/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(TPU_VENV)
	$(TPU_VENV)/bin/pip install --quiet --editable '.[tpu-check,test]'
	touch $@

TPU_CHECK = $(TPU_VENV)/bin/python -m tpu_retinamask.tpu_check

tpu-test: tpu-install
	$(TPU_VENV)/bin/python -m pytest -m tpu tests/tpu

tpu-check: tpu-install
	$(TPU_CHECK) --gin_file=run/tpu_check_small.gin --output_dir=runs/tpu_check_small
	$(MAKE) tpu-test

tpu-check-r50: tpu-install
	$(TPU_CHECK) --gin_file=run/tpu_check_r50_640.gin --topology=v3 --topology=v4 --topology=v5e --topology=v5p \
	    --topology=v6e --output_dir=runs/tpu_check_r50_640

clean:
	rm -rf $(VENV) $(TPU_VENV) build *.egg-info
