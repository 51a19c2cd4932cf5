# make demo   build a model into the example map, on the CPU, and compare it with the deposited one
# make test   lint, types and tests
# Both set themselves up in .venv the first time. The other targets are for developers:
# setup lint bench bench-models bench-sequence bench-layers bench-targets bench-calpha bench-realism bench-hand bench-search train weights
# bundle calibrate import-modelangelo clean, described in docs/develop.md and docs/weights.md;
# locks image sif image-test slurm-test transcript, described in docs/images.md and docs/hpc.md.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV ?= .venv
# The CPU build where the package index has one; elsewhere see docs/develop.md.
TORCH ?= torch==2.13.0
# Files from which the networks are trained, and where the results go.
STRUCTURES ?= data/structures
MAPS ?= data/maps
# The structures, packed: make train learns from them, make bench builds their val entries.
PACKED_STRUCTURES ?= data/structures.npz
RUNS ?= runs
# Trained networks in git: training starts from them.
WEIGHTS ?= training/weights
BUNDLE ?= models/compact
# Minutes of training for each network, and where it runs.
MINUTES ?= 60
DEVICE ?= cpu
SEED ?= 0
# Share of the graph network's examples without sequences; a bundle with reads_sequences wants 0.15.
UNREAD ?= 0.9
# Processes that simulate maps while the network learns; more for a GPU.
WORKERS ?= 1

PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet
ANGELO := $(VENV)/bin/angelo
# Empty files that say what is installed; older than a pyproject.toml means: install again.
RUNTIME := $(VENV)/.angelo-runtime
WORKSPACE := $(VENV)/.angelo-workspace
DEMO := demo/emd_3488

.PHONY: help setup demo test lint bench bench-models bench-sequence bench-layers bench-targets bench-calpha bench-realism bench-hand bench-search train weights bundle calibrate import-modelangelo clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

$(RUNTIME): runtime/pyproject.toml runtime/hatch_build.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "angelo needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; name another with make PYTHON=...")'
	@echo "installing angelo into $(VENV) (a minute or two)"
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --editable ./runtime
	@touch $@

$(WORKSPACE): $(RUNTIME) pyproject.toml export/pyproject.toml training/pyproject.toml
	@echo "installing torch, angelo-export, angelo-training and the test tools into $(VENV) (a few minutes)"
	@$(PIP) install 'pip>=25.1' # has --group
	@$(PIP) install $(TORCH)
	@$(PIP) install --editable ./runtime --editable ./export --editable ./training --group dev
	@touch $@

setup: $(WORKSPACE)

demo: $(RUNTIME)
	$(ANGELO) build examples/emd_3488.map.gz examples/5ni1.fasta -o $(DEMO) --device cpu --overwrite
	@echo "All that was built, against the deposited model 5NI1:"
	$(ANGELO) evaluate $(DEMO)/emd_3488_raw.cif examples/5ni1.cif.gz
	@echo "What the sequences support, against the deposited model 5NI1:"
	$(ANGELO) evaluate $(DEMO)/emd_3488.cif examples/5ni1.cif.gz
	@echo "The files are in $(DEMO):"
	@ls -l $(DEMO)

# What needs engines of images, or Slurm, takes many minutes: WITH_IMAGES=1 make test does it too.
test: lint
	$(PY) -m pytest
	@if [ -n "$${WITH_IMAGES:-}" ]; then $(MAKE) --no-print-directory image-test slurm-test; \
	else echo 'SKIPPED: images, batches under Slurm: WITH_IMAGES is not set (make image-test slurm-test)'; fi

lint: $(WORKSPACE)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

# Simulated entries of the benchmarks, each at several resolutions; the real maps come with them.
ENTRIES ?= 6
BENCH_DATA = --structures $(PACKED_STRUCTURES) --maps $(MAPS) --device $(DEVICE) --entries $(ENTRIES)
ACCURACY = $(PY) benchmarks/accuracy.py --bundle $(BUNDLE) $(BENCH_DATA)

bench: $(WORKSPACE)
	$(ACCURACY)
	$(PY) benchmarks/model_tables.py
	$(PY) benchmarks/speed.py --bundle $(BUNDLE) --device $(DEVICE)
	$(PY) benchmarks/report.py --bundle $(BUNDLE) --structures $(PACKED_STRUCTURES) --runs $(RUNS)

# The models alone: every figure of them, in benchmarks/models.md.
bench-models: $(WORKSPACE)
	$(ACCURACY)
	$(PY) benchmarks/model_tables.py

# What the sequences do for the models: the bundle's weights, exported so that they read them.
READING = build/reading
EXPORT = $(PY) -m angelo_export compact --weights $(WEIGHTS) --spectrum training/angelo_training/spectrum.json

