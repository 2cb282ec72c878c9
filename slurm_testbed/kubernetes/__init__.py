"""Slurm on Kubernetes: the tools by which the charts are installed."""

from slurm_testbed.kubernetes.tools import HELM, Tools, tools

__all__ = ["HELM", "Tools", "tools"]
