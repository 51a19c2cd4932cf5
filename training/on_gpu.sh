#!/usr/bin/env bash
# Train on a CUDA machine that is borrowed for minutes: nothing is installed, no network is needed.
#
#   training/on_gpu.sh start c-alpha|language|gnn MINUTES [OPTIONS of python -m angelo_training]
#   training/on_gpu.sh wait SECONDS FOLDER
#
# "start" leaves training running in a session of its own, from the weights in training/weights
# (or from the checkpoint that an earlier call left in runs/). "wait" returns when it has ended or
# the seconds are over, with weights, curves and log so far in FOLDER; call it as often as needed.
# Wanted beside this checkout: data/structures.npz (python -m angelo_training pack, 42 MB) and for
# "language" data/proteins.fasta.gz; wheels of what the machine's Python lacks in wheels/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
export PYTHONPATH="$PWD/runtime:$PWD/export:$PWD/training:$PWD/runs/site" PYTHONUNBUFFERED=1
missing() { "$python" -c 'import gemmi, jaxtyping, mrcfile, numpy, scipy, torch, typer' 2>&1 | tail -n 1; }

start() {
    local network=$1 minutes=$2 run=runs/${1//-/_}
    shift 2
    mkdir -p "$run"
    if [ -n "$(missing)" ] && [ -d wheels ]; then
        "$python" -m pip install -q --no-index --no-deps --no-compile --upgrade --target runs/site wheels/*.whl
    fi
    if [ -n "$(missing)" ]; then
        echo "error: $(missing); put its wheel into wheels/" >&2
        exit 2
    fi
    local options=(--out "$run" --minutes "$minutes" --device "${DEVICE:-cuda}")
    local weights=training/weights/${network//-/_}.pt
    [ ! -f "$weights" ] || options+=(--start-from "$weights")
    case $network in
        language) options+=(--sequences data/proteins.fasta.gz) ;;
        gnn)
            local calpha=runs/c_alpha/weights.pt language=runs/language/weights.pt
            [ -f "$calpha" ] || calpha=training/weights/c_alpha.pt
            [ -f "$language" ] || language=training/weights/language.pt
            options+=(--calpha-weights "$calpha" --language-weights "$language")
            options+=(--workers "${WORKERS:-$(($(nproc) - 2))}")
            ;;
        *) options+=(--workers "${WORKERS:-$(($(nproc) - 2))}") ;;
    esac
    setsid nohup "$python" -m angelo_training "$network" "${options[@]}" "$@" >"$run/log.txt" 2>&1 &
    echo $! >runs/on_gpu.pid
    echo "training $network for $minutes minutes: $run/log.txt"
}

wait_and_copy() {
    local until=$((SECONDS + $1)) folder=$2
    while [ $SECONDS -lt $until ] && kill -0 "$(cat runs/on_gpu.pid)" 2>/dev/null; do sleep 2; done
    for run in runs/c_alpha runs/language runs/gnn; do
        for file in weights.pt curves.csv log.txt; do
            [ ! -f "$run/$file" ] || cp "$run/$file" "$folder/$(basename "$run")_$file"
        done
    done
    tail -n 5 runs/*/log.txt
    if kill -0 "$(cat runs/on_gpu.pid)" 2>/dev/null; then echo "still training"; else echo "training has ended"; fi
}

case ${1:-} in
    start) shift && start "$@" ;;
    wait) shift && wait_and_copy "$@" ;;
    *) sed -n '2,12s/^# \{0,1\}//p' "$0" && exit 2 ;;
esac
