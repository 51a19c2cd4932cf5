"""Atomic protein models from cryo-EM maps: the appliance (NumPy and ONNX Runtime, no torch)."""

__version__ = "0.1.0"
