"""Torch networks, checkpoint import and ONNX export: what makes bundles, not what runs them."""
