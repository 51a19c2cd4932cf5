"""Many maps: a manifest, a queue on one machine or a Slurm array, one summary at the end."""
