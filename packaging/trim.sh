#!/bin/sh
# Remove what no run reads from an installation: packaging/trim.sh PREFIX
set -eu

site=$(echo "$1"/lib/python3*/site-packages)

# Tests of the libraries, and what compilers need.
find "$site" -type d -name tests -prune -exec rm -rf {} +
find "$site" -type d -name include -prune -exec rm -rf {} +
find "$site" -type f \( -name '*.a' -o -name '*.pxd' -o -name '*.pyx' -o -name '*.pyi' \) -delete
# Tools to make ONNX files; the library that runs them does without.
for part in transformers quantization tools datasets; do
    rm -rf "$site/onnxruntime/$part"
done
# No library links or opens these (docs/images.md says how that was found out).
rm -f "$site"/nvidia/cu13/lib/libnvblas.so.* "$site"/onnxruntime/capi/libonnxruntime_providers_tensorrt.so
