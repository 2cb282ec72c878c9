"""The folders in which the kernel holds jobs, as Slurm makes them: cgroup v1 and v2."""

from __future__ import annotations

from pathlib import Path

from slurm_observability.node.cgroups.base import HOLD, Cgroups, JobFolder, Reading, StepReading
from slurm_observability.node.cgroups.v1 import CgroupsV1
from slurm_observability.node.cgroups.v2 import CgroupsV2

__all__ = ["HOLD", "Cgroups", "CgroupsV1", "CgroupsV2", "JobFolder", "Reading", "StepReading", "find_cgroups"]


def find_cgroups(root: Path) -> Cgroups | None:
    """The hierarchy mounted at this root; None where there is neither version.

    A host that has both ("hybrid") has its controllers in v1, and its root has no file of v2's.

    Args:
        root: usually /sys/fs/cgroup.
    """
    if (root / "cgroup.controllers").exists():
        return CgroupsV2(root)
    return CgroupsV1(root) if (root / "memory").is_dir() else None
