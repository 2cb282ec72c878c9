"""The node's half: reads what Slurm's scripts leave and what the kernel counts, and tells the service."""
