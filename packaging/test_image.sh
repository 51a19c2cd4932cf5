#!/usr/bin/env bash
# Test an image the way it is used: packaging/test_image.sh ENGINE IMAGE (docker or podman).
# RUN_FLAGS are added to every run; REVISION is what the image was built from.
set -euo pipefail

engine=$1
image=$2
#: Largest CPU image, MB.
LARGEST=450
read -ra flags <<< "${RUN_FLAGS:-}"
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
container=angelo-test-$$
trap '$engine rm -f $container > /dev/null 2>&1 || true; rm -rf "$work"' EXIT
chmod 777 "$work"
cp "$root"/packaging/self_test/haemoglobin_alpha.{map.gz,fasta} "$work"

run() { "$engine" run --rm "${flags[@]}" "$@"; }
say() { echo "ok: $*"; }
fail() { echo "FAILED: $*" >&2; exit 1; }
label() { "$engine" image inspect --format "{{ index .Config.Labels \"$1\" }}" "$image"; }

run "$image" --help | grep 'angelo MAP FASTA' > /dev/null || fail "--help"
run "$image" --version | grep "^angelo $(label org.opencontainers.image.version)$" > /dev/null ||
    fail "the version label is not the version"
bundle="/opt/angelo/lib/python3*/site-packages/angelo/models/compact/bundle.json"
found=$(run --entrypoint sh "$image" -c "sha256sum $bundle" | cut -d ' ' -f 1)
[ "$found" = "$(label angelo.bundle.sha256)" ] || fail "the bundle is not that of the label"
[ "$(label org.opencontainers.image.licenses)" = MIT ] || fail "the licence label"
[ "$(label org.opencontainers.image.revision)" = "${REVISION:-unknown}" ] || fail "the revision label"
say "help, version and labels"

[ "$(run --entrypoint id "$image" -u)" != 0 ] || fail "it runs as root"
run --entrypoint python "$image" -c '
import importlib.util, sys
sys.exit(any(importlib.util.find_spec(name) for name in ("torch", "onnx", "pip")))' ||
    fail "torch, onnx or pip is in the image"
say "no root, no torch"

# The command of the README, from /data; the user is whoever owns the files there.
name=haemoglobin_alpha
"$engine" run --name "$container" "${flags[@]}" --user "$(id -u):$(id -g)" -v "$work:/data" \
    "$image" "$name.map.gz" "$name.fasta" --device cpu
[ -s "$work/${name}_angelo/${name}_angelo.cif" ] || fail "no model"
# What engines put there themselves: mount points and files on names of hosts.
changed=$("$engine" diff "$container" | grep -vE '^[AC] /(data|dev|etc|proc|run|sys)(/|$)' || true)
[ -z "$changed" ] || fail "these were written outside of the run folder: $changed"
say "a build in /data that writes nowhere else"

# A user nobody knows, without a home, in an image that cannot be written to, without network.
mkdir -m 777 "$work/out"
run --read-only --network none --user 54321:54321 --env TMPDIR=/scratch \
    --tmpfs /scratch:mode=1777 -v "$work:/data" --entrypoint env "$image" -u HOME \
    angelo "$name.map.gz" "$name.fasta" --device cpu --out "out/${name}_angelo"
cmp "$work"/{,out/}"${name}_angelo/${name}_angelo.cif" || fail "another model than before"
say "read-only, no network, an unknown user without a home: the same model"

run --read-only --network none --tmpfs /tmp:mode=1777 --entrypoint angelo-self-test "$image" \
    --device cpu
say "the self-test"

if message=$(run "$image" missing.mrc missing.fasta 2>&1); then
    fail "a missing map is no error"
fi
[ "$(wc -l <<< "$message")" = 1 ] || fail "more than one line for a missing map: $message"
say "one line for a missing map"

# Bundles outside of the image, read-only.
mkdir -p "$work/models"
cp -r "$root/models/compact" "$work/models/mine"
run -v "$work/models:/models:ro" --env ANGELO_MODELS=/models --env COLUMNS=200 "$image" bundles |
    grep '/models/mine' > /dev/null || fail "a bundle in ANGELO_MODELS is not listed"
say "bundles outside of the image"

# A GPU without its driver, as in a container that was given none: /dev/null plays the GPU.
case $image in *gpu*)
    if message=$(run --device /dev/null:/dev/nvidia0 -v "$work:/data" "$image" \
        "$name.map.gz" "$name.fasta" --out slow 2>&1); then
        fail "it crawls on the processor although there is a GPU"
    fi
    [[ $message == *"--gpus all"* ]] || fail "no word of --gpus all: $message"
    say "a GPU out of reach: $message" ;;
esac

bytes=$("$engine" image inspect --format '{{ .Size }}' "$image")
size=$((bytes / 1000000))
case $image in
    *gpu*) say "$size MB" ;;
    *) [ "$size" -lt "$LARGEST" ] || fail "$size MB, more than $LARGEST"; say "$size MB" ;;
esac
