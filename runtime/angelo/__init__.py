"""Atomic protein models from cryo-EM maps: the appliance (NumPy and ONNX Runtime, no torch)."""

import os

# Before NumPy and SciPy are loaded. Their matrices are small here, and threads that wait for
# each other made the geometry stage 20 times slower; ONNX Runtime has threads of its own.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

__version__ = "0.1.0"
