"""Find the container engine, say what it can do, and start our own where there is none."""

from slurm_testbed.engine.connection import (
    CLI_DEFAULT,
    PROBE_SECONDS,
    REQUEST_SECONDS,
    address,
    connect,
    environment,
    publishes_on,
)
from slurm_testbed.engine.daemon import ADDRESS_POOLS, INSTALL_SECONDS, START_SECONDS, STOP_SECONDS, ensure, stop
from slurm_testbed.engine.examination import Finding, examine
from slurm_testbed.engine.labels import LABEL, LABEL_CLUSTER, LABEL_INTERFACE, LABEL_OWNER, UP_OWNER, is_dead, owner
from slurm_testbed.engine.leftovers import cluster_folder, make_folder, remove_images, sweep, sweep_once
from slurm_testbed.engine.machine import THIS, Machine
from slurm_testbed.engine.registry import REGISTRY_SECONDS, registry_answers

__all__ = [
    "ADDRESS_POOLS",
    "CLI_DEFAULT",
    "INSTALL_SECONDS",
    "LABEL",
    "LABEL_CLUSTER",
    "LABEL_INTERFACE",
    "LABEL_OWNER",
    "PROBE_SECONDS",
    "REGISTRY_SECONDS",
    "REQUEST_SECONDS",
    "START_SECONDS",
    "STOP_SECONDS",
    "THIS",
    "UP_OWNER",
    "Finding",
    "Machine",
    "address",
    "cluster_folder",
    "connect",
    "ensure",
    "environment",
    "examine",
    "is_dead",
    "make_folder",
    "owner",
    "publishes_on",
    "registry_answers",
    "remove_images",
    "stop",
    "sweep",
    "sweep_once",
]
