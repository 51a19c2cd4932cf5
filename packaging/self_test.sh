#!/bin/sh
# Build a tiny map (one chain of haemoglobin) and look at what comes out: angelo-self-test.
# Options are passed on to angelo build, for example --device cuda.
set -eu

here=$(dirname "$(readlink -f "$0")")
inputs=$here/../share/self_test
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

"$here/angelo" build "$inputs/haemoglobin_alpha.map.gz" "$inputs/haemoglobin_alpha.fasta" \
    --out "$out/run" "$@"
built=$(grep -c '^ATOM .* CA ' "$out/run/run.cif")
if [ "$built" -lt 60 ]; then
    echo "self-test failed: $built residues of 141 were built and matched, fewer than 60" >&2
    exit 1
fi
echo "self-test passed: $built residues of 141 were built and matched"
