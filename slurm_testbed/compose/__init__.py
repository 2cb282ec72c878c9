"""A cluster of several hosts, `SlurmCluster`, on compose/cluster.yaml, and the substrate under it."""

from slurm_testbed.compose.cluster import SlurmCluster
from slurm_testbed.compose.project import Project
from slurm_testbed.compose.running import running
from slurm_testbed.compose.substrate import ComposeSubstrate

__all__ = ["ComposeSubstrate", "Project", "SlurmCluster", "running"]
