"""Slurm on Kubernetes: clusters from the charts, and the tools by which these are installed."""

from slurm_testbed.kubernetes.cluster import VALUES_VARIABLE, SlurmOnKubernetes
from slurm_testbed.kubernetes.substrate import KubernetesSubstrate
from slurm_testbed.kubernetes.tools import HELM, Tools, tools

__all__ = ["HELM", "VALUES_VARIABLE", "KubernetesSubstrate", "SlurmOnKubernetes", "Tools", "tools"]
