# make train   pack real images, train a DDPM on them, sample, score (a few minutes on two CPU cores)
# make test    run the tests
# make lint    check style and types
# make bench   measure against peers
# Each sets up what it needs, in .venv, from nothing but Python 3.11+ with pip.

PYTHON ?= python3
RUN := .venv/bin/python
DATA := shards/digits
RUN_DIRECTORY := runs/ddpm_digits

.PHONY: train test lint bench setup lock clean
.DELETE_ON_ERROR:

setup: .venv/ready

# The interpreter's own pip installs into .venv: a Debian without python3-venv has no pip to put there.
.venv/ready: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "quasistatic needs Python 3.11 or later")'
	$(PYTHON) -m venv --without-pip .venv
	$(PYTHON) -m pip --python $(RUN) install --quiet --requirement requirements.lock
	@touch $@

train: setup
	$(RUN) -m launch.pack source=digits out=$(DATA)
	$(RUN) -m launch.train experiment=ddpm_digits run.directory=$(RUN_DIRECTORY) data.shards=$(DATA)/train
	$(RUN) -m launch.sample run.directory=$(RUN_DIRECTORY) count=64
	$(RUN) -m launch.evaluate run.directory=$(RUN_DIRECTORY) held_out=$(DATA)/test
	@echo
	@echo "samples     $$(ls -d $(RUN_DIRECTORY)/samples/*/ | tail -n 1)grid.png"
	@echo "checkpoint  $$(ls -d $(RUN_DIRECTORY)/checkpoints/* | tail -n 1)"
	@echo "watch       .venv/bin/tensorboard --logdir $(RUN_DIRECTORY)"
	@echo "go on       $(RUN) -m launch.train experiment=ddpm_digits run.directory=$(RUN_DIRECTORY) data.shards=$(DATA)/train run.images=700_000"

test: setup
	$(RUN) -m pytest --numprocesses auto --dist worksteal

lint: setup
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy

bench: setup
	$(RUN) -m benchmarks.all

# Resolves requirements*.in anew in an empty environment and writes down what came.
lock:
	rm -rf build/lock && $(PYTHON) -m venv --without-pip build/lock
	$(PYTHON) -m pip --python build/lock/bin/python install --quiet torch==2.13.0
	$(PYTHON) -m pip --python build/lock/bin/python install --quiet --requirement requirements-dev.in
	{ echo "# Exact versions of all that the system, its tests and its benchmarks use; made by \`make lock\`."; \
	  $(PYTHON) -m pip --python build/lock/bin/python freeze | sed 's/^\(torch==[0-9.]*\)+.*/\1/'; } > requirements.lock

clean:
	rm -rf .venv build .mypy_cache .ruff_cache .pytest_cache .hypothesis
