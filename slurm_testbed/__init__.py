"""Real Slurm clusters for tests: built from source, started in a second or two."""

from slurm_testbed.container import SlurmContainer
from slurm_testbed.errors import SlurmTestbedError
from slurm_testbed.keys import ClusterKeys
from slurm_testbed.slurm import Job, JobRecord, Slurm

__all__ = ["ClusterKeys", "Job", "JobRecord", "Slurm", "SlurmContainer", "SlurmTestbedError"]
