"""JupyterHub's servers as Slurm jobs: batchspawner and jupyterhub-moss, with what they get wrong mended.

To import this package is to mend the handler by which servers tell their port, also for stock batchspawner.

Example:
    c.JupyterHub.spawner_class = "jupyterhub_slurmspawner.SlurmSpawner"
"""

from __future__ import annotations

from typing import Any

from jupyterhub_slurmspawner.port import install
from jupyterhub_slurmspawner.spawner import SlurmSpawner

__all__ = ["MOSlurmSpawner", "SlurmSpawner"]

install()


def __getattr__(name: str) -> Any:
    """MOSlurmSpawner needs jupyterhub-moss, which not everybody has."""
    if name == "MOSlurmSpawner":
        from jupyterhub_slurmspawner.moss import MOSlurmSpawner

        return MOSlurmSpawner
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
