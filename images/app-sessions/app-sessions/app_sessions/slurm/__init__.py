"""How Slurm is spoken to: by its commands, or by slurmrestd."""
