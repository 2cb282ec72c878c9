"""Desktop applications as Slurm jobs: started, watched, shown in the browser, ended."""

__version__ = "0.1.0"
