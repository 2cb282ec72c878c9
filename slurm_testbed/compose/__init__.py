"""A cluster of several hosts, `SlurmCluster`, on the files in compose/, and the substrate under it."""

from slurm_testbed.compose.app_sessions import AppSessions
from slurm_testbed.compose.cluster import SlurmCluster
from slurm_testbed.compose.hub import Hub
from slurm_testbed.compose.observability import Observability
from slurm_testbed.compose.parts import PARTS, Parts
from slurm_testbed.compose.project import Project
from slurm_testbed.compose.running import running
from slurm_testbed.compose.substrate import ComposeSubstrate
from slurm_testbed.compose.viz import Viz

__all__ = [
    "PARTS",
    "AppSessions",
    "ComposeSubstrate",
    "Hub",
    "Observability",
    "Parts",
    "Project",
    "SlurmCluster",
    "Viz",
    "running",
]
