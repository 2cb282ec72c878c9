"""Servers are jobs: batchspawner's SlurmSpawner with a batch script. The image's own 30-spawner.py."""

import batchspawner  # noqa: F401  # gives the hub the address to which a started server tells its port

c = get_config()  # noqa: F821  # traitlets' own, in configuration files

c.JupyterHub.spawner_class = "batchspawner.SlurmSpawner"

c.SlurmSpawner.batch_script = """#!/bin/bash
#SBATCH --job-name=jupyterhub-{username}
#SBATCH --partition=debug
#SBATCH --nodes=1
#SBATCH --cpus-per-task=2
#SBATCH --mem=4G
#SBATCH --time=04:00:00

{cmd}
"""
