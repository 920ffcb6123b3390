# Every target first makes .venv if it is missing or older than pyproject.toml or constraints.txt.
PYTHON ?= python3
DATA ?= real
ARGS ?=
BIN := .venv/bin
READY := .venv/.ready
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: help demo demo-seeds test test-slow test-gpu lint bench-data bench-metrics bench-attention bench-train bench-sample \
	bench-report list tables report lint-published publish-demo regression-baseline toy-networks drill clean
.DEFAULT_GOAL := help

help: ## print this help
	@grep -hE '^[a-z%-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-22s %s\n", $$1, $$2}'
	@echo "  ARGS='key=value ...' is handed on, e.g. make reproduce-manigan ARGS='trainer=cpu logger=wandb'"

$(READY): pyproject.toml constraints.txt
	@start=$$(date +%s) && \
	$(PYTHON) -m venv .venv && \
	$(INSTALL) torch && \
	$(INSTALL) --editable '.[dev]' && \
	echo "installed in $$(( $$(date +%s) - start )) s"
	@touch $@

demo: $(READY) ## set up, make toy data, generate, score, print published beside reproduced
	OMP_NUM_THREADS=1 $(BIN)/mmbench reproduce experiment=demo data.source=toy trainer=cpu $(ARGS)

demo-seeds: $(READY) ## does a trained method edit, in each of three seeds?
	OMP_NUM_THREADS=1 $(BIN)/mmbench reproduce experiment=demo_seeds data.source=toy trainer=cpu $(ARGS)

test: $(READY) ## set up and run the tests, one process on each core
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal $(ARGS)

test-slow: $(READY) ## run the tests that CI cannot afford
	$(BIN)/python -m pytest -m slow $(ARGS)

test-gpu: $(READY) ## run the tests that need a CUDA device: every method there is what it is on the processor
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m gpu $(ARGS)

lint: $(READY) ## check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench-data: $(READY) ## images/s of the data loaders (ARGS=FOLDER of .jpg files; made for it if none)
	$(BIN)/python -m mmbench.benchmarks.data $(ARGS)

bench-metrics: $(READY) ## speed of networks, suite and FID beside the peers (ARGS=COUNT of images)
	$(BIN)/python -m mmbench.benchmarks.metrics $(ARGS)

bench-attention: $(READY) ## coherent semantic attention beside a plain transcription (ARGS=CHANNELS)
	$(BIN)/python -m mmbench.benchmarks.attention $(ARGS)

bench-train: $(READY) ## a training step beside the authors' schedule (ARGS='[check] METHOD[=BATCH_SIZE] ...')
	$(BIN)/python -m mmbench.benchmarks.training $(ARGS)

bench-sample: $(READY) ## steps and tokens a second beside a plain transcription (ARGS='[check] [denoising] [decoding]')
	$(BIN)/python -m mmbench.benchmarks.sampling $(ARGS)

bench-report: $(READY) ## seconds and MB of a site of 45 tables beside the goals (ARGS='[TABLES] [key=value ...]')
	$(BIN)/python -m mmbench.benchmarks.report $(ARGS)

list: $(READY) ## list methods, data sets, protocols, metrics and experiments
	$(BIN)/mmbench list $(ARGS)

train-%: $(READY) ## train a method (DATA=toy|real)
	$(BIN)/mmbench train method=$* data.source=$(DATA) $(ARGS)

reproduce-%: $(READY) ## run the rows of a published table (DATA=toy|real)
	$(BIN)/mmbench reproduce experiment=$* data.source=$(DATA) $(ARGS)

resume-%: $(READY) ## the same as reproduce-%: what has a record is not run again (DATA=toy|real)
	$(BIN)/mmbench reproduce experiment=$* data.source=$(DATA) $(ARGS)

table-%: $(READY) ## print a table from the records that are there (DATA=toy|real)
	$(BIN)/mmbench table experiment=$* data.source=$(DATA) $(ARGS)

tables: $(READY) ## write every table that has records
	$(BIN)/mmbench table $(ARGS)

report: $(READY) ## build the site: tables, claims, samples, in one folder (ARGS='out=FOLDER')
	$(BIN)/mmbench report $(ARGS)

lint-published: $(READY) ## write which of the published numbers cannot be (results/tables/lint.md)
	$(BIN)/mmbench lint out=results/tables/lint.md $(ARGS)

publish-demo: $(READY) ## write the values that the demo is compared with, from its records
	$(BIN)/python -m mmbench.maintenance.publish

regression-baseline: $(READY) ## train again what the regression tests compare with (ARGS=fast, slow, inpainting or synthesis; all: 55 minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m mmbench.maintenance.regression $(ARGS)

toy-networks: $(READY) ## train the small networks that judge and guide on toy data
	$(BIN)/python -m mmbench.maintenance.toy_networks $(ARGS)

drill: $(READY) ## disturb small runs in 30 ways and compare what they end with (ARGS='rounds=5 seed=1')
	OMP_NUM_THREADS=1 $(BIN)/python -m mmbench.maintenance.drill $(ARGS)

clean: ## remove the environment and all runs; data, weights and results stay
	rm -rf .venv runs dist build .pytest_cache .ruff_cache .mypy_cache *.egg-info
