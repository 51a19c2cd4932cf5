"""Torch definitions of every network, used alike by training, export and checkpoint import."""
