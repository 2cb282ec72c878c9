"""Real Slurm clusters for tests: built from source, started in a second or two."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from slurm_testbed.autoscale import Autoscaler
    from slurm_testbed.compose import SlurmCluster
    from slurm_testbed.container import SlurmContainer
    from slurm_testbed.errors import SlurmTestbedError
    from slurm_testbed.keys import ClusterKeys
    from slurm_testbed.kubernetes import SlurmOnKubernetes
    from slurm_testbed.share import this_python
    from slurm_testbed.slurm import Job, JobRecord, Slurm

__all__ = [
    "Autoscaler",
    "ClusterKeys",
    "Job",
    "JobRecord",
    "Slurm",
    "SlurmCluster",
    "SlurmContainer",
    "SlurmOnKubernetes",
    "SlurmTestbedError",
    "this_python",
]

# Loaded when they are asked for (PEP 562): a module below them can then be run by itself, by `python -m`.
_MODULES = {
    "Autoscaler": "autoscale",
    "ClusterKeys": "keys",
    "Job": "slurm",
    "JobRecord": "slurm",
    "Slurm": "slurm",
    "SlurmCluster": "compose",
    "SlurmContainer": "container",
    "SlurmOnKubernetes": "kubernetes",
    "SlurmTestbedError": "errors",
    "this_python": "share",
}

if not TYPE_CHECKING:  # else every name would be an object to a type checker, also a wrong one

    def __getattr__(name):
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
