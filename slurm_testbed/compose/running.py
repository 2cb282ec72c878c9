"""The clusters that run on the engine, whatever carries them."""

from __future__ import annotations

import docker

from slurm_testbed import engine
from slurm_testbed.compose.project import PROJECT, Project
from slurm_testbed.compose.substrate import ComposeSubstrate
from slurm_testbed.container.substrate import ContainerSubstrate
from slurm_testbed.slurm import Slurm


def running(client: docker.DockerClient, *, owner: str) -> list[Slurm]:
    """The clusters of an owner that run, the newest first.

    Args:
        client: the engine.
        owner: value of the owner label.

    Example:
        >>> from slurm_testbed.engine import connect
        >>> running(connect(), owner="nobody")
        []
    """
    labels = [engine.LABEL_CLUSTER, f"{engine.LABEL_OWNER}={owner}"]
    clusters: list[Slurm] = []
    projects = set()
    for found in client.containers.list(ignore_removed=True, filters={"label": labels}):
        project = found.labels.get(PROJECT)
        if project is None:
            clusters.append(Slurm(ContainerSubstrate(found)))
        elif project not in projects:
            projects.add(project)
            clusters.append(Slurm(ComposeSubstrate(Project(project, []).containers(client))))
    return clusters
