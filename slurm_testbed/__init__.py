"""Real Slurm clusters for tests: built from source, started in a second or two."""
