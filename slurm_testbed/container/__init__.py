"""A whole cluster in one container, `SlurmContainer`, and the substrate under it."""

from slurm_testbed.container.client import SlurmClient
from slurm_testbed.container.cluster import CGROUP_CAPABILITIES, SlurmContainer
from slurm_testbed.container.substrate import ContainerSubstrate

__all__ = ["CGROUP_CAPABILITIES", "ContainerSubstrate", "SlurmClient", "SlurmContainer"]
