# Targets for lock files and images, included by the Makefile; docs/images.md describes them.

# Newest versions that runtime/pyproject.toml allows, with checksums. Both images have the same
# versions; docs/images.md says why the GPU image does without what is left out here.
UV := $(VENV)/bin/uv pip compile --quiet --upgrade --generate-hashes --no-annotate \
    --no-emit-index-url --no-emit-find-links --python-version 3.13 \
    --python-platform x86_64-manylinux_2_28 --custom-compile-command 'make locks'
NOT_IN_GPU := onnxruntime nvidia-cufft nvidia-nvjitlink
# Prints what builds the package.
BUILD_REQUIRES := import tomllib; \
    print(*tomllib.load(open("runtime/pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")

# Which images to make: cpu, gpu or both.
TARGETS ?= cpu
ENGINE ?= $(shell packaging/engine.sh)
APPTAINER ?= apptainer
# Options for the engine's build and run and for apptainer build, for machines that need some.
BUILD_FLAGS ?=
RUN_FLAGS ?=
SIF_FLAGS ?=

VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' runtime/angelo/__init__.py)
REVISION = $(shell git describe --always --dirty --abbrev=40 2> /dev/null || echo unknown)
BUNDLE_SHA256 = $(shell sha256sum models/compact/bundle.json | cut -d ' ' -f 1)
BUILD_ARGS = $(foreach name,VERSION REVISION BUNDLE_SHA256,--build-arg $(name)=$($(name)))
# The Dockerfile sets these from the arguments; Buildah 1.28 takes older ones from its cache.
LABELS = --label org.opencontainers.image.version=$(VERSION) \
    --label org.opencontainers.image.revision=$(REVISION) \
    --label angelo.bundle.sha256=$(BUNDLE_SHA256)

# Maps of the array that is timed, and what goes before angelo on nodes.
MAPS_IN_ARRAY ?= 10
LAUNCHER ?=
# The database of the README's search, and what the transcript is to say of the machine.
DATABASE ?= examples/5ni1.fasta
NOTE ?=

.PHONY: locks image sif image-test slurm-test transcript

locks:
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PIP) install 'uv>=0.13,<0.14'
	$(PY) -c '$(BUILD_REQUIRES)' | $(UV) - -o locks/build.txt
	$(UV) runtime/pyproject.toml -o locks/cpu.txt
	$(UV) runtime/pyproject.toml --extra gpu --constraint locks/cpu.txt -o locks/gpu.txt \
	    $(addprefix --no-emit-package ,$(NOT_IN_GPU))

image:
	@test -n '$(ENGINE)' || { echo 'no image without docker or podman' >&2; exit 1; }
	for target in $(TARGETS); do \
	    $(ENGINE) build $(BUILD_FLAGS) $(BUILD_ARGS) $(LABELS) \
	        --target $$target --tag angelo:$$target .; \
	done

sif:
	for target in $(TARGETS); do \
	    $(APPTAINER) build --force $(SIF_FLAGS) $(BUILD_ARGS) --build-arg VARIANT=$$target \
	        angelo-$$target.sif apptainer.def; \
	done

# Builds and tests what can be built here, and says what cannot and why.
image-test:
	@TARGETS='$(TARGETS)' APPTAINER='$(APPTAINER)' RUN_FLAGS='$(RUN_FLAGS)' \
	    REVISION='$(REVISION)' HADOLINT='$(VENV)/bin/hadolint' packaging/image_test.sh

# Batches under a real Slurm that it starts for itself; says why if it cannot.
slurm-test:
	@ANGELO='$(ANGELO)' MAPS='$(MAPS_IN_ARRAY)' LAUNCHER='$(LAUNCHER)' packaging/slurm_test.sh

# What the README's commands do in a fresh clone.
transcript:
	$(PYTHON) packaging/transcript.py --database $(DATABASE) --note '$(NOTE)' > transcript.md
	mv transcript.md docs/transcript.md
