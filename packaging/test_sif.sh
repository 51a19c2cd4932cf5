#!/usr/bin/env bash
# Test an Apptainer image the way it is used: packaging/test_sif.sh APPTAINER FILE.sif
set -euo pipefail

apptainer=$1
sif=$(readlink -f "$2")
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/home" "$work/models" "$work/modules"
cp "$root"/packaging/self_test/haemoglobin_alpha.{map.gz,fasta} "$work"
cp -r "$root/models/compact" "$work/models/mine"
# What a module of the host might leave behind.
echo 'raise ImportError("the host reached into the image")' > "$work/modules/numpy.py"
cp "$work/modules/numpy.py" "$work"

say() { echo "ok: $*"; }
fail() { echo "FAILED: $*" >&2; exit 1; }

$apptainer test "$sif"
say "%test"

$apptainer run-help "$sif" | grep 'angelo.sif map.mrc' > /dev/null || fail "%help"
$apptainer inspect "$sif" | grep 'angelo.bundle.sha256: [0-9a-f]\{64\}' > /dev/null || fail "%labels"
for app in build search evaluate doctor; do
    $apptainer run --app "$app" "$sif" --help | grep "angelo $app" > /dev/null || fail "%apprun $app"
done
say "help, labels and apps"

cd "$work"
PYTHONPATH=$work/modules $apptainer run --contain --home "$work/home" --bind "$work:$work" \
    --pwd "$work" "$sif" haemoglobin_alpha.map.gz haemoglobin_alpha.fasta --device cpu
[ -s "$work/haemoglobin_alpha_angelo/haemoglobin_alpha_angelo.cif" ] || fail "no model"
[ -z "$(ls -A "$work/home")" ] || fail "something was written to the home folder"
say "a build that leaves the home folder alone"

$apptainer run --bind "$work/models:/models:ro" --env ANGELO_MODELS=/models --env COLUMNS=200 \
    "$sif" bundles | grep '/models/mine' > /dev/null || fail "a bundle in ANGELO_MODELS is not listed"
say "bundles outside of the image"
if [[ $sif != *gpu* ]]; then
    :
elif [ ! -c /dev/nvidia0 ]; then
    echo "SKIPPED: what is said when --nv is missing: no GPU here"
else
    if message=$($apptainer --quiet run --bind "$work:$work" --pwd "$work" "$sif" \
        haemoglobin_alpha.map.gz haemoglobin_alpha.fasta --out slow 2>&1); then
        fail "without --nv it crawls on the processor"
    fi
    [[ $message == *"start it with --nv"* ]] || fail "no word of --nv: $message"
    say "without --nv: $message"
fi

say "$(($(stat -c %s "$sif") / 1000000)) MB"
