"""Find the container engine, say what it can do, and start our own where there is none."""

from slurm_testbed.engine.connection import connect, environment
from slurm_testbed.engine.daemon import ADDRESS_POOLS, ensure, stop
from slurm_testbed.engine.examination import Finding, examine
from slurm_testbed.engine.labels import LABEL, LABEL_CLUSTER, LABEL_INTERFACE, LABEL_OWNER, UP_OWNER, owner
from slurm_testbed.engine.leftovers import remove_images, sweep
from slurm_testbed.engine.machine import THIS, Machine
from slurm_testbed.engine.registry import registry_answers

__all__ = [
    "ADDRESS_POOLS",
    "LABEL",
    "LABEL_CLUSTER",
    "LABEL_INTERFACE",
    "LABEL_OWNER",
    "THIS",
    "UP_OWNER",
    "Finding",
    "Machine",
    "connect",
    "ensure",
    "environment",
    "examine",
    "owner",
    "registry_answers",
    "remove_images",
    "stop",
    "sweep",
]
