"""A page on which users choose partition, cores, GPUs and time: jupyterhub-moss, with our MOSlurmSpawner.

https://github.com/silx-kit/jupyterhub_moss#partition-settings has all fields of a partition.
"""

import jupyterhub_moss

c = get_config()  # noqa: F821  # traitlets' own, in configuration files

jupyterhub_moss.set_config(c)
# Leave this out to have jupyterhub-moss's own; then write jupyter_environments in place of venv.
c.JupyterHub.spawner_class = "jupyterhub_slurmspawner.MOSlurmSpawner"

c.MOSlurmSpawner.partitions = {
    "partition_1": {  # the partition's name in Slurm
        "architecture": "x86_86",  # shown
        "description": "Partition 1",  # shown
        "gpu": None,  # template of --gres for GPUs
        "max_ngpus": 0,
        "max_nprocs": 28,  # cores of a job
        "max_runtime": 12 * 3600,  # seconds, an hour at least
        "simple": True,  # whether the tab Simple has it
        "venv": "/opt/jupyter/bin/",  # the environment that the server runs from
    },
    "partition_2": {
        "architecture": "ppc64le",
        "description": "Partition 2",
        "gpu": "gpu:V100-SXM2-32GB:{}",
        "max_ngpus": 2,
        "max_nprocs": 128,
        "max_runtime": 1 * 3600,
        "simple": True,
        "venv": "/opt/jupyter/bin/",
    },
    "partition_3": {
        "architecture": "x86_86",
        "description": "Partition 3",
        "gpu": None,
        "max_ngpus": 0,
        "max_nprocs": 28,
        "max_runtime": 12 * 3600,
        "simple": False,
        "venv": "/opt/jupyter/bin/",
    },
}