bench-sequence: $(WORKSPACE)
	mkdir -p $(READING)
	sed 's/"reads_sequences": false/"reads_sequences": true/' $(BUNDLE)/settings.json > $(READING)/settings.json
	$(EXPORT) --settings $(READING)/settings.json --out $(READING)
	$(PY) benchmarks/sequence_gain.py --bundle $(READING) $(BENCH_DATA)

# Fewer layers of the graph network, fewer and more rounds: what they gain and cost.
bench-layers: $(WORKSPACE)
	$(PY) benchmarks/layers.py --bundle $(BUNDLE) $(BENCH_DATA)

# The C-alpha network alone, and the check of a map's hand; with CALPHA=weights.pt those of a
# weight file instead of the bundle's, with the results beside that file.
CALPHA ?=
C_ALPHA_BENCH = --bundle $(BUNDLE) $(if $(CALPHA),--weights $(CALPHA)) $(BENCH_DATA)

bench-calpha: $(WORKSPACE)
	$(PY) benchmarks/calpha.py $(C_ALPHA_BENCH)
	$(if $(CALPHA),,$(PY) benchmarks/calpha_ablation.py --bundle $(BUNDLE) $(BENCH_DATA))
	$(if $(CALPHA),,$(PY) benchmarks/solvent.py --bundle $(BUNDLE) --structures $(PACKED_STRUCTURES) --device $(DEVICE) --entries $(ENTRIES))

# How real maps differ from simulated ones, and the network's errors on either.
bench-realism: $(WORKSPACE)
	$(PY) benchmarks/realism.py --maps $(MAPS)
	$(PY) benchmarks/error_by_quality.py --bundle $(BUNDLE) $(BENCH_DATA)

bench-hand: $(WORKSPACE)
	$(PY) benchmarks/hand.py $(C_ALPHA_BENCH)

# What is reached of what we set out to: after bench-models and bench-calpha of the same bundle.
bench-targets: $(WORKSPACE)
	$(PY) benchmarks/targets.py

# The example without sequences, and its chains among the sequences of a FASTA file.
SEQUENCES ?= data/proteins.fasta.gz

bench-search: $(WORKSPACE)
	$(PY) benchmarks/search.py --bundle $(BUNDLE) --sequences $(SEQUENCES) --device $(DEVICE) --readme README.md

# Each network goes on from its checkpoint in RUNS, else starts from its file in WEIGHTS, else afresh.
start_from = $(if $(wildcard $(WEIGHTS)/$(1).pt),--start-from $(WEIGHTS)/$(1).pt)
TRAINING = --minutes $(MINUTES) --device $(DEVICE) --seed $(SEED)

$(PACKED_STRUCTURES): | $(WORKSPACE)
	$(PY) -m angelo_training pack $(STRUCTURES) --out $@

train: $(WORKSPACE) $(PACKED_STRUCTURES)
	$(PY) -m angelo_training c-alpha --structures $(PACKED_STRUCTURES) --out $(RUNS)/c_alpha \
	    $(TRAINING) --workers $(WORKERS) $(call start_from,c_alpha)
	$(PY) -m angelo_training context --out $(RUNS)/language/weights.pt
	$(PY) -m angelo_training gnn --structures $(PACKED_STRUCTURES) --out $(RUNS)/gnn \
	    --calpha-weights $(RUNS)/c_alpha/weights.pt --language-weights $(RUNS)/language/weights.pt \
	    $(TRAINING) --workers $(WORKERS) --unread-rate $(UNREAD) $(call start_from,gnn)

# Keep what was trained: small weight files go to git, and the next training starts from them.
weights:
	@mkdir -p $(WEIGHTS)
	for network in c_alpha language gnn; do cp $(RUNS)/$$network/weights.pt $(WEIGHTS)/$$network.pt; done

bundle: $(WORKSPACE)
	$(EXPORT) --settings $(BUNDLE)/settings.json --out $(BUNDLE)

# What predicted errors mean, measured and put into the bundle: after make bundle, before make bench.
calibrate: $(WORKSPACE)
	$(PY) benchmarks/calibrate.py --bundle $(BUNDLE) $(BENCH_DATA)

# ModelAngelo's own weights, brought by the user: make import-modelangelo WEIGHTS=original.zip ESM=esm1b_t33_650M_UR50S.pt
# (HALF=1: in half precision).
import-modelangelo: $(WORKSPACE)
	$(if $(filter file,$(origin WEIGHTS)),$(error give the official bundle, its folder or zip: make import-modelangelo WEIGHTS=original.zip))
	$(PY) -m angelo_export import-modelangelo "$(WEIGHTS)" $(if $(ESM),--esm "$(ESM)") \
	    $(if $(HALF),--half-precision) -o "models/$$(basename "$(WEIGHTS)" .zip)"

include packaging/images.mk

clean:
	rm -rf demo build dist .pytest_cache .ruff_cache .mypy_cache
	find runtime export training tests -name __pycache__ -prune -exec rm -rf {} +
