#!/bin/sh
# First step of an image: the libraries of a lock file (cpu or gpu), into /opt/angelo.
# Run in the root of the repository, or a copy of it: sh packaging/install_libraries.sh cpu
set -eu

prefix=/opt/angelo
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT

python3 -m venv "$tools"
python3 -m venv --without-pip "$prefix"
"$tools/bin/python" -m pip --python "$prefix/bin/python" --quiet --disable-pip-version-check \
    install --no-cache-dir --no-compile --no-deps --only-binary :all: --require-hashes \
    -r "locks/$1.txt"

site=$(echo "$prefix"/lib/python3*/site-packages)
# Tests of the libraries, and what compilers and type checkers need.
find "$site" -type d \( -name tests -o -name include \) -prune -exec rm -rf {} +
find "$site" -type f \( -name '*.a' -o -name '*.pxd' -o -name '*.pyx' -o -name '*.pyi' \) -delete
# Tools to make ONNX files; the library that runs them does without.
for part in datasets quantization tools transformers; do
    rm -rf "$site/onnxruntime/$part"
done
# Libraries that nothing here opens (docs/images.md): ONNX Runtime for C, TensorRT, nvBLAS.
rm -f "$site"/onnxruntime/capi/libonnxruntime.so.* \
    "$site"/onnxruntime/capi/libonnxruntime_providers_tensorrt.so \
    "$site"/nvidia/cu13/lib/libnvblas.so.*

# The image is read-only, so byte code is made now, and never compared with its source.
"$prefix/bin/python" -m compileall -q --invalidation-mode unchecked-hash "$site"
