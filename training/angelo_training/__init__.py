"""Simulated maps, losses and training loops for our own networks (torch; never needed at run time)."""
