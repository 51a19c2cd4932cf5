"""Simulated maps, losses and training loops of our own networks (torch; not for run time)."""
